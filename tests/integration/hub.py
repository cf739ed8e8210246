"""
A stand-in for Docker Hub from real programs: docker-registry with token authentication and the
C{redirect} storage middleware, an nginx in front of it, an nginx as its CDN, a token service and an
index; all over TLS, under names that only the mirror's C{/etc/hosts} has.

The redirect middleware can't sign URLs; it only puts another origin before the storage path.  So
the nginx in front of the registry appends the signature to the C{Location}, as
C{nginx.SIGNED_QUERY} explains.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.integration.ca import CertificateAuthority
from tests.integration.images import MIB, OCI, Image, Layer, Published, Publisher
from tests.integration.nginx import Cdn, Front, Log
from tests.integration.programs import Server, freePort, listens
from tests.integration.tokens import HUB, Realm, Signer

_REGISTRY = """
version: 0.1
log: {level: info, formatter: json}
storage:
  filesystem: {rootdirectory: %(storage)s}
  delete: {enabled: true}
http:
  addr: 127.0.0.1:%(port)d
  secret: of no importance here
"""
_REDIRECT = """
middleware:
  storage:
    - name: redirect
      options: {baseurl: "%s"}
"""
_AUTH = """
auth:
  token:
    realm: %(tokenUrl)s
    service: %(service)s
    issuer: %(issuer)s
    rootcertbundle: %(bundle)s
"""

REGISTRY, TOKENS, INDEX, CDN = (
    "registry.hub.test",
    "auth.hub.test",
    "index.hub.test",
    "cdn.hub.test",
)


class Hub:
    """
    The whole Hub, with these images: C{library/one} with one layer, C{library/ten} with ten layers
    of 8 MiB, C{library/multi} for two platforms, C{library/tags} with the twenty tags C{1} to
    C{20}, and the private C{alice/secret}.

    @ivar front: the registry for the mirror, with its switches.
    @ivar backdoor: the same registry without switches, for the fallback.
    @ivar services: the log of the token service and the index.
    @ivar images: what was published under each C{repository:tag}.
    @ivar certificate: the key and certificate of all servers.
    @ivar hosts: the names of the servers, as lines of C{/etc/hosts}.
    """

    def __init__(self, folder: Path, authority: CertificateAuthority) -> None:
        certificate = self.certificate = authority.server(REGISTRY, TOKENS, INDEX, CDN)
        registryPort, frontPort, backdoorPort, cdnPort = (freePort() for _ in range(4))
        tokenPort, searchPort = freePort(), freePort()
        self.registryUrl = f"https://{REGISTRY}:{frontPort}"
        self.backdoorUrl = f"https://{REGISTRY}:{backdoorPort}"
        self.tokenUrl = f"https://{TOKENS}:{tokenPort}/token"
        self.searchUrl = f"https://{INDEX}:{searchPort}"
        self.cdnUrl = f"https://{CDN}:{cdnPort}"
        self.hosts = f"127.0.0.1 {REGISTRY} {TOKENS} {INDEX} {CDN}\n"

        storage = folder / "storage"
        settings = authentication(folder, self.tokenUrl, HUB) + _REDIRECT % self.cdnUrl
        registry = dockerRegistry(folder, registryPort, settings)
        self._registryPort = registryPort
        self._signer = Signer(folder, HUB)
        self.front = Front(folder / "front", frontPort, certificate, registryPort)
        self.backdoor = Front(folder / "backdoor", backdoorPort, certificate, registryPort)
        self.cdn = Cdn(folder / "cdn", CDN, cdnPort, certificate, storage)
        self.services, services = tokenAndIndex(folder, certificate, tokenPort, searchPort, HUB)
        self._servers = [
            registry,
            self.front.server,
            self.backdoor.server,
            self.cdn.server,
            services,
        ]
        self.images: dict[str, Published] = {}

    def start(self) -> None:
        """Start all programs, which end with the tests, and publish the images."""
        for server in self._servers:
            server.start()
        publisher = Publisher(self._registryPort, self._bearer)
        try:
            self._publish(publisher)
        finally:
            publisher.close()

    def _bearer(self, repository: str) -> str:
        return publishersToken(self._signer, repository)

    def _publish(self, publisher: Publisher) -> None:
        layers = {
            "library/one:latest": [Layer.make("one", 3 * MIB)],
            "library/ten:latest": [Layer.make(f"ten/{n}", 8 * MIB) for n in range(10)],
            "alice/secret:latest": [Layer.make("secret", MIB)],
            **{f"library/tags:{n}": [Layer.make(f"tag/{n}", 1000)] for n in range(1, 21)},
        }
        for name, ofImage in layers.items():
            repository, _, tag = name.partition(":")
            self.images[name] = publisher.image(repository, tag, Image.make(ofImage))
        platforms = {
            name: Image.make([Layer.make(f"multi/{name}", MIB)], OCI, name)
            for name in ("amd64", "arm64")
        }
        self.images["library/multi:latest"] = publisher.index("library/multi", "latest", platforms)


def publishersToken(signer: Signer, repository: str) -> str:
    """Create a token that permits a push to a repository, whoever its owner is."""
    access: dict[str, object] = {
        "type": "repository",
        "name": repository,
        "actions": ["pull", "push"],
    }
    return signer.token("publisher", [access])


def authentication(folder: Path, tokenUrl: str, realm: Realm) -> str:
    """The settings of a registry with this token service, whose key is created in the folder."""
    return _AUTH % {
        "tokenUrl": tokenUrl,
        "service": realm.service,
        "issuer": realm.issuer,
        "bundle": Signer.makeKey(folder),
    }


def dockerRegistry(folder: Path, port: int, settings: str = "") -> Server:
    """
    Create a docker-registry, whose storage is C{storage} in the folder.

    @param settings: further configuration in YAML.
    """
    values = {"storage": folder / "storage", "port": port}
    configuration = folder / "registry.yml"
    configuration.write_text(_REGISTRY % values + settings)
    return Server(
        "registry",
        ["docker-registry", "serve", str(configuration)],
        folder,
        ready=lambda: listens(port),
    )


def tokenAndIndex(
    folder: Path, certificate: Path, tokenPort: int, searchPort: int, realm: Realm
) -> tuple[Log, Server]:
    """
    Create the process of the token service and the index.

    @return: its log and the process.
    """
    settings = {
        "certificate": str(certificate),
        "tokenPort": tokenPort,
        "searchPort": searchPort,
        "realm": realm,
    }
    (folder / "services.json").write_text(json.dumps(settings))
    server = Server(
        "services",
        [sys.executable, "-m", "tests.integration.tokens", str(folder)],
        folder,
        ready=lambda: listens(tokenPort) and listens(searchPort),
    )
    return Log(folder / "tokens.log"), server
