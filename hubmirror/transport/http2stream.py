"""
One request and its response on an HTTP/2 connection of a client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.exceptions import StreamClosedError
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers

from hubmirror.protocol.buffers import ReceiveBuffer
from hubmirror.protocol.errors import BadRequest, RequestRefused
from hubmirror.protocol.heads import (
    RequestHead,
    contentLength,
    listMembers,
    parseRequestHead,
)
from hubmirror.transport.refusing import writeRefusal

if TYPE_CHECKING:
    from hubmirror.transport.http2server import HTTP2Channel

# The time in seconds between a response and the reset that stops the client's body.
_LINGER = 1.0
_GROWTH = 192 * 1024
"""
The number of bytes by which a stream's window is extended once its body is consumed.  With a larger
window, clients with a long round-trip time can send faster.
"""


def _readHead(fields: list[tuple[bytes, bytes]], most: int) -> RequestHead:
    """
    Parse the field section of a request.  It is converted to HTTP/1.1 and parsed as such, so that
    both protocols accept and refuse the same requests.

    @param most: the largest size of the converted head, in bytes.
    @raise RequestRefused: when the head is not valid.
    """
    control = {name: value for name, value in fields if name.startswith(b":")}
    authority = control.get(b":authority")
    target = control.get(b":path") or authority or b""
    lines = [b"%b %b HTTP/1.1" % (control[b":method"], target)]
    if authority is not None:
        lines.append(b"Host: " + authority)
    for name, value in fields:
        # h2 has checked that Host and :authority agree.
        if name not in control and not (name == b"host" and authority is not None):
            lines.append(name + b": " + value)
    text = b"\r\n".join(lines)
    buffer = ReceiveBuffer()
    buffer.add(text + b"\r\n\r\n")
    # This checks the sizes.  h2 has checked that no field contains a line break.
    buffer.takeHead(most)
    head = parseRequestHead(text)
    if head.method != b"CONNECT" and not target.startswith(b"/") and target != b"*":
        raise BadRequest("malformed request target")
    return head


class HTTP2Stream:
    """
    One request and its response.  It provides the interface of L{HTTP1Channel} to the request.

    @ivar number: the stream identifier.
    @ivar request: the request, until it is done or lost; C{None} if there is none.
    @ivar queued: the number of bytes of the response that wait for the flow control windows or the
        transport.
    """

    def __init__(self, channel: HTTP2Channel, number: int) -> None:
        self.site = self.factory = channel.site
        self.transport: Any = channel.transport
        self.number = number
        self.request: Any = None
        self.queued = 0
        self._channel = channel
        self._queue: deque[memoryview] = deque()
        self._producer: Any = None
        self._producerPaused = False
        self._pulls = False
        self._done = False
        self._sending = True
        self._receiving = True
        self._hasBody = False
        self._bodyPaused = False
        self._withheld = 0
        self._grown = False
        self._continue = False
        self._isHead = False
        self._answered = False
        # The timer of a response that is done: until it has been sent, and then for the body.
        self._timer: IDelayedCall | None = None

    # The request

    def requestReceived(self, fields: list[tuple[bytes, bytes]], ended: bool) -> None:
        """
        The head of the request has been received.

        @param fields: the fields, pseudo-header fields included.
        @param ended: whether the request has no body.
        """
        self._receiving = not ended
        self._isHead = (b":method", b"HEAD") in fields
        try:
            head = _readHead(fields, self.site.maxHead)
            length = contentLength(head.headers)
            if ended and length:
                raise BadRequest("a Content-Length without a body")
        except RequestRefused as error:
            self._refuse(error)
            return
        self._hasBody = not ended and length != 0
        self._continue = b"100-continue" in listMembers(head.headers, b"Expect")
        request = self.request = self._channel.requestFactory(self)
        request.requestHeaders = head.headers
        request.parseCookies()
        request.headReceived(head.method, head.target, b"HTTP/2", 0 if ended else length)

    def _refuse(self, error: RequestRefused) -> None:
        self.site.refused(self, error)
        writeRefusal(self, error)
        self.requestDone(None)

    def dataReceived(self, data: bytes, size: int) -> None:
        """
        A part of the body of the request has been received.

        @param size: the number of bytes that count for flow control, which includes padding.
        """
        if data and self.request is not None:
            self.request.handleContentChunk(data)
        self._withheld += size
        if not self._bodyPaused:
            self._reopen()

    def ended(self) -> None:
        """
        The whole request has been received.
        """
        self._receiving = False
        if self._hasBody and self.request is not None:
            self.request.contentComplete()

    def pauseBody(self) -> None:
        """
        Stop extending the client's window for the body of the request.
        """
        self._bodyPaused = True

    def resumeBody(self) -> None:
        """
        Extend the client's window for the body, and send C{100 Continue} if the client waits for
        it.
        """
        self._bodyPaused = False
        if self._hasBody and not self._grown and self._receiving:
            # A body that nothing consumes yet needs no large window.
            self._grown = True
            self._open(_GROWTH)
        if self._continue and self._sending and not self._answered:
            self._channel.h2.send_headers(self.number, [(b":status", b"100")])
        self._continue = False
        self._reopen()

    def _reopen(self) -> None:
        size, self._withheld = self._withheld, 0
        if size and self._receiving:
            self._open(size)
        self._channel.send()

    def _open(self, size: int) -> None:
        """
        Extend the stream's window.

        @param size: in bytes.
        """
        # h2 may already have processed the END_STREAM that follows the event in progress.
        with suppress(StreamClosedError):
            self._channel.h2.increment_flow_control_window(size, self.number)

    # The response

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        if not self._sending:
            return
        # h2 converts names to lower case and removes the fields of HTTP/1.1.
        fields = [(b":status", code)]
        for name, values in headers.getAllRawHeaders():
            fields += [(name, value) for value in values]
        self._sending = not self._isHead and int(code) not in NO_BODY_CODES
        self._answered = True
        self._channel.h2.send_headers(self.number, fields, end_stream=not self._sending)
        self._channel.answered()

    def write(self, data: bytes) -> None:
        if not data or not self._sending:
            return
        self._queue.append(memoryview(data))
        self.queued += len(data)
        self._channel.send(self)
        self._balance()

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def sendSome(self, room: int) -> int:
        """
        Send some of the queued data, and resume the producer or end the stream when nothing is
        left.

        @param room: the largest number of bytes to send.
        @return: the number of bytes that were sent; 0 when a window is closed.
        """
        if not self.queued:
            return 0
        h2 = self._channel.h2
        size = min(room, h2.local_flow_control_window(self.number))
        if size <= 0:
            return 0
        piece = self._queue.popleft()
        if len(piece) > size:
            self._queue.appendleft(piece[size:])
            piece = piece[:size]
        self.queued -= len(piece)
        self._channel.outbound.sendData(self.number, piece)
        if not self.queued:
            if self._done:
                self._end()
            else:
                self.resume()
        elif self._done:
            self._limitRest()
        return len(piece)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        # A pull producer is treated as a push producer that is paused after each write.
        self._pulls = self._producerPaused = not streaming
        if self._pulls:
            producer.resumeProducing()
        else:
            self._balance()

    def unregisterProducer(self) -> None:
        self._producer = None
        self._producerPaused = False

    def _balance(self) -> None:
        if self.queued or self._channel.full:
            self.pause()

    def pause(self) -> None:
        """
        Pause the producer.
        """
        if self._producer is not None and not self._producerPaused:
            self._producerPaused = True
            self._producer.pauseProducing()

    def resume(self) -> None:
        """
        Resume the producer, unless some of its data is still queued.
        """
        if self._producerPaused and not self.queued and not self._channel.full:
            self._producerPaused = self._pulls
            self._producer.resumeProducing()

    # The end

    def requestDone(self, request: object) -> None:
        self.request = None
        self._done = True
        self._bodyPaused = False
        self._reopen()
        if self.queued:
            self._limitRest()
        else:
            self._end()

    def _limitRest(self) -> None:
        """
        Limit the time for which the client may accept nothing of the rest of the response.  Before
        the response is done, its producer does that.
        """
        self._after(self.site.clientTimeout, self.abortConnection)

    def _after(self, seconds: float, call: Callable[[], object]) -> None:
        self._stopTimer()
        self._timer = self._channel.callLater(seconds, call)

    def _stopTimer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _end(self) -> None:
        """
        The whole response has been sent.
        """
        if self._sending:
            self._sending = False
            self._channel.h2.end_stream(self.number)
        if self._receiving:
            # RST_STREAM with NO_ERROR lets the client stop sending (RFC 9113 section 8.1).  It is
            # delayed, because curl 7.88 loses the response when both arrive together.
            self._after(_LINGER, self._stopClient)
            self._channel.send()
        else:
            self._leave()

    def _stopClient(self) -> None:
        self._reset(ErrorCodes.NO_ERROR)
        self._leave()

    def _leave(self) -> None:
        self._stopTimer()
        self._channel.remove(self)

    def _reset(self, code: ErrorCodes) -> None:
        if self._sending or self._receiving:
            self._sending = self._receiving = False
            # The stream may have been closed by an event that has not been handled yet.
            with suppress(StreamClosedError):
                self._channel.h2.reset_stream(self.number, code)

    def abortConnection(self) -> None:
        """
        Reset the stream.  The connection and its other streams are not affected.
        """
        self._reset(ErrorCodes.INTERNAL_ERROR)
        self._queue.clear()
        self.queued = 0
        self._channel.send()
        # As with a transport, connectionLost is called only after this method has returned.
        self._channel.callLater(0, lambda: self.lost(Failure(ConnectionAborted())))

    # Any other way to end the stream would look like the end of a complete response.
    loseConnection = abortConnection

    def lost(self, reason: Failure) -> None:
        """
        The stream has been reset, or the connection has been lost.
        """
        self._sending = self._receiving = self._bodyPaused = False
        self._reopen()
        producer = self._producer
        self.unregisterProducer()
        request, self.request = self.request, None
        if producer is not None:
            producer.stopProducing()
        if request is not None:
            request.connectionLost(reason)
        self._leave()

    # Called by the request

    def getPeer(self) -> IAddress:
        return self._channel.getPeer()

    def getHost(self) -> IAddress:
        return self._channel.getHost()

    def isSecure(self) -> bool:
        return self._channel.isSecure()
