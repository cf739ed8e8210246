"""
Two registries beside the stand-in Hub, and the mirror of all three.

Each registry is a docker-registry with an nginx in front of it: C{quay.test} with a token service
at C{auth.quay.test} and tokens of 12 KiB, and C{k8s.test} without any authentication, which
redirects requests for manifests and blobs to C{region.k8s.test}.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.integration.ca import CertificateAuthority
from tests.integration.hub import (
    Hub,
    authentication,
    dockerRegistry,
    publishersToken,
    tokenAndIndex,
)
from tests.integration.images import MIB, Image, Layer, Published, Publisher
from tests.integration.nginx import Front, Log, RedirectingFront, Region
from tests.integration.programs import freePort
from tests.integration.tokens import HUB, Realm, Signer

QUAY, QUAY_TOKENS, K8S, REGION = "quay.test", "auth.quay.test", "k8s.test", "region.k8s.test"
#: The names of all hosts of these registries, which only their mirrors can resolve.
REGISTRIES = (QUAY, QUAY_TOKENS, K8S, REGION)
#: The names of the mirrors.
MIRRORS = (
    "many.test",
    "quay.many.test",
    "k8s.many.test",
    "passing.test",
    "quay.passing.test",
    "account.test",
    "hidden.test",
)
BOB = Realm("quay.test:443", "auth.quay.test", "bob", "battery staple", padding=9 * 1024)

#: The pages of tags of every repository of quay.test.
TAGS = [["a", "b", "c"], ["d", "e", "f"], ["g"]]


class Quay:
    """
    The registry with tokens.  It has the private C{bob/secret:1}, and C{library/one:latest}, which
    is another image than the Hub's.

    @ivar front: the registry for the mirror.
    @ivar services: the log of its token service.
    @ivar images: what was published under each C{repository:tag}.
    """

    def __init__(self, folder: Path, authority: CertificateAuthority) -> None:
        folder.mkdir()
        certificate = authority.server(QUAY, QUAY_TOKENS)
        registryPort, frontPort, tokenPort, searchPort = (freePort() for _ in range(4))
        self.url = f"https://{QUAY}:{frontPort}"
        self.tokenUrl = f"https://{QUAY_TOKENS}:{tokenPort}/token"
        registry = dockerRegistry(folder, registryPort, authentication(folder, self.tokenUrl, BOB))
        self.front = Front(folder / "front", frontPort, certificate, registryPort, tags=TAGS)
        self.services, services = tokenAndIndex(folder, certificate, tokenPort, searchPort, BOB)
        signer = Signer(folder, BOB)
        for server in (registry, self.front.server, services):
            server.start()
        self.images = _publish(
            Publisher(registryPort, lambda repository: publishersToken(signer, repository)),
            {
                "library/one:latest": "quay/one",
                "bob/secret:1": "quay/secret",
            },
        )


class K8s:
    """
    The registry without authentication, which has C{pause:1}.

    @ivar front: the registry for the mirror.
    @ivar region: the server to which it redirects.
    @ivar images: what was published under each C{repository:tag}.
    """

    def __init__(self, folder: Path, authority: CertificateAuthority) -> None:
        folder.mkdir()
        certificate = authority.server(K8S, REGION)
        registryPort, frontPort, regionPort = (freePort() for _ in range(3))
        self.url = f"https://{K8S}:{frontPort}"
        self.regionUrl = f"https://{REGION}:{regionPort}"
        registry = dockerRegistry(folder, registryPort)
        self.front = RedirectingFront(
            folder / "front", frontPort, certificate, registryPort, self.regionUrl
        )
        self.region = Region(folder / "region", regionPort, certificate, registryPort)
        for server in (registry, self.front.server, self.region.server):
            server.start()
        self.images = _publish(Publisher(registryPort, lambda _: ""), {"pause:1": "k8s/pause"})


def _publish(publisher: Publisher, images: dict[str, str]) -> dict[str, Published]:
    """
    @param images: the content of the only layer of each image, by C{repository:tag}.
    """
    published = {}
    try:
        for name, seed in images.items():
            repository, _, tag = name.partition(":")
            image = Image.make([Layer.make(seed, MIB)])
            published[name] = publisher.image(repository, tag, image)
    finally:
        publisher.close()
    return published


class Witnesses:
    """
    The logs of all servers of all three registries, and the credentials that each may be sent.
    """

    def __init__(self, hub: Hub, quay: Quay, k8s: K8s) -> None:
        self._owners: dict[Log, Realm | None] = {
            hub.front.log: HUB,
            hub.services: HUB,
            hub.cdn.log: None,
            quay.front.log: BOB,
            quay.services: BOB,
            k8s.front.log: None,
            k8s.region.log: None,
        }

    @property
    def logs(self) -> Iterable[Log]:
        return self._owners

    def misdirected(self, log: Log, requests: Iterable[dict[str, str]]) -> Iterator[dict[str, str]]:
        """The requests with a credential that does not belong to the server that received it."""
        realm = self._owners[log]
        for request in requests:
            for credential in (request["credentials"], request.get("form", "")):
                if credential and not (realm and _isOf(realm, credential)):
                    yield request


def _isOf(realm: Realm, credential: str) -> bool:
    """
    Whether a realm has issued this token, or has this password.

    @param credential: the value of a field, or C{USER:PASSWORD} of a form.
    """
    scheme, _, value = credential.partition(" ")
    if scheme == "Bearer":
        claims = value.split(".")[1]
        issuer: str = json.loads(base64.urlsafe_b64decode(claims + "=="))["iss"]
        return issuer == realm.issuer
    password = base64.b64decode(value).decode() if scheme == "Basic" else credential
    return password == f"{realm.user}:{realm.password}"
