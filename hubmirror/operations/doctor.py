"""
C{python -m hubmirror doctor [URL]}: sends the requests of clients to a mirror, or those of a mirror
to
the Hub, and reports for each step whether it works and otherwise what to do.
"""

from __future__ import annotations

import re
import socket
from argparse import Namespace
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from hubmirror.config import MirrorConfig
from hubmirror.config.known import HUB as KNOWN_HUB
from hubmirror.operations.clientconfig import Unusable, readURL
from hubmirror.operations.discovery import FIELD, listed
from hubmirror.operations.pulling import (
    ACCEPTED,
    Challenge,
    PullFailed,
    RegistryClient,
    checkDigest,
    choose,
    digestOf,
    expect,
    read,
    readChallenge,
    readJSON,
)
from hubmirror.protocol.errors import ConnectFailed
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.transport.connecting import Connector, loadTrust
from hubmirror.transport.failures import describeFailure

LIMIT = 15.0
"""
Seconds that a check may take: as long as dockerd waits for an answer.
"""

_PLATFORM = ("linux", "amd64")
_RATE = re.compile(r"(\d+)(?:;w=(\d+))?")


class Wrong(Exception):
    """
    A check has failed.  The text is one line.

    @ivar remedy: what to do about it; may be empty.
    """

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


@attrs.frozen
class Subject:
    """
    The registry or mirror that is checked.

    @ivar url: what comes before C{/v2/}.
    @ivar tokens: where its tokens are to come from; of this only the origin counts.
    @ivar search: what comes before C{/v1/search}.
    @ivar mirror: whether it is a mirror, which hides the Hub's other origins from its clients.
    """

    url: str
    tokens: str
    search: str
    mirror: bool


_DEFAULTS = MirrorConfig()
HUB = Subject(_DEFAULTS.registry_url, _DEFAULTS.auth_url, _DEFAULTS.search_url, mirror=False)
"""
Docker Hub.
"""


def mirrorAt(url: str) -> Subject:
    """
    A mirror, which has everything on one origin.
    """
    return Subject(url, url, url, mirror=True)


PUBLIC_IMAGES = {
    "docker.io": ("library/alpine", "latest"),
    "ghcr.io": ("linuxcontainers/alpine", "latest"),
    "quay.io": ("prometheus/busybox", "latest"),
    "registry.k8s.io": ("pause", "3.10"),
    "gcr.io": ("distroless/static", "latest"),
    "mcr.microsoft.com": ("hello-world", "latest"),
    "public.ecr.aws": ("docker/library/alpine", "latest"),
}
"""
An image of each registry that anybody may pull.
"""


def registryAt(url: str, name: str) -> Subject:
    """
    One of the registries of a mirror.
    """
    return Subject(f"{url}/{name}", url, url, mirror=True)


class Examination:
    """
    The checks, in their order.  Each returns a description of what works, or raises L{Wrong}.

    @ivar registries: those that the mirror says it serves.
    """

    def __init__(
        self, reactor: Any, subject: Subject, trust: Any, repository: str, tag: str
    ) -> None:
        self._reactor = reactor
        self._subject = subject
        self._trust = trust
        self._repository = repository
        self._tag = tag
        self._origin = splitURL(subject.url.encode("ascii"))[0]
        self._client = RegistryClient(reactor, trust)
        self.registries: list[str] = []
        self._challenge: Challenge | None = None
        self._token: str | None = None
        self._config = ""
        self._blob = b""

    async def perform(self, say: Callable[[str], None], limit: float = LIMIT) -> bool:
        """
        Perform the checks.  Those that need what another would have brought are left out.

        @param say: called with each line for the user.
        @param limit: of each check, in seconds.
        @return: whether all is well.
        """
        try:
            if not await self._chain(say, limit, self.name, self.connection):
                return False
            pulled = await self._chain(
                say,
                limit,
                self.version,
                self.token,
                self.head,
                self.manifest,
                self.blob,
                self.range,
            )
            searched = await self._chain(
                say, limit, *([self.ping] if self._subject.mirror else []), self.search
            )
        finally:
            await self._client.close()
        return pulled and searched

    async def performFurther(
        self, say: Callable[[str], None], *, pulls: bool, limit: float = LIMIT
    ) -> bool:
        """
        Perform the checks of a further registry of a mirror that has been reached already.

        @param pulls: whether an image is known that anybody may pull.
        """
        checks = [self.token, self.head, self.manifest, self.blob, self.range] if pulls else []
        try:
            return await self._chain(say, limit, self.version, *checks)
        finally:
            await self._client.close()

    async def _chain(
        self,
        say: Callable[[str], None],
        limit: float,
        *checks: Callable[[], Coroutine[Any, Any, str]],
    ) -> bool:
        """
        Perform checks until one fails.
        """
        for check in checks:
            name = check.__name__
            try:
                checking: Deferred[str] = Deferred.fromCoroutine(check())
                checking.addTimeout(limit, self._reactor, _late)
                say(f"ok     {name:<10}  {await checking}")
            except Exception as error:
                wrong = _asWrong(error)
                say(f"WRONG  {name:<10}  {wrong}")
                if wrong.remedy:
                    say(f"{'':17}  -> {wrong.remedy}")
                return False
        return True

    async def name(self) -> str:
        """
        The name resolves.
        """
        host = self._origin.host.decode("ascii")
        try:
            found = await deferToThreadPool(
                self._reactor,
                self._reactor.getThreadPool(),
                socket.getaddrinfo,
                host,
                self._origin.port,
                type=socket.SOCK_STREAM,
            )
        except OSError:
            raise Wrong(
                f"{host} does not resolve",
                "look at the name and at the DNS server; twistd hubmirror takes another one with"
                " --resolver",
            ) from None
        return f"{host} is {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}"

    async def connection(self) -> str:
        """
        There is a connection, and TLS verifies.
        """
        connector = Connector(
            self._reactor, trust=self._trust, permits=lambda _origin, _address: True, timeout=5
        )
        try:
            connection = await connector.connect(self._origin, lambda _: None)
        except ConnectFailed as error:
            remedy = "look whether it listens here, with TLS or without, and for a firewall between"
            if "certificate" in error.message:
                remedy = "use the name that the certificate is for; its CA goes into --ca-file"
            raise Wrong(error.message, remedy) from None
        transport: Any = connection.transport
        secure = self._origin.scheme == b"https"
        version = transport.getHandle().get_protocol_version_name() if secure else "without TLS"
        connection.abort()
        await connection.closed
        return f"connected to port {self._origin.port}, {version}"

    async def version(self) -> str:
        """
        C{/v2/} answers 200 or a challenge that leads to the right place.
        """
        response = await self._client.ask("GET", f"{self._subject.url}/v2/")
        await read(response)
        self.registries = listed(response.headers.getRawHeaders(FIELD, [None])[0])
        if response.code == 200:
            return "GET /v2/ answers 200: no token is needed"
        _expectServed(response)
        if response.code != 401:
            raise Wrong(
                f"GET /v2/ answers {response.code}, not 200 or 401", "look whether it is a registry"
            )
        self._challenge = readChallenge(response)
        realm, wanted = _originOf(self._challenge.realm), _originOf(self._subject.tokens)
        if realm != wanted:
            raise Wrong(
                f"GET /v2/ sends clients to {realm} for tokens, not to {wanted}",
                "start the mirror with --public-url, or behind a TLS terminator --trusted-proxy"
                if self._subject.mirror
                else "",
            )
        return f"GET /v2/ answers 401: tokens come from {realm}"

    async def token(self) -> str:
        """
        An anonymous token can be had.
        """
        if self._challenge is None:
            return "none is needed"
        self._token = await self._client.token(self._challenge, self._repository)
        return f"one to pull {self._repository} without an account"

    async def head(self) -> str:
        """
        HEAD of the manifest has what clients take from it.
        """
        response = await self._askManifest("HEAD", self._tag)
        for field in ("Docker-Content-Digest", "Content-Length"):
            if not response.headers.hasHeader(field):
                raise Wrong(f"HEAD of a manifest has no {field}: clients will GET it instead")
        return f"HEAD of {self._repository}:{self._tag} has length and digest"

    async def manifest(self) -> str:
        """
        The manifest is what its digest says, and so is the one that an index leads to.
        """
        response = await self._askManifest("GET", self._tag)
        body = await read(response)
        for digest in response.headers.getRawHeaders("Docker-Content-Digest", []):
            checkDigest(body, digest)
        manifest = readJSON(body)
        if "manifests" in manifest:
            digest = choose(manifest, _PLATFORM)
            body = await read(await self._askManifest("GET", digest))
            checkDigest(body, digest)
            manifest = readJSON(body)
        self._config = manifest["config"]["digest"]
        return f"{digestOf(body)[:19]}..., {_pullsLeft(response)}"

    async def blob(self) -> str:
        """
        A blob comes whole, for a mirror's client without a way to the CDN.
        """
        response, origins = await self._askBlob()
        if self._subject.mirror and len(set(origins)) > 1:
            raise Wrong(
                f"a blob is redirected to {origins[-1]}",
                "its clients need a way there; a hubmirror follows such redirects itself",
            )
        length = response.length
        self._blob = await read(response)
        expect(response, 200)
        checkDigest(self._blob, self._config)
        if length == UNKNOWN_LENGTH:
            raise Wrong(
                "a blob came without Content-Length", "look at what stands between: it re-encodes"
            )
        way = "" if len(origins) == 1 else f", by way of {origins[-1]}"
        return f"{len(self._blob)} bytes, and the digest is right{way}"

    async def range(self) -> str:
        """
        A blob can be had in parts, by which clients resume.
        """
        size = len(self._blob)
        start = size // 2
        response, _origins = await self._askBlob({"Range": f"bytes={start}-"})
        body = await read(response)
        remedy = "clients can't resume a layer that was cut"
        if response.code != 206:
            raise Wrong(f"a Range was answered with {response.code}, not 206", remedy)
        says = response.headers.getRawHeaders("Content-Range")
        if says != [f"bytes {start}-{size - 1}/{size}"] or body != self._blob[start:]:
            raise Wrong("a Range was answered with another part", remedy)
        return f"bytes {start} to {size - 1} come alone"

    async def ping(self) -> str:
        """
        C{docker search} will find a registry here.
        """
        response = await self._client.ask("GET", f"{self._subject.search}/v1/_ping")
        await read(response)
        if response.code != 200:
            raise Wrong(f"GET /v1/_ping answers {response.code}", "docker search won't work here")
        return "GET /v1/_ping answers 200"

    async def search(self) -> str:
        """
        A search finds something, or nothing, but answers.
        """
        term = self._repository.rpartition("/")[2]
        response = await self._client.ask("GET", f"{self._subject.search}/v1/search?q={term}&n=1")
        body = await read(response)
        _expectServed(response)
        expect(response, 200)
        return f"{readJSON(body).get('num_results')} results for {term!r}"

    async def _askManifest(self, method: str, reference: str) -> IResponse:
        response = await self._client.ask(
            method,
            f"{self._subject.url}/v2/{self._repository}/manifests/{reference}",
            self._token,
            {"Accept": ", ".join(ACCEPTED)},
        )
        if response.code != 200:
            await read(response)
            _expectServed(response)
            raise Wrong(
                f"{method} of manifest {reference} answers {response.code}",
                f"look whether {self._repository} is there, and public; --repository and --tag"
                " choose another image",
            )
        return response

    async def _askBlob(
        self, fields: dict[str, str] | None = None
    ) -> tuple[IResponse, list[Origin]]:
        return await self._client.askFollowing(
            f"{self._subject.url}/v2/{self._repository}/blobs/{self._config}", self._token, fields
        )


def _originOf(url: str) -> Origin:
    try:
        return splitURL(url.encode("ascii"))[0]
    except ValueError as error:
        raise Wrong(f"the realm is {error}") from None


def _expectServed(response: IResponse) -> None:
    """
    @raise Wrong: for the statuses by which a registry says "not now".
    """
    if response.code == 429:
        raise Wrong(
            "answers 429: too many requests from this address or account",
            "wait, log in, or give the mirror a --fallback",
        )
    if response.code in (502, 503, 504):
        raise Wrong(
            f"answers {response.code}: what is behind it fails",
            "look at what it says of that; without a URL this command asks the Hub itself",
        )


def _pullsLeft(response: IResponse) -> str:
    """
    The Hub's C{ratelimit-limit} and C{ratelimit-remaining}, C{100;w=21600}, in words.
    """
    fields = ("ratelimit-limit", "ratelimit-remaining")
    values = [response.headers.getRawHeaders(field, [""])[0] for field in fields]
    limit, left = (_RATE.fullmatch(value) for value in values)
    if limit is None or left is None:
        return "no rate limit"
    hours = f" in {int(limit[2]) / 3600:g} h" if limit[2] else ""
    return f"{left[1]} of {limit[1]} pulls left{hours}"


def _late(_: object, limit: float) -> None:
    raise Wrong(f"no answer within {limit:g} s", "clients wait no longer than that")


def _asWrong(error: Exception) -> Wrong:
    if isinstance(error, Wrong):
        return error
    if isinstance(error, PullFailed):
        return Wrong(str(error))
    if isinstance(error, (KeyError, TypeError)):
        return Wrong("the answer is JSON, but not what a registry sends")
    reason = error.reasons[0] if isinstance(error, ResponseFailed) else Failure(error)
    return Wrong(describeFailure(reason))


def run(arguments: Namespace) -> NoReturn:
    """
    The command.

    @raise SystemExit: at the end, with 0 when all is well, else 1.
    @raise Unusable: when the arguments are of no use.
    """
    subject = HUB if arguments.url is None else mirrorAt(str(readURL(arguments.url)))
    try:
        trust = loadTrust(arguments.ca_file)
    except ValueError as error:
        raise Unusable(f"--ca-file: {error}") from None

    async def main(reactor: Any) -> None:
        examination = Examination(reactor, subject, trust, arguments.repository, arguments.tag)
        right = await examination.perform(print)
        for name in arguments.registry or examination.registries:
            if arguments.url is None or name == KNOWN_HUB.name:
                continue
            print(f"\n{name}:")
            repository, tag = PUBLIC_IMAGES.get(name, ("", ""))
            further = Examination(reactor, registryAt(subject.url, name), trust, repository, tag)
            right = await further.performFurther(print, pulls=bool(repository)) and right
        if not right:
            raise SystemExit(1)

    react(main)
