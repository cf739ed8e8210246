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
    A response whose body is in memory.  The body may be delivered more than once.
    """

    request = None
    previousResponse = None

    def __init__(self, answer: IResponse, body: bytes, headers: Headers | None = None) -> None:
        """
        @param answer: the response whose status and header fields are copied.
        @param headers: the header fields to use in place of C{answer}'s.
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
        A 200 response that the mirror itself gives in place of an upstream.

        @param body: JSON.
        """
        response = cls.__new__(cls)
        response.version = (b"HTTP", 1, 1)
        response.code, response.phrase = 200, b"OK"
        response.headers = Headers({b"Content-Type": [b"application/json"]})
        response.length, response.body = len(body), body
        return response

    def setPreviousResponse(self, response: IResponse) -> None:
        """
        Do nothing: a cached response is not the target of a redirect.
        """

    def deliverBody(self, protocol: Any) -> None:
        protocol.makeConnection(_NullTransport())
        if self.body:
            protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))


class _NullTransport:
    """
    The transport of a body that is in memory, where there is nothing to pause or close.
    """

    def pauseProducing(self) -> None:
        pass

    resumeProducing = stopProducing = loseConnection = pauseProducing


async def wholeError(response: IResponse, reactor: IReactorTime) -> IResponse:
    """
    Read the body of an upstream's error response.  If the body breaks off or is longer than
    L{MAX_SHORT_BODY}, replace it by one of the mirror's own, so that the client still receives the
    status.

    @param response: see L{isErrorOfKnownLength}.
    @return: the error response, with a body that is complete.
    """
    body: bytes | None = None
    if response.length > MAX_SHORT_BODY:
        discard(response, reactor)
    else:
        with suppress(BodyFailed):
            body = await readShortBody(response, reactor, DISCARD_TIME)
    if body is not None and len(body) == response.length:
        return CachedResponse(response, body)
    body = UpstreamFailed(f"the upstream answered {response.code}, and broke off").body()
    replaced = withOwnBody(response, body)
    replaced.headers.setRawHeaders(b"Content-Type", [b"application/json"])
    return replaced


def withOwnBody(response: IResponse, body: bytes) -> CachedResponse:
    """
    An upstream's response with a body of the mirror's own, and without the header fields that
    describe the upstream's body, except C{Content-Type}.
    """
    headers = response.headers.copy()
    for name in (b"Content-Encoding", b"Content-Language", b"ETag", b"Digest", b"Content-Digest"):
        headers.removeHeader(name)
    headers.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return CachedResponse(response, body, headers)


def isErrorOfKnownLength(response: IResponse) -> bool:
    """
    Whether a response is an error whose body L{wholeError} can read.
    """
    return response.code >= 400 and response.length not in (0, UNKNOWN_LENGTH)
