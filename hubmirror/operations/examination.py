"""
The checks of the doctor that send requests to a mirror or registry.

Each check sends the requests that clients send, and finds out whether they succeed and otherwise
what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from hubmirror.operations.diagnosis import asWrong, expectServed, late
from hubmirror.operations.discovery import FIELD, listed
from hubmirror.operations.findings import Finding, Note, Wrong
from hubmirror.operations.pulling import (
    ACCEPTED,
    Challenge,
    PullFailed,
    RegistryClient,
    checkDigest,
    choose,
    count,
    digestOf,
    expect,
    read,
    readChallenge,
    readJSON,
)
from hubmirror.operations.reaching import Reaching
from hubmirror.operations.subjects import HUB, Subject
from hubmirror.protocol.ratelimit import readQuota
from hubmirror.protocol.url import Origin, splitURL

LIMIT = 15.0
"""
Seconds that a check may take.  dockerd waits as long for a response.
"""

_TOKEN_LIFE = 300.0
_MEASURED = 16 * 1024 * 1024
_MEASURE_TIME = 5.0
_PLATFORM = ("linux", "amd64")


class Examination:
    """
    The checks.  Each is a method that returns one line about its success, or raises L{Wrong} or
    L{Note}.  Later checks use the results of earlier ones.

    @ivar registries: the names of the registries that the mirror serves, according to its response.
    """

    def __init__(
        self,
        reactor: Any,
        subject: Subject,
        trust: Any,
        repository: str,
        tag: str,
        direct: Subject = HUB,
    ) -> None:
        """
        @param subject: the registry or mirror to check.
        @param trust: the certificate authorities with which certificates are verified.
        @param repository: the repository of the image that is pulled.
        @param tag: the tag of that image.
        @param direct: the registry itself, whose speed is compared with the mirror's.
        """
        self._reactor = reactor
        self._subject = subject
        self._trust = trust
        self._repository = repository
        self._tag = tag
        self._direct = direct
        self._origin = splitURL(subject.url.encode("ascii"))[0]
        self._client = RegistryClient(reactor, trust)
        self.registries: list[str] = []
        self._challenge: Challenge | None = None
        self._date = ""
        self._token: str | None = None
        self._config = ""
        self._layer: tuple[str, int] | None = None
        self._blob = b""

    async def perform(self, tell: Callable[[Finding], None], limit: float = LIMIT) -> bool:
        """
        Perform the checks.  Checks that need the result of one that failed are left out.

        @param tell: called with each finding.
        @param limit: seconds that each check may take.
        @return: whether no check has failed.
        """
        try:
            reaching = Reaching(self._reactor, self._origin, self._trust)
            if not await self._chain(tell, limit, reaching.name, reaching.connection):
                return False
            pulled = await self._chain(
                tell,
                limit,
                self.version,
                self.clock,
                self.token,
                self.head,
                self.manifest,
                self.blob,
                self.range,
                *([self.clients, self.path, self.speed] if self._subject.mirror else []),
            )
            searched = await self._chain(
                tell, limit, *([self.ping] if self._subject.mirror else []), self.search
            )
        finally:
            await self._client.close()
        return pulled and searched

    async def performFurther(
        self, tell: Callable[[Finding], None], *, pulls: bool, limit: float = LIMIT
    ) -> bool:
        """
        Perform the checks of a further registry of a mirror that has already been checked.

        @param pulls: whether to pull an image; the registry must then have one of
            L{hubmirror.operations.subjects.PUBLIC_IMAGES}.
        @return: as for L{perform}.
        """
        checks = [self.version]
        if pulls:
            checks += [self.token, self.head, self.manifest, self.blob, self.range]
            checks += [self.clients, self.path]
        try:
            return await self._chain(tell, limit, *checks)
        finally:
            await self._client.close()

    async def _chain(
        self,
        tell: Callable[[Finding], None],
        limit: float,
        *checks: Callable[[], Coroutine[Any, Any, str]],
    ) -> bool:
        """
        Perform checks until one fails.

        @return: whether none has failed.
        """
        registry = self._subject.name
        for check in checks:
            name = check.__name__
            try:
                checking: Deferred[str] = Deferred.fromCoroutine(check())
                checking.addTimeout(limit, self._reactor, late)
                tell(Finding(name, "ok", await checking, registry=registry))
            except Note as note:
                tell(Finding(name, "note", str(note), note.remedy, registry))
            except Exception as error:
                wrong = asWrong(error)
                tell(Finding(name, "WRONG", str(wrong), wrong.remedy, registry))
                return False
        return True

    async def version(self) -> str:
        """
        Check that the response to C{GET /v2/} is 200, or a challenge that names the right origin.
        """
        response = await self._client.ask("GET", f"{self._subject.url}/v2/")
        await read(response)
        self._date = response.headers.getRawHeaders("Date", [""])[0]
        self.registries = listed(response.headers.getRawHeaders(FIELD, [None])[0])
        if response.code == 200:
            return "GET /v2/ returned 200: no token is needed"
        expectServed(response)
        if response.code != 401:
            raise Wrong(
                f"GET /v2/ returned {response.code}, not 200 or 401",
                "check whether this is the URL of a registry or mirror",
            )
        self._challenge = readChallenge(response)
        realm, wanted = _originOf(self._challenge.realm), _originOf(self._subject.tokens)
        if realm != wanted:
            raise Wrong(
                f"GET /v2/ sends clients to {realm} for tokens, not to {wanted}",
                "start the mirror with --public-url, or with --trusted-proxy behind a proxy"
                if self._subject.mirror
                else "",
            )
        return f"GET /v2/ returned 401: clients get tokens from {realm}"

    async def clock(self) -> str:
        """
        Check that the clocks agree well enough for tokens and certificates to be valid.
        """
        try:
            off = abs(time.time() - parsedate_to_datetime(self._date).timestamp())
        except (TypeError, ValueError):
            raise Note("the response has no Date, so the clocks were not compared") from None
        if off > _TOKEN_LIFE:
            raise Wrong(
                f"the clocks of this machine and of the server differ by {off:.0f} s",
                "set the one that is wrong: tokens are valid for five minutes",
            )
        return f"the clocks differ by {off:.0f} s"

    async def token(self) -> str:
        """
        Check that the token service issues an anonymous token.
        """
        if self._challenge is None:
            return "no token is needed"
        self._token = await self._client.token(self._challenge, self._repository)
        return f"the token service issued an anonymous token to pull {self._repository}"

    async def head(self) -> str:
        """
        Check that the response to HEAD of a manifest has the fields that clients use.
        """
        response = await self._askManifest("HEAD", self._tag)
        for field in ("Docker-Content-Digest", "Content-Length"):
            if not response.headers.hasHeader(field):
                raise Wrong(
                    f"the response to HEAD of a manifest has no {field}",
                    "clients have to send GET instead, which counts as a pull",
                )
        return f"the response to HEAD of {self._repository}:{self._tag} has length and digest"

    async def manifest(self) -> str:
        """
        Check that a manifest matches its digest; for an index, also the manifest of a platform.
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
        layers = [(each["digest"], int(each["size"])) for each in manifest.get("layers", ())]
        self._layer = max(layers, key=lambda layer: layer[1], default=None)
        return f"it matches the digest {digestOf(body)[:19]}...; {_pullsLeft(response)}"

    async def blob(self) -> str:
        """
        Check that a blob can be downloaded.  A mirror must send it itself, because its clients may
        not be able to reach the CDN.
        """
        try:
            response, origins = await self._askBlob()
        except (PullFailed, Wrong):
            raise
        except Exception as error:
            raise Wrong(
                f"a blob can't be downloaded: {asWrong(error)}",
                "the CDN to which the registry redirects can't be reached from here; a mirror"
                " elsewhere can download from it for you",
            ) from None
        if self._subject.mirror and len(set(origins)) > 1:
            raise Wrong(
                f"a blob is redirected to {origins[-1]}",
                "clients must be able to connect to it; hubmirror follows such redirects itself",
            )
        length = response.length
        self._blob = await read(response)
        expect(response, 200)
        checkDigest(self._blob, self._config)
        if length == UNKNOWN_LENGTH:
            raise Wrong(
                "a blob came without Content-Length",
                "a proxy between here and the mirror changes the encoding",
            )
        source = "" if len(origins) == 1 else f", from {origins[-1]}"
        return f"{len(self._blob)} bytes that match the digest{source}"

    async def range(self) -> str:
        """
        Check that a part of a blob can be requested, as clients do to resume a download.
        """
        size = len(self._blob)
        start = size // 2
        response, _origins = await self._askBlob({"Range": f"bytes={start}-"})
        body = await read(response)
        remedy = "clients can't resume the download of a layer"
        if response.code != 206:
            raise Wrong(f"a request with Range returned {response.code}, not 206", remedy)
        says = response.headers.getRawHeaders("Content-Range")
        if says != [f"bytes {start}-{size - 1}/{size}"] or body != self._blob[start:]:
            raise Wrong("a request with Range returned another part of the blob", remedy)
        return f"the server sent exactly bytes {start} to {size - 1}"

    async def clients(self) -> str:
        """
        Check that the different requests of the clients all get the same manifest.
        """
        target = f"{self._subject.url}/v2/{self._repository}/manifests/{self._tag}"
        found = set()
        for client, agent, query in (
            ("dockerd 28", "docker/28.5.1 go/go1.24.9 os/linux arch/amd64", ""),
            ("dockerd 29", "docker/29.1.0 go/go1.25.4 os/linux arch/amd64", "?ns="),
            ("containerd", "containerd/2.2.0", "?ns="),
            ("buildkit", "buildkit/v0.26", "?ns="),
            ("podman", "containers/5.36.2 (github.com/containers/image)", ""),
        ):
            response = await self._client.ask(
                "HEAD",
                target + (query and query + self._subject.name),
                self._token,
                {"Accept": ", ".join(ACCEPTED), "User-Agent": agent},
            )
            await read(response)
            if response.code != 200:
                raise Wrong(
                    f"a request as {client} sends it returned {response.code}",
                    "check whether a proxy in front of the mirror refuses the query parameter ns,"
                    " or some values of User-Agent",
                )
            found.add(response.headers.getRawHeaders("Docker-Content-Digest", [""])[0])
        if len(found) > 1:
            raise Wrong(
                "clients get different manifests for the same tag",
                "check what a proxy in front of the mirror does with the query parameter ns",
            )
        return "dockerd, containerd, buildkit and podman get the same manifest"

    async def path(self) -> str:
        """
        Check that the path in a mirror's address may follow C{/v2}, where podman and buildkit put
        it.  dockerd and containerd put it before C{/v2}, as the other checks do.
        """
        url = self._subject.url
        origin = str(self._origin)
        path = url.removeprefix(origin).strip("/")
        if not path:
            return "the mirror's URL has no path"
        target = f"{origin}/v2/{path}/{self._repository}/manifests/{self._tag}"
        response = await self._client.ask(
            "HEAD", target, self._token, {"Accept": ", ".join(ACCEPTED)}
        )
        await read(response)
        if response.code != 200:
            raise Wrong(
                f"a request for /v2/{path[:1]}.../... returned {response.code}",
                "podman and buildkit put the path there; check whether a proxy in front of the"
                " mirror passes it on",
            )
        return "the path works before and after /v2"

    async def speed(self) -> str:
        """
        Measure the speed of a layer's download from the mirror, and from the registry itself.
        """
        if self._layer is None:
            return "the image has no layer to measure with"
        mirror = await self._measure(self._subject.url, self._token)
        text = f"{mirror} from the mirror"
        try:
            token = None
            response = await self._client.ask("GET", f"{self._direct.url}/v2/")
            await read(response)
            if response.code == 401:
                token = await self._client.token(readChallenge(response), self._repository)
            own = await self._measure(self._direct.url, token)
        except Exception as error:
            return f"{text}; the registry itself: {asWrong(error)}"
        return f"{text}, {own} from the registry itself"

    async def _measure(self, url: str, token: str | None) -> str:
        assert self._layer is not None
        digest, size = self._layer
        last = min(size, _MEASURED) - 1
        started = time.monotonic()
        response, _origins = await self._client.askFollowing(
            f"{url}/v2/{self._repository}/blobs/{digest}", token, {"Range": f"bytes=0-{last}"}
        )
        expect(response, 206)
        received = await count(response, self._reactor, _MEASURE_TIME)
        seconds = max(1e-3, time.monotonic() - started)
        return f"{received / seconds / 1e6:.1f} MB/s"

    async def ping(self) -> str:
        """
        Check the response to C{GET /v1/_ping}, which C{docker search} requires.
        """
        response = await self._client.ask("GET", f"{self._subject.search}/v1/_ping")
        await read(response)
        if response.code != 200:
            raise Wrong(
                f"GET /v1/_ping returned {response.code}", "docker search does not work without it"
            )
        return "GET /v1/_ping returned 200"

    async def search(self) -> str:
        """
        Check that a search gets a response, even if it finds nothing.
        """
        term = self._repository.rpartition("/")[2]
        response = await self._client.ask("GET", f"{self._subject.search}/v1/search?q={term}&n=1")
        body = await read(response)
        expectServed(response)
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
            expectServed(response)
            raise Wrong(
                f"{method} of the manifest {reference} returned {response.code}",
                f"check whether {self._repository} exists and is public; --repository and --tag"
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
        raise Wrong(f"the URL of the token service (realm) is {error}") from None


def _pullsLeft(response: IResponse) -> str:
    """
    Describe the Hub's rate limit on pulls.
    """
    remaining = readQuota(response.headers, b"RateLimit-Remaining")
    limit = readQuota(response.headers, b"RateLimit-Limit")
    if remaining is None or limit is None:
        return "the response has no rate limit"
    hours = f" in {limit[1] / 3600:g} h" if limit[1] is not None else ""
    source = response.headers.getRawHeaders("docker-ratelimit-source", [""])[0]
    shared = ", shared by a whole IPv6 /64" if source.count(":") > 1 else ""
    return f"{remaining[0]} of {limit[0]} pulls left{hours}{shared}"
