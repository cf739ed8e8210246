"""
The client side of HTTP/1.1: a connection to an upstream with one request at a time.

Twisted's own client is not suitable for a proxy: it hides the C{Connection} field and with it the
names of hop-by-hop fields, loses the C{Content-Length} of a 304, does not limit the size of a
response head, and re-encodes request targets.  This client sends the target unchanged, keeps every
field, and provides the same C{IResponse} interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.protocol.buffers import ReceiveBuffer
from hubmirror.protocol.errors import (
    BodyFailed,
    ConnectFailed,
    HeadFailed,
    HeadTimedOut,
    NoAnswer,
    RequestRefused,
    StaleConnection,
)
from hubmirror.protocol.heads import (
    Decoder,
    ResponseHead,
    UntilCloseDecoder,
    listMembers,
    parseResponseHead,
    responseBody,
)
from hubmirror.transport.failures import describeFailure
from hubmirror.transport.pausewatch import PauseWatch

RESPONSE_TIMEOUT = 300.0
"""
The time, in seconds, from the end of a request to the response head, for requests that have no
shorter limit.  A registry may copy and hash a layer of many gigabytes before it responds with 201.
It is also the longest time for which an upstream may accept nothing of a body.
"""

_MAX_INTERIM = 8

# A request with one of these methods has a Content-Length even without a body (RFC 9110 section
# 8.6).
_METHODS_WITH_BODY = (b"POST", b"PUT", b"PATCH")


@implementer(IResponse, IPushProducer)
class UpstreamResponse:
    """
    A response.  Apart from the bytes that arrived together with the head, its body is not read from
    the network before L{deliverBody} is called.

    The response is also the transport of its body: the protocol to which the body is delivered may
    pause, resume and stop it.

    @ivar length: the length of the body in bytes, or C{UNKNOWN_LENGTH}.  The C{Content-Length} of a
        response to HEAD or of a 304 is only in C{headers}.
    @ivar paused: whether reading the body is paused.
    """

    request = None
    previousResponse: IResponse | None = None

    def __init__(self, connection: UpstreamConnection, head: ResponseHead, length: Any) -> None:
        self.version = head.version
        self.code = head.status
        self.phrase = head.phrase
        self.headers = head.headers
        self.length = length
        self._connection = connection
        self._receiver: IProtocol | None = None
        self._early: list[bytes] = []
        self._ended: Failure | None = None
        self.paused = True

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        Deliver the body to a protocol.  Its C{connectionLost} is called with C{ResponseDone} when
        the body is complete, otherwise with L{BodyFailed}.
        """
        self._receiver = protocol
        self.paused = False
        # From here on, the protocol may pause the body; that must not be undone below.
        protocol.makeConnection(self)  # type: ignore[arg-type]
        early, self._early = self._early, []
        for piece in early:
            protocol.dataReceived(piece)
        if self._ended is not None:
            protocol.connectionLost(self._ended)
        elif not self.paused:
            self._connection.resumeBody()

    def received(self, pieces: list[bytes]) -> None:
        if self._receiver is None:
            self._early += pieces
        else:
            for piece in pieces:
                self._receiver.dataReceived(piece)

    def ended(self, reason: Failure) -> None:
        self._ended = reason
        if self._receiver is not None:
            self._receiver.connectionLost(reason)

    def pauseProducing(self) -> None:
        self.paused = True
        if self._ended is None:
            self._connection.pauseBody()

    def resumeProducing(self) -> None:
        self.paused = False
        if self._ended is None:
            self._connection.resumeBody()

    def stopProducing(self) -> None:
        """
        Close the connection, because the rest of the body is not needed.
        """
        if self._ended is None:
            self._connection.abort()

    loseConnection = stopProducing


@implementer(IConsumer, IPushProducer)
class _BodyWriter:
    """
    Writes the body of a request with its framing, and checks that it has the announced length.
    The methods raise L{BodyFailed} if it has not.

    It stands between the producer and the transport, to notice when the upstream accepts no data.
    """

    def __init__(self, transport: Any, length: int | None, watch: PauseWatch) -> None:
        self._transport = transport
        self._left = length
        self._watch = watch
        self._producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        self._transport.registerProducer(self, streaming)

    def unregisterProducer(self) -> None:
        self._watch.stop()
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self._watch.pause()
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._watch.resume()
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._watch.stop()
        self._producer.stopProducing()

    def write(self, data: bytes) -> None:
        if self._left is None:
            if data:
                self._transport.writeSequence([b"%x\r\n" % len(data), data, b"\r\n"])
            return
        self._left -= len(data)
        if self._left < 0:
            raise BodyFailed("the request's body is longer than announced")
        self._transport.write(data)

    def finish(self) -> None:
        if self._left is None:
            self._transport.write(b"0\r\n\r\n")
        elif self._left:
            raise BodyFailed("the request's body is shorter than announced")


@implementer(IHandshakeListener)
class UpstreamConnection(Protocol):
    """
    A connection to one origin.

    @ivar ready: a deferred that fires with the connection when a request can be sent, which is
        after the TLS handshake, if any; or fails with L{ConnectFailed}.
    @ivar closed: a deferred that fires when the connection has been closed.
    @ivar reused: whether the connection has served a request before.
    """

    transport: Any

    def __init__(
        self, reactor: IReactorTime, secure: bool, released: Callable[[UpstreamConnection], None]
    ) -> None:
        """
        @param secure: whether the connection uses TLS.
        @param released: called with the connection when it can be used for another request.
        """
        self._reactor = reactor
        self._secure = secure
        self._released = released
        self.ready: Deferred[UpstreamConnection] = Deferred(lambda _: self.abort())
        self.closed: Deferred[None] = Deferred()
        self.reused = False
        self._open = False
        self._method = b""
        self._waiter: Deferred[UpstreamResponse] | None = None
        self._timer: IDelayedCall | None = None
        self._buffer = ReceiveBuffer()
        self._interim = 0
        self._response: UpstreamResponse | None = None
        self._decoder: Decoder | None = None
        self._keepAlive = True
        self._sending: IBodyProducer | None = None

    # Opening and closing

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._open = True
        if not self._secure:
            self.ready.callback(self)

    def handshakeCompleted(self) -> None:
        self.ready.callback(self)

    def abort(self) -> None:
        """
        Close the connection immediately.  A request in progress fails.
        """
        self._keepAlive = False
        if self._open:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self._open = False
        if not self.ready.called:
            self.ready.errback(ConnectFailed(describeFailure(reason)))
        self._stopSending()
        if self._waiter is not None:
            if self._buffer:
                self._fail(NoAnswer("the connection closed in the response head"))
            elif self.reused:
                self._fail(StaleConnection("a kept connection was closed"))
            else:
                self._fail(NoAnswer("the connection closed before the response head"))
        elif self._response is not None:
            if isinstance(self._decoder, UntilCloseDecoder) and reason.check(ConnectionDone):
                self._end(Failure(ResponseDone()))
            else:
                self._end(Failure(BodyFailed("the connection closed in the middle of the body")))
        # A response that is still referenced must not keep the TLS buffers in memory.
        self.transport = None
        self.closed.callback(None)

    # One request

    def send(
        self,
        method: bytes,
        target: bytes,
        host: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> Deferred[UpstreamResponse]:
        """
        Send a request.

        @param target: the request target, which is sent unchanged.
        @param host: the value of C{Host}.
        @param headers: all header fields except C{Host}, C{Content-Length} and
            C{Transfer-Encoding}.
        @return: a deferred that fires with the response when its head has been received, or fails
            with L{HeadFailed}.  Cancelling it closes the connection.
        """
        self._method = method
        self._interim = 0
        self._waiter = Deferred(lambda _: self.abort())
        head = [method, b" ", target, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]
        for name, values in headers.getAllRawHeaders():
            for value in values:
                head += name, b": ", value, b"\r\n"
        length: int | None = 0
        if body is not None:
            length = None if body.length is UNKNOWN_LENGTH else int(body.length)
        if length is None:
            head.append(b"Transfer-Encoding: chunked\r\n")
        elif body is not None or method in _METHODS_WITH_BODY:
            head.append(b"Content-Length: %d\r\n" % length)
        head.append(b"\r\n")
        self.transport.write(b"".join(head))
        waiter = self._waiter
        if body is None:
            self._awaitHead()
        else:
            self._sendBody(body, length)
        return waiter

    def _sendBody(self, body: IBodyProducer, length: int | None) -> None:
        self._sending = body
        watch = PauseWatch(self._reactor, RESPONSE_TIMEOUT, self._stalled)
        writer = _BodyWriter(self.transport, length, watch)

        def sent(_: object) -> None:
            self._sending = None
            writer.finish()
            if self._waiter is not None:
                self._awaitHead()

        def failed(reason: Failure) -> None:
            self._sending = None
            self.abort()

        body.startProducing(writer).addCallback(sent).addErrback(failed)

    def _awaitHead(self) -> None:
        if self._method in (b"GET", b"HEAD"):
            # The timeout for these methods covers all upstreams, so the caller has to observe it.
            return
        self._timer = self._reactor.callLater(RESPONSE_TIMEOUT, self._timedOut)

    def _timedOut(self) -> None:
        self._timer = None
        self._fail(HeadTimedOut("no response head in time"))
        self.abort()

    def _stalled(self) -> None:
        self._fail(HeadTimedOut("it accepts no data"))
        self.abort()

    def _stopSending(self) -> None:
        body, self._sending = self._sending, None
        if body is not None:
            body.stopProducing()

    def _fail(self, error: HeadFailed) -> None:
        waiter = self._takeWaiter()
        if waiter is not None and not waiter.called:
            waiter.errback(error)

    def _takeWaiter(self) -> Deferred[UpstreamResponse] | None:
        waiter, self._waiter = self._waiter, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return waiter

    # One response

    def dataReceived(self, data: bytes) -> None:
        if self._response is not None:
            self._buffer.add(data)
            self._feed(self._response)
        elif self._waiter is not None:
            self._buffer.add(data)
            self._readHead()
        else:
            # Data that precedes a request would be taken for its response.
            self.abort()

    def _readHead(self) -> None:
        try:
            while True:
                text = self._buffer.takeHead()
                if text is None:
                    return
                head = parseResponseHead(text)
                if head.status == 101:
                    raise HeadFailed("an upgrade that nobody asked for")
                if head.status >= 200:
                    break
                # RFC 9110 section 15.2 permits any number of interim responses, but the mirror has
                # no use for them.
                self._interim += 1
                if self._interim > _MAX_INTERIM:
                    raise HeadFailed("too many interim responses")
            decoder = responseBody(self._method, head)
        except (HeadFailed, RequestRefused) as error:
            self._fail(HeadFailed(f"invalid response head: {error.message}"))
            self.abort()
            return
        self._deliver(head, decoder)

    def _deliver(self, head: ResponseHead, decoder: Decoder | None) -> None:
        tokens = listMembers(head.headers, b"Connection")
        self._keepAlive = b"close" not in tokens and (
            head.version[2] > 0 or b"keep-alive" in tokens
        )
        self._decoder = decoder
        length = 0 if decoder is None else decoder.length
        response = UpstreamResponse(self, head, UNKNOWN_LENGTH if length is None else length)
        self._response = response
        if decoder is None:
            self._complete()
        elif self._buffer:
            self._feed(response)
        waiter = self._takeWaiter()
        if waiter is not None:
            waiter.callback(response)
        # Most callers read the body immediately; the connection is paused only for the others.
        if self._response is response and response.paused:
            self.pauseBody()

    def _feed(self, response: UpstreamResponse) -> None:
        decoder = self._decoder
        assert decoder is not None
        try:
            pieces = decoder.feed(self._buffer)
            if decoder.done and self._buffer:
                raise BodyFailed("the body is longer than announced")
        except BodyFailed as error:
            self._end(Failure(error))
            self.abort()
            return
        response.received(pieces)
        if decoder.done and self._response is response:
            self._complete()

    def _complete(self) -> None:
        """
        The response is complete.  The connection can be reused unless the request is still being
        sent, or the upstream closes it or has sent more than the response.
        """
        reusable = self._keepAlive and not self._buffer and self._sending is None
        response = self._response
        assert response is not None
        if reusable and response.paused:
            self.resumeBody()
        self._response = self._decoder = None
        if reusable:
            self.reused = True
            self._released(self)
        else:
            self._stopSending()
            self.abort()
        response.ended(Failure(ResponseDone()))

    def _end(self, reason: Failure) -> None:
        response, self._response, self._decoder = self._response, None, None
        if response is not None:
            response.ended(reason)

    def pauseBody(self) -> None:
        if self._open:
            self.transport.pauseProducing()

    def resumeBody(self) -> None:
        if self._open:
            self.transport.resumeProducing()
