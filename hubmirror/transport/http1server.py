"""
The server side of HTTP/1.1: a connection of a client, with one request after another.

Twisted's own channel receives the whole body before it processes a request, responds to malformed
requests with an empty 400, and accepts some of them (bare LF, obs-fold).  This channel processes a
request when its head has been received, can pause its body, and parses strictly.  It has the
interface of Twisted's channel, and in addition L{HTTP1Channel.pauseBody} and
L{HTTP1Channel.resumeBody}.  Its requests need the methods C{headReceived} and C{contentComplete}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers
from zope.interface import implementer

from hubmirror.protocol.buffers import ReceiveBuffer
from hubmirror.protocol.errors import BadRequest, BodyFailed, RequestRefused
from hubmirror.protocol.heads import (
    Decoder,
    listMembers,
    parseRequestHead,
    requestBody,
)
from hubmirror.transport.clientchannel import ClientChannel
from hubmirror.transport.closingports import FIRST_REQUEST
from hubmirror.transport.refusing import writeRefusal

# The time in seconds for which the body of a request is discarded after the response.
_LINGER = 30.0
# The number of bytes of pipelined requests after which reading pauses.
_READ_AHEAD = 16 * 1024
# The first byte of a TLS ClientHello's record (RFC 8446 section 5.1).
_TLS_HANDSHAKE = 0x16


@implementer(IPushProducer)
class HTTP1Channel(ClientChannel):
    """
    An HTTP/1.1 connection of a client.

    @ivar requestFactory: creates a request; its parameter is the channel.
    @ivar timeOut: the time for which the connection may be without a request, in seconds.
    """

    factory: Any = None
    requestFactory: Any = None

    def __init__(self) -> None:
        self._buffer = ReceiveBuffer()
        self._host: IAddress | None = None
        self._request: Any = None
        self._body: Decoder | None = None
        self._producer: Any = None
        self._pulls = False
        self._persistent = True
        self._keepAliveOf10 = False
        self._continue = False
        self._reading = True
        self._headBegun = False
        self._isFresh = True
        self._advancing = False

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        # TimeoutMixin.setTimeout overwrites timeOut.
        self._idleTimeout = self.timeOut
        self.setTimeout(self._idleTimeout)
        self.site.opened(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.setTimeout(None)
        self._closing = True
        self.site.closed(self)
        request, self._request = self._request, None
        if request is not None:
            request.connectionLost(reason)

    def timeoutConnection(self) -> None:
        if self._closing:
            self._leaveTimedOut()
        elif self._request is not None:
            # The timer keeps running during a request.  To restart it here costs less than to
            # cancel and create a timer for each request.
            self.setTimeout(self._idleTimeout)
        elif self.full and self._isIdle:
            self.abortConnection()
        else:
            self.loseConnection()

    @property
    def _isIdle(self) -> bool:
        return not (self._request or self._body or self._headBegun or self._closing)

    # Reading

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            self._receivedLate()
        else:
            self._buffer.add(data)
            self._advance()

    def _advance(self) -> None:
        """
        Process the received data as far as possible.
        """
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._buffer and not self._closing:
                if self._body is not None:
                    if not self._readBody(self._body):
                        break
                elif self._request is None and not self.full:
                    if not self._readRequest():
                        break
                else:
                    # A pipelined request waits.  Reading goes on for a while, because a connection
                    # that is not read does not report that the client has left.
                    if len(self._buffer) > _READ_AHEAD:
                        self._read(False)
                    break
        finally:
            self._advancing = False

    def _readRequest(self) -> bool:
        """
        Read the head of a request, and create the request.

        @return: whether to go on with the data that follows.
        """
        if self._buffer.startswith(b"\r\n"):
            # Skip an empty line before a request (RFC 9112 section 2.2).
            self._buffer.skip(2)
            return True
        if self._buffer.first() == _TLS_HANDSHAKE and not self.isSecure():
            # Clients that try TLS first fall back to plain HTTP when the response is plain HTTP.
            self._refuse(BadRequest("there is no TLS on this port"))
            return False
        try:
            text = self._buffer.takeHead(self.site.maxHead)
            if text is None:
                self._awaitRestOfHead()
                return False
            head = parseRequestHead(text)
            body = requestBody(head)
        except RequestRefused as error:
            self.site.refused(self, error)
            self._refuse(error)
            return False
        tokens = listMembers(head.headers, b"Connection")
        isVersion11 = head.version == b"HTTP/1.1"
        self._keepAliveOf10 = not isVersion11 and b"keep-alive" in tokens
        self._persistent = b"close" not in tokens and (isVersion11 or self._keepAliveOf10)
        expected = listMembers(head.headers, b"Expect")
        self._continue = body is not None and isVersion11 and b"100-continue" in expected
        self._body = body
        self._headBegun = False
        self._isFresh = False
        request = self._request = self.requestFactory(self)
        request.requestHeaders = head.headers
        request.parseCookies()
        request.headReceived(
            head.method, head.target, head.version, 0 if body is None else body.length
        )
        return True

    def _awaitRestOfHead(self) -> None:
        """
        Limit the time for a head that has begun.  Further bytes do not extend it.
        """
        self._read(True)
        if not self._headBegun:
            self._headBegun = True
            self.setTimeout(self.site.headTimeout)

    def _readBody(self, body: Decoder) -> bool:
        """
        Pass on the received data of a body.

        @return: whether the body has ended.
        """
        # A client that already sends its body does not wait for 100 Continue.
        self._continue = False
        try:
            pieces = body.feed(self._buffer)
        except BodyFailed as error:
            self._bodyFailed(error)
            return True
        request = self._request
        if body.done:
            self._body = None
            self._read(True)
        if request is not None:
            for piece in pieces:
                if self._request is not request:
                    # A piece has ended the request, because its body is too large.
                    break
                request.handleContentChunk(piece)
            if body.done and self._request is request:
                request.contentComplete()
        elif body.done:
            self._awaitRequest()
        return body.done

    def _bodyFailed(self, error: BodyFailed) -> None:
        request, self._request = self._request, None
        if request is None or request.startedWriting:
            self.abortConnection()
        else:
            self._refuse(BadRequest(error.message))
        if request is not None:
            request.connectionLost(Failure(error))

    def _refuse(self, error: RequestRefused) -> None:
        """
        Respond to data that is not a valid request, and close the connection, because the beginning
        of the next request can't be found.
        """
        self._persistent = False
        writeRefusal(self, error)
        self.loseConnection()

    def _read(self, reading: bool) -> None:
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def pauseBody(self) -> None:
        """
        Stop reading the body of the request until L{resumeBody} is called.
        """
        if self._body is not None:
            self._read(False)

    def resumeBody(self) -> None:
        """
        Read the body of the request.  Before that, send C{100 Continue} if the client waits for it.
        """
        if self._continue and not self._closing:
            self._continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._closing:
            self._read(True)

    # Called by the transport (IPushProducer)

    def pauseProducing(self) -> None:
        self.full = True
        if self._isIdle:
            self._rest()
        if self._producer is not None and not self._pulls:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self.full = False
        if self._closing:
            self._allSent()
        elif self._isIdle:
            self._rest()
        elif self._pulls:
            self._pull()
        elif self._producer is not None:
            self._producer.resumeProducing()
        self._advance()

    def stopProducing(self) -> None:
        if self._producer is not None:
            self._producer.stopProducing()

    # Called by the request

    def getPeer(self) -> IAddress:
        peer: IAddress = self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        # Each request calls this, and the transport makes a system call each time.
        host = self._host
        if host is None:
            host = self._host = self.transport.getHost()
        return host

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer, self._pulls = producer, not streaming
        if self._pulls:
            self._pull()
        elif self.full:
            producer.pauseProducing()

    def _pull(self) -> None:
        while self._pulls and not self.full:
            self._producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer, self._pulls = None, False

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        if (
            not headers.hasHeader(b"Content-Length")
            and not headers.hasHeader(b"Transfer-Encoding")
            and self._request.method != b"HEAD"
            and int(code) not in NO_BODY_CODES
        ):
            self._persistent = False
        if self._continue or self.site.closing:
            # A client that got no 100 Continue may or may not send its body now (RFC 9110 section
            # 10.1.1), so the beginning of its next request can't be found.
            self._persistent = False
        lines = [b"HTTP/1.1 ", code, b" ", reason, b"\r\n"]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                lines += name, b": ", value, b"\r\n"
        if not self._persistent:
            lines.append(b"Connection: close\r\n")
        elif self._keepAliveOf10:
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.transport.writeSequence(pieces)

    def requestDone(self, request: object) -> None:
        self._request = None
        if self._closing:
            return
        if self._body is None:
            self._awaitRequest()
        elif self._continue:
            self.loseConnection()
        else:
            # The response precedes the end of the body.  Some clients read it only after they have
            # sent the body, so discard the body for a while before closing.
            self.setTimeout(_LINGER)
            self._read(True)

    def _awaitRequest(self) -> None:
        if not self._persistent:
            self.loseConnection()
            return
        self._rest()
        self._read(True)
        self._advance()

    def closeWhenIdle(self) -> None:
        """
        Close the connection; if a request is in progress, after its response.  A connection
        that has not had a request yet gets some time for it.
        """
        self._persistent = False
        if self._request is not None or self._headBegun:
            return
        if self._isFresh:
            self.setTimeout(FIRST_REQUEST)
        else:
            self.loseConnection()

    def loseConnection(self) -> None:
        """
        Close the connection when all written data has been sent, or when that takes too long.
        """
        if not self._closing:
            self._leave()
