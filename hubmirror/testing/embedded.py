"""
An embedded registry with all of its services.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import HTTPConnectionPool

from hubmirror.testing.answers import Answer
from hubmirror.testing.authentication import Authenticator, ByNothing, ByPassword, ByToken
from hubmirror.testing.blobs import Blob, PatternBlob
from hubmirror.testing.cdn import CDN
from hubmirror.testing.contents import Contents, Repository, User
from hubmirror.testing.credentials import Credential
from hubmirror.testing.faults import Seen
from hubmirror.testing.images import (
    DOCKER_MANIFEST,
    Image,
    Index,
    Manifest,
    makeImage,
    makeIndex,
    makeLayer,
)
from hubmirror.testing.manifests import Manifests
from hubmirror.testing.memory import MemoryAgent
from hubmirror.testing.network import Network
from hubmirror.testing.origin import Origin
from hubmirror.testing.registry import Registry
from hubmirror.testing.search import Search
from hubmirror.testing.settings import Authentication, RegistrySettings
from hubmirror.testing.tokens import Tokens, TokenService
from hubmirror.testing.wire import HubRequest


class EmbeddedRegistry:
    """
    An embedded registry: registry, token service, index and CDN, each on an origin of its own.  It
    listens only after C{start}, but C{agent} can reach it without that.

    @param reactor: the reactor to listen with; a L{Clock} is enough for C{agent}.
    @param name: the registry's name in the names of images, which is also its host.
    @param settings: how the registry behaves.
    @param address: the loopback address to listen on.
    @param network: the network of several registries, which C{addRegistry} passes; by default, the
        registry has a network of its own.

    @ivar name: the registry's name.
    @ivar seen: all requests to its services, in the order in which they were received.
    @ivar seenByAll: all requests to the registries of its network.
    @ivar registry: the L{Origin} of the registry, with its faults; likewise C{token}, C{search} and
        C{cdn}.  C{token} is the same as C{registry} when they have the same host.
    @ivar mirror: the L{Origin} of a further mirror of the same registry, such as a C{fallback}.  It
        has all services, and does not redirect.
    @ivar tokens: issues the tokens; C{tokens.lifetime} is how long they are valid, in seconds.
    @ivar links: the CDN; C{links.lifetime} is how long signed URLs are valid, in seconds.
    @ivar private: patterns (as in L{fnmatch}) of the repositories that are hidden from anonymous
        clients.
    @ivar pullsLeft: the values of C{ratelimit-remaining}, by account; empty for anonymous clients.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        name: str,
        settings: RegistrySettings | None = None,
        *,
        address: str = "127.0.0.1",
        network: Network | None = None,
    ) -> None:
        settings = settings or RegistrySettings()
        self.name = name
        self.seen: list[Seen] = []
        self._network = network or Network(reactor, address)
        self._contents = Contents()
        self._settings = settings
        self.seenByAll = self._network.seen
        self.private = self._contents.private
        realm = settings.realm or f"{self._hostOf('token')}/token"
        tokenHost, _, tokenPath = realm.partition("/")
        self.registry, self.search, self.cdn, self.mirror = origins = [
            self._origin(service, self._hostOf(service))
            for service in ("registry", "search", "cdn", "mirror")
        ]
        self.token = self.registry
        if tokenHost != self.registry.host:
            self.token = self._origin("token", tokenHost)
            origins.append(self.token)
        self._network.add(origins)
        seconds = self._network.reactor.seconds
        self.tokens = Tokens(name, settings.service or name, settings.tokenSize, seconds)
        self._tokenService = TokenService(f"/{tokenPath}", self._contents, self.tokens, seconds)
        self.links = CDN(self._contents, lambda: self.cdn.url, seconds)
        self._manifests = Manifests(self._contents, settings.pulls)
        self.pullsLeft = self._manifests.pullsLeft
        self._asItself = Registry(
            self._contents,
            settings,
            self._authenticator(self.registry, lambda: self.authURL),
            lambda: self.registry.url,
            self.links.redirectManifest if settings.redirectsManifests else self._manifests.give,
            self.links.redirect if settings.redirectsBlobs else self.links.deliver,
        )
        self._asMirror = Registry(
            self._contents,
            settings,
            self._authenticator(self.mirror, lambda: f"{self.mirror.url}/token"),
            lambda: self.mirror.url,
            Manifests(self._contents, settings.pulls).give,
            self.links.deliver,
        )
        self._index = Search(self._contents)
        self.token.serve = self._tokenService.serve
        self.registry.serve = self._serveRegistry
        self.search.serve = self._index.serve
        self.cdn.serve = self.links.serve
        self.mirror.serve = self._serveMirror
        self._network.owners[name] = self._owns

    def addRegistry(
        self, name: str, settings: RegistrySettings | None = None
    ) -> "EmbeddedRegistry":
        """
        Add a registry to the same network.  They share clock, CA and agents, and are started and
        stopped together.  A registry that is added after C{start} listens when C{start} is called
        again.

        @raise ValueError: when one of its hosts is another registry's.  Then nothing is added.
        """
        network = self._network
        return EmbeddedRegistry(network.reactor, name, settings, network=network)

    @property
    def registryURL(self) -> str:
        """
        The origin of the registry, such as C{https://127.0.0.1:4711}.
        """
        return self.registry.url

    @property
    def authURL(self) -> str:
        """
        The URL of the token service, with its path.
        """
        return f"{self.token.url}{self._tokenService.path.decode()}"

    @property
    def searchURL(self) -> str:
        """
        The origin of the index.
        """
        return self.search.url

    @property
    def cdnOrigin(self) -> str:
        """
        The origin of the CDN, to which requests are redirected.
        """
        return self.cdn.url

    @property
    def mirrorURL(self) -> str:
        """
        The origin of the further mirror.
        """
        return self.mirror.url

    @property
    def caFile(self) -> str:
        """
        The file with the CA's certificate, which exists between C{start} and C{stop}.
        """
        return self._network.caFile

    @property
    def caPEM(self) -> bytes:
        """
        The CA's certificate, in PEM.
        """
        return self._network.authority.pem

    def serverPEM(self, hostnames: list[str]) -> bytes:
        """
        Create a private key and its certificate chain for another server.

        @param hostnames: the names and addresses of the server.
        @return: the key and the certificates, in PEM.
        """
        return self._network.authority.serverPEM(hostnames)

    def start(self) -> Deferred[None]:
        """
        Make all registries of the network listen, on ports that the kernel chooses.
        """
        return self._network.start()

    def stop(self) -> Deferred[None]:
        """
        Close all connections and ports of the network, and remove its files.
        """
        return self._network.stop()

    def agent(self, pool: HTTPConnectionPool | None = None) -> MemoryAgent:
        """
        Create an L{IAgent} that reaches all registries of the network in memory.

        @param pool: the agent's connection pool; without one, each request has a connection of its
            own.
        """
        return self._network.agent(pool)

    def connections(self, service: str) -> int:
        """
        The number of connections that were ever made to a service.  A token service on the
        registry's host has the same connections as the registry.

        @param service: C{registry}, C{token}, C{search}, C{cdn} or C{mirror}.
        """
        origins = {
            "registry": self.registry,
            "token": self.token,
            "search": self.search,
            "cdn": self.cdn,
            "mirror": self.mirror,
        }
        return origins[service].connections

    def misdirected(self) -> list[Seen]:
        """
        The requests to the registries of the network with a credential that does not belong to the
        registry: a token or password of another registry, an invented one, or any credential that
        a CDN or an index was sent.
        """
        return self._network.misdirected()

    def addImage(
        self,
        repository: str,
        tag: str,
        *,
        layers: Sequence[bytes] = (),
        sizes: Sequence[int] = (),
        platform: str = "linux/amd64",
        mediaType: str = DOCKER_MANIFEST,
    ) -> Image:
        """
        Add an image with a tag.

        @param layers: the layers, lowest first; gzipped tars, if a client will unpack them.
        @param sizes: the sizes in bytes of further layers to generate.
        @param platform: the platform, such as C{linux/amd64}.
        @param mediaType: L{DOCKER_MANIFEST} or L{OCI_MANIFEST}.
        @raise ValueError: when the repository's name has one component, and the registry does not
            allow that.
        """
        made = [
            makeLayer(size, f"{repository}:{tag} {platform} {number}")
            for number, size in enumerate(sizes)
        ]
        image = makeImage([*layers, *made], platform, mediaType)
        self._hold(repository, tag, image.manifest, [image])
        return image

    def addIndex(self, repository: str, tag: str, images: Mapping[str, Image]) -> Index:
        """
        Add an index with a tag, and its images.

        @param images: the images, by platform (such as C{linux/arm64/v8}).
        @raise ValueError: as for L{addImage}.
        """
        index = makeIndex(images)
        self._hold(repository, tag, index.manifest, images.values())
        return index

    def addBlob(self, repository: str, size: int, seed: str = "") -> Blob:
        """
        Add a blob of any size, which takes almost no memory (L{PatternBlob}).

        @param size: the size in bytes.
        @param seed: different seeds give different bytes.
        @raise ValueError: as for L{addImage}.
        """
        blob = PatternBlob(size, seed)
        self._repository(repository).blobs[blob.digest] = blob
        return blob

    def addUser(
        self, name: str, password: str, *, push: Iterable[str] = (), pull: Iterable[str] = ()
    ) -> None:
        """
        Add a user.

        @param push: patterns (as in L{fnmatch}) of the repositories that the user may push to and
            pull from.
        @param pull: patterns of the private repositories that the user may pull from.
        """
        self._contents.users[name] = User(name, password, tuple(push), tuple(pull))

    def issueToken(self, repository: str, *actions: str) -> str:
        """
        Issue an anonymous token without a request to the token service.

        @param actions: C{pull} or C{push}; without any, C{pull}.
        """
        return self.tokens.issue("", {repository: frozenset(actions or ("pull",))})

    def _hostOf(self, service: str) -> str:
        """
        The default host of a service.
        """
        return {"registry": self.name, "token": f"auth.{self.name}"}.get(
            service, f"{service}.{self.name}"
        )

    def _owns(self, seen: Seen, credential: Credential) -> bool:
        if seen.service in ("cdn", "search"):
            return False
        if credential.kind in ("basic", "password"):
            name, _, password = credential.value.partition(":")
            return self._contents.login(name, password) is not None
        return credential.kind in ("bearer", "refresh_token") and self.tokens.issued(
            credential.value
        )

    def _origin(self, service: str, host: str) -> Origin:
        return Origin(service, host, self.name, self.seen, self._network.seen)

    def _authenticator(self, origin: Origin, realm: Callable[[], str]) -> Authenticator:
        if self._settings.authentication is Authentication.TOKEN:
            return ByToken(self.tokens, realm)
        if self._settings.authentication is Authentication.BASIC:
            return ByPassword(self._contents, lambda: origin.url)
        return ByNothing()

    def _repository(self, name: str) -> Repository:
        if self._settings.officialImages and "/" not in name:
            raise ValueError(f"there is no repository {name} here, but library/{name}")
        return self._contents.repository(name)

    def _hold(self, repository: str, tag: str, manifest: Manifest, images: Iterable[Image]) -> None:
        held = self._repository(repository)
        for image in images:
            held.addImage(image)
        held.manifests[manifest.digest] = manifest
        held.tags[tag] = manifest.digest

    def _serveRegistry(self, request: HubRequest) -> Answer:
        if self.token is self.registry and request.path == self._tokenService.path:
            return self._tokenService.serve(request)
        return self._asItself.serve(request)

    def _serveMirror(self, request: HubRequest) -> Answer:
        if request.path == b"/token":
            return self._tokenService.answer(request)
        if request.path.startswith(b"/v1/"):
            return self._index.serve(request)
        return self._asMirror.serve(request)
