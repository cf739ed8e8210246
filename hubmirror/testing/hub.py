"""
The embedded Hub itself: what it holds, where it listens, what it has seen.
"""

import tempfile
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorSSL, IReactorTime
from twisted.internet.ssl import PrivateCertificate
from twisted.web.client import HTTPConnectionPool

from hubmirror.testing.answers import Answer
from hubmirror.testing.blobs import Blob, PatternBlob
from hubmirror.testing.ca import Authority
from hubmirror.testing.cdn import CDN
from hubmirror.testing.contents import Contents, User
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
from hubmirror.testing.memory import MemoryAgent
from hubmirror.testing.origin import Origin
from hubmirror.testing.registry import Registry
from hubmirror.testing.search import Search
from hubmirror.testing.tokens import Tokens, TokenService
from hubmirror.testing.wire import HubRequest


class EmbeddedHub:
    """
    A Docker Hub of one's own: registry, token service, index and CDN, each on an origin of its
    own. Nothing listens before C{start}; C{agent} reaches it even so.

    @param reactor: the reactor to listen with; a L{Clock} will do for C{agent} alone.
    @param address: the loopback address to listen on.

    @ivar seen: every request to any of the services, in the order they came in.
    @ivar registry: the registry's L{Origin}, with its faults; likewise C{token}, C{search}, C{cdn}.
    @ivar mirror: all of that on a single origin that doesn't redirect: a further mirror of the same
        Hub, such as a C{fallback} is.
    @ivar tokens: what knows how long tokens are good: C{tokens.lifetime}, in seconds.
    @ivar links: what knows how long links to the CDN are good: C{links.lifetime}, in seconds.
    @ivar private: patterns (as in L{fnmatch}) of repositories that are hidden from the public.
    @ivar caFile: path of the CA's certificate, while the Hub runs.
    """

    def __init__(self, reactor: IReactorTime, address: str = "127.0.0.1") -> None:
        self.seen: list[Seen] = []
        self._contents = Contents()
        self._reactor = reactor
        self._address = address
        self._authority = Authority()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.caFile = ""
        self.private = self._contents.private
        self.registry, self.token, self.search, self.cdn, self.mirror = self._origins = [
            Origin(name, self.seen) for name in ("registry", "token", "search", "cdn", "mirror")
        ]
        self.tokens = Tokens(reactor.seconds)
        self.links = CDN(self._contents, lambda: self.cdn.url, reactor.seconds)
        registry = Registry(
            self._contents,
            self.tokens,
            lambda: self.registry.url,
            lambda: self.authURL,
            self.links.redirect,
        )
        self.registry.serve = registry.serve
        self.token.serve = TokenService(self._contents, self.tokens, reactor.seconds).serve
        self.search.serve = Search(self._contents).serve
        self.cdn.serve = self.links.serve
        self._mirrored = Registry(
            self._contents,
            self.tokens,
            lambda: self.mirror.url,
            lambda: f"{self.mirror.url}/token",
            self.links.deliver,
        )
        self.mirror.serve = self._serveMirror

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
        return f"{self.token.url}/token"

    @property
    def searchURL(self) -> str:
        """
        Origin of the index.
        """
        return self.search.url

    @property
    def cdnOrigin(self) -> str:
        """
        Origin that blobs are redirected to.
        """
        return self.cdn.url

    @property
    def mirrorURL(self) -> str:
        """
        Origin of the further mirror.
        """
        return self.mirror.url

    @property
    def caPEM(self) -> bytes:
        """
        The CA's certificate.
        """
        return self._authority.pem

    def serverPEM(self, hostnames: list[str]) -> bytes:
        """
        A private key and its certificate chain for a server of your own, as one PEM file.
        """
        return self._authority.serverPEM(hostnames)

    @inlineCallbacks
    def start(self) -> Generator[Deferred[Any], Any, None]:
        """
        Listen, on ports that the kernel chooses.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="hubmirror-testing-")
        path = Path(self._folder.name, "ca.pem")
        path.write_bytes(self.caPEM)
        self.caFile = str(path)
        hostnames = list(dict.fromkeys([self._address, "127.0.0.1", "localhost"]))
        tls = PrivateCertificate.loadPEM(self.serverPEM(hostnames)).options()
        for origin in self._origins:
            origin.listenWith(IReactorSSL(self._reactor), self._address, tls)
            yield origin.startListening()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """
        Close everything; nothing is left in the reactor, and no file.
        """
        for origin in self._origins:
            yield origin.stopListening()
        if self._folder is not None:
            self._folder.cleanup()

    def agent(self, pool: HTTPConnectionPool | None = None) -> MemoryAgent:
        """
        An L{IAgent} that reaches the Hub in memory; without a pool, a connection a request.
        """
        return MemoryAgent(self._reactor, self._origins, pool)

    def connections(self, service: str) -> int:
        """
        How many connections were ever made to a service: C{registry}, C{cdn} and so on.
        """
        return next(origin.connections for origin in self._origins if origin.name == service)

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
        self._contents.repository(repository).blobs[blob.digest] = blob
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

    def _hold(self, repository: str, tag: str, manifest: Manifest, images: Iterable[Image]) -> None:
        held = self._contents.repository(repository)
        for image in images:
            held.addImage(image)
        held.manifests[manifest.digest] = manifest
        held.tags[tag] = manifest.digest

    def _serveMirror(self, request: HubRequest) -> Answer:
        if request.path == b"/token":
            return self.token.serve(request)
        if request.path.startswith(b"/v1/"):
            return self.search.serve(request)
        return self._mirrored.serve(request)
