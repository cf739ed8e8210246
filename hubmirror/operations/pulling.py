"""
Pulls images as a container engine does: challenge, token, index, manifest, blobs.

The requests go through treq and Twisted's Agent instead of the mirror's own HTTP client.  A fault
of the mirror's client would otherwise not be noticed, because both ends would have it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import attrs
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from hubmirror.protocol.url import Origin, resolve, splitURL

ACCEPTED = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
"""
The media types of manifests and indexes that clients accept.
"""

MAX_REDIRECTS = 10
_SMALL = 4 * 1024 * 1024
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')


class PullFailed(Exception):
    """
    A response with which no client could continue.  The text is one line.
    """


@attrs.frozen
class Challenge:
    """
    A C{Bearer} challenge (RFC 6750 3, and the distribution project's "Token Authentication").

    @ivar realm: the URL of the token service.
    @ivar service: the registry's name for the token service.
    """

    realm: str
    service: str


@attrs.frozen
class Pulled:
    """
    An image that has been pulled.

    @ivar digest: the digest of the manifest.
    @ivar blobs: the number of blobs.
    @ivar size: the total size of the blobs, in bytes.
    """

    digest: str
    blobs: int
    size: int


class RegistryClient:
    """
    A client of one registry or mirror.

    @ivar requests: the number of requests that it has sent.
    """

    def __init__(self, reactor: Any, trust: Any) -> None:
        """
        @param trust: the trust root with which certificates are verified.
        """
        self.requests = 0
        self._reactor = reactor
        self._pool = HTTPConnectionPool(reactor)
        self._treq = HTTPClient(
            Agent(reactor, BrowserLikePolicyForHTTPS(trust), connectTimeout=5, pool=self._pool)
        )

    async def ask(
        self,
        method: str,
        url: str,
        token: str | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> IResponse:
        """
        Send a request, without following redirects.

        @param token: the token for C{Authorization}, if any.
        @param fields: further request fields.
        @return: the response, whose body must be read.
        """
        headers = Headers({name: [value] for name, value in (fields or {}).items()})
        if token is not None:
            headers.setRawHeaders("Authorization", [f"Bearer {token}"])
        self.requests += 1
        response: IResponse = await self._treq.request(
            method,
            url,
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        return response

    async def askFollowing(
        self, url: str, token: str | None, fields: Mapping[str, str] | None = None
    ) -> tuple[IResponse, list[Origin]]:
        """
        Send a GET request, and follow redirects.  Only the first origin is sent the token.

        @return: the last response, and the origins of all requests in order.
        @raise PullFailed: when there are more than L{MAX_REDIRECTS} redirects, or one leads to
            an invalid URL.
        """
        origins = [splitURL(url.encode("ascii"))[0]]
        while True:
            ownToken = token if origins[-1] == origins[0] else None
            response = await self.ask("GET", url, ownToken, fields)
            location = response.headers.getRawHeaders(b"Location")
            if not 300 <= response.code < 400 or location is None:
                return response, origins
            await read(response)
            if len(origins) > MAX_REDIRECTS:
                raise PullFailed(f"more than {MAX_REDIRECTS} redirects, one after another")
            try:
                target = resolve(url.encode("ascii"), location[0])
            except ValueError as error:
                raise PullFailed(f"a redirect to what is {error}") from None
            origins.append(splitURL(target)[0])
            url = target.decode("ascii")

    async def token(self, challenge: Challenge, repository: str) -> str:
        """
        Get an anonymous token with which a repository can be pulled.

        @raise PullFailed: when the response has no token.
        """
        query = {"service": challenge.service, "scope": f"repository:{repository}:pull"}
        mark = "&" if "?" in challenge.realm else "?"
        response = await self.ask("GET", f"{challenge.realm}{mark}{urlencode(query)}")
        body = await read(response)
        expect(response, 200)
        answer = readJSON(body)
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise PullFailed("the token service's response has no token")
        return token

    async def close(self) -> None:
        """
        Close the idle connections.
        """
        await self._pool.closeCachedConnections()


async def pull(
    client: RegistryClient, url: str, repository: str, tag: str, platform: tuple[str, str]
) -> Pulled:
    """
    Pull an image.

    @param url: the base URL of the registry or mirror, without C{/v2/}.
    @param platform: the operating system and architecture.
    @raise PullFailed: when the image can't be pulled, or a digest is wrong.
    """
    response = await client.ask("GET", f"{url}/v2/")
    await read(response)
    expect(response, 401)
    token = await client.token(readChallenge(response), repository)

    async def fetch(kind: str, reference: str) -> bytes:
        response = await client.ask(
            "GET",
            f"{url}/v2/{repository}/{kind}/{reference}",
            token,
            {"Accept": ", ".join(ACCEPTED)} if kind == "manifests" else {},
        )
        body = await read(response, limit=None)
        expect(response, 200)
        if reference != tag:
            checkDigest(body, reference)
        return body

    digest = choose(readJSON(await fetch("manifests", tag)), platform)
    manifest = readJSON(await fetch("manifests", digest))
    digests = [blob["digest"] for blob in (manifest["config"], *manifest["layers"])]
    sizes = [len(await fetch("blobs", each)) for each in digests]
    return Pulled(digest, len(sizes), sum(sizes))


def choose(index: Mapping[str, Any], platform: tuple[str, str]) -> str:
    """
    The digest of the manifest for a platform, according to an index.

    @raise PullFailed: when the index has no manifest for the platform.
    """
    for entry in index.get("manifests", ()):
        system = entry.get("platform", {})
        if (system.get("os"), system.get("architecture")) == platform:
            return str(entry["digest"])
    raise PullFailed(f"the index has no manifest for {'/'.join(platform)}")


def readChallenge(response: IResponse) -> Challenge:
    """
    The C{Bearer} challenge of a 401 response.

    @raise PullFailed: when there is no such challenge with a realm.
    """
    for value in response.headers.getRawHeaders(b"WWW-Authenticate", []):
        scheme, _, rest = value.decode("latin-1").partition(" ")
        parameters = dict(_PARAMETER.findall(rest))
        if scheme.lower() == "bearer" and "realm" in parameters:
            return Challenge(parameters["realm"], parameters.get("service", ""))
    raise PullFailed("a 401 without a Bearer challenge that names a realm")


def expect(response: IResponse, status: int) -> None:
    """
    @raise PullFailed: when a response has another status.
    """
    if response.code != status:
        raise PullFailed(f"the response is {response.code}, not {status}")


def readJSON(body: bytes) -> dict[str, Any]:
    """
    Decode a JSON object.

    @raise PullFailed: when the body is no JSON object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PullFailed("the response is not a JSON object")
    return value


def digestOf(body: bytes) -> str:
    """
    The SHA-256 digest of a blob or manifest, in the form that registries use.
    """
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def checkDigest(body: bytes, digest: str) -> None:
    """
    @raise PullFailed: when a blob or manifest does not match a digest.
    """
    if digestOf(body) != digest:
        raise PullFailed(f"{len(body)} bytes that do not match {digest[:19]}...")


class _Counter(Protocol):
    """
    Counts the bytes of a body.
    """

    def __init__(self) -> None:
        self.received = 0
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)


async def count(response: IResponse, reactor: Any, seconds: float) -> int:
    """
    Count the bytes of a body that arrive within some seconds.  Then the connection is aborted.
    """
    counter = _Counter()
    response.deliverBody(counter)

    def late() -> None:
        if not counter.ended.called:
            counter.ended.callback(None)
        transport: Any = counter.transport
        getattr(transport, "abortConnection", transport.stopProducing)()

    timer = reactor.callLater(seconds, late)
    await counter.ended
    if timer.active():
        timer.cancel()
    return counter.received


def read(response: IResponse, limit: int | None = _SMALL) -> Deferred[bytes]:
    """
    Read the body of a response.

    @param limit: the greatest length in bytes; C{None} for no limit.
    @return: a deferred that fires with the body, or fails with L{PullFailed} when the body is cut
        or too long.
    """
    body = _Body(limit)
    response.deliverBody(body)
    return body.whole


class _Body(Protocol):
    transport: Any

    def __init__(self, limit: int | None) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._limit = limit
        self._length = 0
        self._pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._length += len(data)
        if self._tooLong():
            self._stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.whole.called:
            return
        if self._tooLong():
            self.whole.errback(PullFailed("the response is far too long"))
        elif reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(PullFailed("the response was cut off"))

    def _tooLong(self) -> bool:
        return self._limit is not None and self._length > self._limit

    def _stop(self) -> None:
        self.transport.stopProducing()
