"""
C{IAgent} implementations that wrap each other, with one concern each.  From the outermost to the
innermost, they are: verbatim, resuming, failover, redirects, origin.

All but the last are created for each exchange, because they write into its record.  They pass the
request target on exactly as the client wrote it.  The resuming and failover agents are in modules
of their own.
"""

from __future__ import annotations

from typing import Any

from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.components import proxyForInterface
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import (
    CodingRefused,
    ConnectFailed,
    HeadFailed,
    RedirectRefused,
)
from hubmirror.protocol.fields import dropClaims
from hubmirror.protocol.heads import listMembers
from hubmirror.protocol.target import Kind
from hubmirror.protocol.url import splitURL
from hubmirror.transport.connecting import Connector
from hubmirror.transport.pool import Pool
from hubmirror.upstream import policy
from hubmirror.upstream.bodies import discard


class _NoCookies(IndexableCookieJar):
    """
    A cookie jar that stores nothing and adds nothing.  A cookie that was set for one client must
    not be sent with the request of another.
    """

    def add_cookie_header(self, request: object) -> None:
        pass

    def extract_cookies(self, response: object, request: object) -> None:
        pass


class _WithoutHeaders(proxyForInterface(IResponse)):  # type: ignore[misc]
    """
    The response as treq sees it: without header fields, so that treq neither decodes the body nor
    stores cookies.
    """

    headers = Headers()


@implementer(IAgent)
class VerbatimAgent:
    """
    The agent that treq calls.  It sends the target and the header fields that it was created with,
    and ignores those from treq, which has normalized them.  It keeps the response as it was
    received.

    @ivar answer: the response, with all of its fields.
    """

    def __init__(self, agent: IAgent, target: bytes, headers: Headers) -> None:
        self._agent = agent
        self._target = target
        self._headers = headers
        self.answer: IResponse

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        def keep(answer: IResponse) -> IResponse:
            self.answer = answer
            return _WithoutHeaders(answer)

        return self._agent.request(method, self._target, self._headers, bodyProducer).addCallback(
            keep
        )


_PLACE = "http://upstream"


class _NoURL(EncodedURL):
    """
    A constant URL.  treq converts the URL of each request with these methods; L{VerbatimAgent}
    ignores the result, so there is nothing to convert.
    """

    def to_uri(self) -> EncodedURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return _PLACE


_COOKIES = _NoCookies()
_URL = _NoURL.from_text(_PLACE)


async def ask(
    reactor: Any,
    agent: IAgent,
    method: bytes,
    target: bytes,
    headers: Headers,
    body: IBodyProducer | None = None,
) -> IResponse:
    """
    Send a request through treq, without any change to its target and header fields.

    @param agent: takes C{target} as its URI.
    @return: the response, with its header fields as they were received.
    @raise UpstreamFailed: when no upstream gives a response.
    """
    verbatim = VerbatimAgent(agent, target, headers)
    await HTTPClient(verbatim, cookiejar=_COOKIES).request(
        method.decode("ascii"),
        _URL,
        data=body,
        cookies=_COOKIES,
        allow_redirects=False,
        unbuffered=True,
        reactor=reactor,
    )
    return verbatim.answer


@implementer(IAgent)
class RedirectAgent:
    """
    Follows the redirects of a GET or HEAD, so that the client talks only to the mirror.  If a CDN
    responds with a temporary error to a request for a blob, the request is repeated once,
    immediately and with the same URL.

    @ivar asked: the URL of the last request, and the header fields that were sent with it.
    """

    asked: tuple[bytes, Headers]
    _repeated = False

    def __init__(self, reactor: IReactorTime, agent: IAgent, exchange: Exchange) -> None:
        self._reactor = reactor
        self._agent = agent
        self._exchange = exchange

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @return: a deferred that fails with L{RedirectRefused}, or as that of the wrapped agent
            does.
        """
        self.asked = uri, headers or Headers()
        self._exchange.fromCDN = False
        asking = self._agent.request(method, *self.asked, bodyProducer)
        if policy.mayRepeat(method, bodyProducer is not None):
            asking.addCallback(self._answered, method)
        return asking

    def _answered(self, response: IResponse, method: bytes) -> IResponse | Deferred[IResponse]:
        if response.code not in policy.REDIRECTS:
            return response
        return Deferred.fromCoroutine(self._follow(response, method))

    async def _follow(self, response: IResponse, method: bytes) -> IResponse:
        uri, headers = self.asked
        first = splitURL(uri)[0]
        followed = 0
        while response.code in policy.REDIRECTS or self._mayRepeat(response):
            location = response.headers.getRawHeaders(b"Location") or ()
            discard(response, self._reactor)
            if response.code in policy.REDIRECTS:
                if followed == policy.MAX_REDIRECTS:
                    raise RedirectRefused(f"more than {followed} redirects")
                self.asked = uri, headers = policy.follow(uri, headers, location)
                followed += 1
                self._exchange.redirects += 1
                isElsewhere = splitURL(uri)[0] != first
                self._exchange.fromCDN = isElsewhere and self._exchange.kind is Kind.BLOB
            else:
                self._repeated = True
            try:
                response = await self._agent.request(method, uri, headers, None)
            except (ConnectFailed, HeadFailed) as error:
                if isinstance(error, RedirectRefused):
                    raise
                # Name the host; otherwise the registry itself would seem to have failed.
                place = splitURL(uri)[0].authority.decode("ascii")
                raise type(error)(f"the redirect to {place}: {error.message}") from None
        if isElsewhere:
            dropClaims(response.headers)
        return response

    def _mayRepeat(self, response: IResponse) -> bool:
        """
        Whether to repeat the request: a CDN has responded with a temporary error for the first
        time.
        """
        status = policy.effectiveStatus(response.code, self._exchange.fromCDN)
        return (
            self._exchange.fromCDN
            and not self._repeated
            and policy.mayPass(status, response.headers)
        )


@implementer(IAgent)
class OriginAgent:
    """
    The innermost agent: it sends one request to one origin, over a connection of the pool.
    """

    def __init__(self, reactor: IReactorTime, pool: Pool, connector: Connector) -> None:
        """
        @param connector: opens the connections that are needed.
        """
        self._reactor = reactor
        self._pool = pool
        self._connector = connector

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @param uri: an absolute URI; the part after its authority is sent unchanged.
        @return: a deferred that fails with L{UpstreamFailed}.
        """
        # A "#" in a request target does not begin a fragment; it is sent like any other byte.
        url, mark, rest = uri.partition(b"#")
        origin, target = splitURL(url)
        target += mark + rest
        asking = self._pool.request(
            self._connector, origin, method, target, headers or Headers(), bodyProducer
        )
        return asking.addCallback(self._identity)

    def _identity(self, response: IResponse) -> IResponse:
        """
        Refuse a content coding: the mirror requests none, and a client would take the coded bytes
        for the blob.  Error responses may have any coding.

        @raise CodingRefused: when a 200 or 206 has a content coding.
        """
        coding = listMembers(response.headers, b"Content-Encoding")
        if response.code in (200, 206) and coding not in ([], [b"identity"]):
            discard(response, self._reactor)
            raise CodingRefused("the answer has a content coding that nobody asked for")
        return response
