"""
An embedded registry: what it holds, where it listens, what it has seen.
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
    A registry of one's own: registry, token service, index and CDN, each on an origin of its
    own. Nothing listens before C{start}; C{agent} reaches it even so.

    @param reactor: the reactor to listen with; a L{Clock} will do for C{agent} alone.
    @param name: as it stands in the names of images, and its host's.
    @param settings: how it behaves.
    @param address: the loopback address to listen on.
    @param network: what C{addRegistry} puts it into, in place of a network of its own.

    @ivar name: its name.
    @ivar seen: every request to any of its services, in the order they came in.
    @ivar seenByAll: every request to any registry that is beside it, and to itself.
    @ivar registry: the registry's L{Origin}, with its faults; likewise C{token}, C{search}, C{cdn}.
        A token service on the registry's own host has the registry's.
    @ivar mirror: all of that on a single origin that doesn't redirect: a further mirror of the same
        registry, such as a C{fallback} is.
    @ivar tokens: what knows how long tokens are good: C{tokens.lifetime}, in seconds.
    @ivar links: what knows how long links to the CDN are good: C{links.lifetime}, in seconds.
    @ivar private: patterns (as in L{fnmatch}) of repositories that are hidden from the public.
    @ivar pullsLeft: what C{ratelimit-remaining} says, by account, empty for the public.
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
        self.registry = self._origin("registry", self._hostOf("registry"))
        if tokenHost == self.registry.host:
            self.token = self.registry
        else:
            self.token = self._origin("token", tokenHost)
        self.search, self.cdn, self.mirror = (
            self._origin(service, self._hostOf(service)) for service in ("search", "cdn", "mirror")
        )
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
        Another registry beside this one: with the same clock, CA and agents, started and stopped
        together.  One that is added after C{start} listens when C{start} is called again.

        @raise ValueError: one of its hosts is another's already.
        """
        network = self._network
        return EmbeddedRegistry(network.reactor, name, settings, network=network)

    @property
    def registryURL(self) -> str:
        """
        Origin of the registry, as C{https://127.0.0.1:4711}.
        """
        return self.registry.url

    @property
    def authURL(self) -> str:
        """
        URL of the token service, with its path.
        """
        return f"{self.token.url}{self._tokenService.path.decode()}"

    @property
    def searchURL(self) -> str:
        """
        Origin of the index.
        """
        return self.search.url

    @property
    def cdnOrigin(self) -> str:
        """
        Origin that blobs, and manifests, are redirected to.
        """
        return self.cdn.url

    @property
    def mirrorURL(self) -> str:
        """
        Origin of the further mirror.
        """
        return self.mirror.url

    @property
    def caFile(self) -> str:
        """
        Path of the CA's certificate, while it runs.
        """
        return self._network.caFile

    @property
    def caPEM(self) -> bytes:
        """
        The CA's certificate.
        """
        return self._network.authority.pem

    def serverPEM(self, hostnames: list[str]) -> bytes:
        """
        A private key and its certificate chain for a server of your own, as one PEM file.
        """
        return self._network.authority.serverPEM(hostnames)

    def start(self) -> Deferred[None]:
        """
        Listen, on ports that the kernel chooses; those beside it too.
        """
        return self._network.start()

    def stop(self) -> Deferred[None]:
        """
        Close everything, those beside it too; nothing is left in the reactor, and no file.
        """
        return self._network.stop()

    def agent(self, pool: HTTPConnectionPool | None = None) -> MemoryAgent:
        """
        An L{IAgent} that reaches it, and those beside it, in memory; without a pool, a connection
        a request.
        """
        return self._network.agent(pool)

    def connections(self, service: str) -> int:
        """
        How many connections were ever made to a service: C{registry}, C{cdn} and so on.
        """
        origins = (self.registry, self.token, self.search, self.cdn, self.mirror)
        return next(origin.connections for origin in origins if origin.name == service)

    def misdirected(self) -> list[Seen]:
        """
        The requests, to any registry of those that are beside each other, with a credential that
        the registry did not give out: a token or a password of another one, or anything at all at
        a CDN or an index.  What a client makes up is one too.
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
        Hold an image.

        @param layers: layers as they are, lowest first: gzipped tars, if anybody is to unpack them.
        @param sizes: sizes in bytes of further layers to make up.
        @param mediaType: L{DOCKER_MANIFEST} or L{OCI_MANIFEST}.
        @raise ValueError: the registry has no repositories of one component, and this is one.
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
        Hold an index of images, by platform (C{linux/arm64/v8}), and the images with it.
        """
        index = makeIndex(images)
        self._hold(repository, tag, index.manifest, images.values())
        return index

    def addBlob(self, repository: str, size: int, seed: str = "") -> Blob:
        """
        Hold a blob of any size, which takes no memory: one seeded block, over and over.
        """
        blob = PatternBlob(size, seed)
        self._repository(repository).blobs[blob.digest] = blob
        return blob

    def addUser(
        self, name: str, password: str, *, push: Iterable[str] = (), pull: Iterable[str] = ()
    ) -> None:
        """
        Know a user.

        @param push: patterns (as in L{fnmatch}) of repositories that this user may push and pull.
        @param pull: patterns of private repositories that this user may pull.
        """
        self._contents.users[name] = User(name, password, tuple(push), tuple(pull))

    def issueToken(self, repository: str, *actions: str) -> str:
        """
        A token as the token service would give it, without asking.

        @param actions: C{pull} or C{push}; without any, C{pull}.
        """
        return self.tokens.issue("", {repository: frozenset(actions or ("pull",))})

    def _hostOf(self, service: str) -> str:
        """
        The host of a service, as far as no setting says otherwise.
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
        origin = Origin(service, host, self.name, self.seen, self._network.seen)
        self._network.add(origin)
        return origin

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
