"""
Responses whose bodies are in memory.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from hubmirror.protocol.errors import BodyFailed, UpstreamFailed
from hubmirror.upstream.bodies import DISCARD_TIME, MAX_SHORT_BODY, discard, readShortBody


@implementer(IResponse)
class CachedResponse:
    """
    An answer out of memory.
    """

    request = None
    previousResponse = None

    def __init__(self, answer: IResponse, body: bytes, headers: Headers | None = None) -> None:
        """
        @param headers: in place of the answer's own.
        """
        self.version = answer.version
        self.code = answer.code
        self.phrase = answer.phrase
        self.headers = answer.headers if headers is None else headers
        self.length = len(body)
        self.body = body

    @classmethod
    def made(cls, body: bytes) -> CachedResponse:
        """
        A response with JSON that the mirror itself has to say in place of an upstream.
        """
        response = cls.__new__(cls)
        response.version = (b"HTTP", 1, 1)
        response.code, response.phrase = 200, b"OK"
        response.headers = Headers({b"Content-Type": [b"application/json"]})
        response.length, response.body = len(body), body
        return response

    def setPreviousResponse(self, response: IResponse) -> None:
        """
        Nothing led here.
        """

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(_NullTransport())
        if self.body:
            protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))


class _NullTransport:
    """
    The transport of a body that is there already.
    """

    def pauseProducing(self) -> None:
        pass

    resumeProducing = stopProducing = loseConnection = pauseProducing


async def wholeError(response: IResponse, reactor: IReactorTime) -> IResponse:
    """
    An upstream's error with a body that is sure to be whole.  A body that breaks must not keep the
    client from learning the status: another of its kind takes its place, as it does for one of more
    than L{MAX_SHORT_BODY}.

    @param response: an error whose length is known.
    """
    body: bytes | None = None
    if response.length > MAX_SHORT_BODY:
        discard(response, reactor)
    else:
        with suppress(BodyFailed):
            body = await readShortBody(response, reactor, DISCARD_TIME)
    if body is not None and len(body) == response.length:
        return CachedResponse(response, body)
    headers = response.headers.copy()
    for name in (b"Content-Encoding", b"Content-Language", b"ETag", b"Digest", b"Content-Digest"):
        headers.removeHeader(name)
    body = UpstreamFailed(f"the upstream answered {response.code}, and broke off").body()
    headers.setRawHeaders(b"Content-Type", [b"application/json"])
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return CachedResponse(response, body, headers)


def isErrorOfKnownLength(response: IResponse) -> bool:
    """
    Whether L{wholeError} can be asked for.
    """
    return response.code >= 400 and response.length not in (0, UNKNOWN_LENGTH)
