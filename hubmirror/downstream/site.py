"""
The site that the mirror listens with.  It supports HTTP/1.1 and HTTP/2, and processes a request as
soon as its head has been received.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from hubmirror.downstream.admission import Admission, clientOf
from hubmirror.downstream.incoming import addressOf
from hubmirror.downstream.relay import abortRequest
from hubmirror.downstream.upload import RequestBody, collect
from hubmirror.protocol.buffers import MAX_HEAD
from hubmirror.protocol.errors import BodyFailed, RequestRefused
from hubmirror.transport.closingports import FIRST_REQUEST
from hubmirror.transport.http1server import HTTP1Channel
from hubmirror.transport.http2server import HTTP2Channel
from hubmirror.transport.waitableset import WaitableSet
from hubmirror.upstream.bodies import StallWatch


class MirrorRequest(Request):
    """
    A request that is processed when its head has been received.  A resource whose C{streamsBody} is
    true finds a L{RequestBody} as C{content}; any other resource is rendered when the whole body
    has been received, and finds it in a file.  The site limits the size of such a body, and the
    time for which nothing of it is received.
    """

    content: Any

    def headReceived(
        self, method: bytes, target: bytes, version: bytes, length: int | None
    ) -> None:
        """
        Process the request, whose body has not been received yet.

        @param length: the length of the body in bytes; C{None} when it is not known.
        """
        self.method, self.uri, self.clientproto = method, target, version
        path, _, query = target.partition(b"?")
        # With the path "*", Request.process would respond by itself, without an Exchange.
        self.path = b"/" if path == b"*" else path
        self.args = parse_qs(query, True)
        self.content = BytesIO() if length == 0 else RequestBody(self.channel, length)
        self.process()

    def handleContentChunk(self, data: bytes) -> None:
        self.content.dataReceived(data)

    def contentComplete(self) -> None:
        """
        The whole body has been received.
        """
        self.content.complete()

    def render(self, resrc: IResource) -> None:
        body = self.content
        if not isinstance(body, RequestBody) or getattr(resrc, "streamsBody", False):
            super().render(resrc)
            return
        site: Any = self.site
        timeout, body.limit = site.bodyLimits()
        if body.isTooLarge:
            self._refuseBody()
            return
        body.watch = StallWatch(site.reactor, timeout, 0, lambda: abortRequest(self))

        def collected(file: Any) -> None:
            self.content = file
            Request.render(self, resrc)

        def failed(reason: Failure) -> None:
            if not reason.check(BodyFailed):
                self.processingFailed(reason)
            elif body.isTooLarge:
                self._refuseBody()

        file = tempfile.SpooledTemporaryFile(100_000)  # noqa: SIM115  (the request closes it)
        collect(body, file).addCallback(collected).addErrback(failed)  # type: ignore[arg-type]

    def _refuseBody(self) -> None:
        self.setResponseCode(413)
        self.setHeader(b"Content-Length", b"0")
        self.finish()


@implementer(IHandshakeListener)
class _Negotiation(Protocol, TimeoutMixin):
    """
    A new connection.  It is passed to an L{HTTP2Channel} if the TLS handshake has negotiated C{h2}
    (ALPN, RFC 7301), otherwise to an L{HTTP1Channel}.
    """

    transport: Any

    site: Any = None
    _channel: Any = None
    _client: str | None = None

    def connectionMade(self) -> None:
        client = clientOf(addressOf(self.transport.getPeer()))
        if not self.site.admission.enter(client):
            self.abortConnection()
            return
        self._client = client
        if ISSLTransport.providedBy(self.transport):
            self.setTimeout(self.site.headTimeout)
            self.site.opened(self)
        else:
            self._become(HTTP1Channel())

    def handshakeCompleted(self) -> None:
        self.setTimeout(None)
        self._become(
            HTTP2Channel() if self.transport.negotiatedProtocol == b"h2" else HTTP1Channel()
        )
        self.site.closed(self)

    def _become(self, channel: HTTP1Channel | HTTP2Channel) -> None:
        self._channel = self.site.adopt(channel)
        channel.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self._channel is not None:
            self._channel.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self._client is None:
            return
        self.site.admission.leave(self._client)
        if self._channel is not None:
            self._channel.connectionLost(reason)
        else:
            self.setTimeout(None)
            self.site.closed(self)

    def abortConnection(self) -> None:
        self.transport.abortConnection()

    timeoutConnection = abortConnection

    def closeWhenIdle(self) -> None:
        """
        Limit the time for the handshake; the channel then gets time for its first request.
        """
        self.setTimeout(FIRST_REQUEST)


class MirrorSite(Site):
    """
    A C{Site} with the mirror's own channels.

    @ivar closing: whether every response from now on closes its connection.
    @ivar admission: limits the number of connections.
    @ivar headTimeout: the time for the TLS handshake, and for a head that has begun, in seconds.
    @ivar clientTimeout: the time for which a client may accept no data, in seconds.
    @ivar maxHead: the largest head of a request, in bytes.
    @ivar plain: whether C{plain-transport} is set: h2 alone makes HTTP/2 frames, and Twisted's own
        TLS is used.
    @ivar bodyLimits: returns the limits of bodies that the site collects, as
        L{Mirror.bodyLimits<hubmirror.downstream.proxy.Mirror.bodyLimits>} does.
    @ivar onRefused: called with the peer and the error when received bytes are not a request.
    """

    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        idleTimeout: float,
        *,
        admission: Admission | None = None,
        headTimeout: float = 30.0,
        clientTimeout: float = 300.0,
        maxHead: int = MAX_HEAD,
        plain: bool = False,
        bodyLimits: Callable[[], tuple[float, int | None]] = lambda: (300.0, None),
        onRefused: Callable[[IAddress, RequestRefused], None] = lambda _peer, _error: None,
    ) -> None:
        """
        @param idleTimeout: the time for which a connection without a request is kept, in seconds.
        @param admission: by default, one that refuses nobody.
        """
        super().__init__(resource, requestFactory=MirrorRequest, reactor=reactor)
        self.timeOut = idleTimeout
        self.admission = admission or Admission(reactor, sys.maxsize, sys.maxsize)
        self.headTimeout = headTimeout
        self.clientTimeout = clientTimeout
        self.maxHead = maxHead
        self.plain = plain
        self.bodyLimits = bodyLimits
        self.onRefused = onRefused
        self.closing = False
        self._channels = WaitableSet()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self.adopt(_Negotiation())

    def adopt(self, channel: Any) -> Any:
        """
        Set the attributes that a channel gets from its site.
        """
        channel.site = channel.factory = self
        channel.requestFactory = MirrorRequest
        channel.callLater = self.reactor.callLater
        channel.timeOut = self.timeOut
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]

    def log(self, request: object) -> None:
        """
        Do nothing: the mirror logs exchanges instead of requests.
        """

    def startFactory(self) -> None:
        """
        Do nothing: C{Site.startFactory} updates a date that only Twisted's access log needs.
        """

    stopFactory = startFactory

    def opened(self, channel: Any) -> None:
        """
        The connection of a channel has been opened.
        """
        self._channels.add(channel)
        if self.closing:
            channel.closeWhenIdle()

    def closed(self, channel: Any) -> None:
        """
        The connection of a channel has been lost.
        """
        self._channels.discard(channel)

    def close(self) -> Deferred[None]:
        """
        Close every connection as soon as it has no request in progress.  One that has not had a
        request yet gets L{FIRST_REQUEST} seconds for it.

        @return: a deferred that fires when no connection is left.
        """
        self.closing = True
        self.admission.close()
        for channel in list(self._channels):
            channel.closeWhenIdle()
        return self.whenEmpty()

    def whenEmpty(self) -> Deferred[None]:
        """
        @return: a deferred that fires when no connection is left.
        """
        return self._channels.whenEmpty()

    def abort(self) -> Deferred[None]:
        """
        Abort every connection.

        @return: a deferred that fires when no connection is left.
        """
        for channel in list(self._channels):
            channel.abortConnection()
        return self._channels.whenEmpty()

    def refused(self, channel: Any, error: RequestRefused) -> None:
        """
        Report that a channel has received bytes that are not a request.
        """
        self.onRefused(channel.getPeer(), error)
