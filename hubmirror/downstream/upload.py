"""
Streams the body of a request to an upstream.  When the upstream's connection is full, the client's
is paused.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IRequest
from zope.interface import implementer

from hubmirror.protocol.errors import BodyFailed
from hubmirror.upstream.bodies import StallWatch


@implementer(IBodyProducer, IPushProducer)
class RequestBody:
    """
    The body of a request, which is still being received.  The client is paused until the body is
    consumed, so that no more than the data of one read is in memory.

    @ivar length: the length in bytes, or C{UNKNOWN_LENGTH}.
    @ivar received: the number of bytes that have been received.
    @ivar limit: the largest permitted number of bytes; C{None} when there is no limit.
    @ivar watch: detects a client that has stalled.
    """

    limit: int | None = None
    watch: StallWatch | None = None

    def __init__(self, channel: Any, length: int | None) -> None:
        """
        @param channel: an object with the methods C{pauseBody} and C{resumeBody}.
        """
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.received = 0
        self._channel = channel
        self._early: list[bytes] = []
        self._complete = False
        self._closed = False
        self._paused = False
        self._consumer: IConsumer | None = None
        self._finished: Deferred[None] | None = None

    # Called by the channel

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self.watch is not None:
            self.watch.received(len(data))
        if self.isTooLarge:
            self.close()
        elif self._consumer is not None:
            self._consumer.write(data)
        elif not self._closed:
            self._early.append(data)
            self._channel.pauseBody()

    @property
    def isTooLarge(self) -> bool:
        """
        Whether the body has, or has announced, more bytes than C{limit}.
        """
        announced = 0 if self.length is UNKNOWN_LENGTH else self.length
        return self.limit is not None and max(announced, self.received) > self.limit

    def complete(self) -> None:
        """
        The whole body has been received.
        """
        self._complete = True
        self._finish()

    def close(self) -> None:
        """
        Stop: the client has left, the response is complete, or the body is too large.
        """
        self._closed = True
        finished = self._end()
        if finished is not None:
            finished.errback(Failure(BodyFailed("the body of the request is not complete")))

    # Called by the upstream's connection

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        @return: a deferred that fires when the whole body has been written, and fails with
            L{BodyFailed} when the body is closed before.  It does not fire after L{stopProducing}
            (see L{IBodyProducer}).
        """
        finished: Deferred[None] = Deferred()
        if self._closed:
            finished.errback(Failure(BodyFailed("the body of the request is not complete")))
            return finished
        self._consumer, self._finished = consumer, finished
        consumer.registerProducer(self, True)
        early, self._early = self._early, []
        for piece in early:
            consumer.write(piece)
        if self._complete:
            self._finish()
            return finished
        if self.watch is not None:
            self.watch.start()
        if not self._paused:
            self._channel.resumeBody()
        return finished

    def _finish(self) -> None:
        finished = self._end()
        if finished is not None:
            finished.callback(None)

    def _end(self) -> Deferred[None] | None:
        if self.watch is not None:
            self.watch.stop()
        consumer, self._consumer = self._consumer, None
        finished, self._finished = self._finished, None
        if consumer is not None:
            consumer.unregisterProducer()
        return finished

    def pauseProducing(self) -> None:
        self._paused = True
        if self.watch is not None:
            self.watch.pause()
        if not self._complete and not self._closed:
            self._channel.pauseBody()

    def resumeProducing(self) -> None:
        self._paused = False
        if self.watch is not None:
            self.watch.resume()
        if not self._complete and not self._closed:
            self._channel.resumeBody()

    def stopProducing(self) -> None:
        """
        The upstream needs no more of the body.  The channel discards the rest.
        """
        self._closed = True
        self._end()


@implementer(IConsumer)
class _FileConsumer:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self._file.write(data)


def collect(body: RequestBody, file: BinaryIO) -> Deferred[BinaryIO]:
    """
    Write a body into a file, for resources that need the whole body.

    @return: a deferred that fires with the file, positioned at its beginning, or fails with
        L{BodyFailed}.
    """

    def rewind(_: None) -> BinaryIO:
        file.seek(0)
        return file

    return body.startProducing(_FileConsumer(file)).addCallback(rewind)


def bodyOf(request: IRequest) -> IBodyProducer | None:
    """
    The body of a request, or C{None} when it has none or its body has no meaning.  If the resource
    is served by another site than L{MirrorSite<hubmirror.downstream.site.MirrorSite>}, Twisted has
    written the body into a file.
    """
    content: Any = request.content
    if request.method in (b"GET", b"HEAD"):
        # The body of a GET has no meaning (RFC 9110 section 9.3.1), and a request with a body could
        # not be repeated.
        if isinstance(content, RequestBody):
            content.stopProducing()
        return None
    if isinstance(content, RequestBody):
        return content
    headers = request.requestHeaders
    if headers.hasHeader(b"Transfer-Encoding") or headers.getRawHeaders(b"Content-Length") not in (
        None,
        [b"0"],
    ):
        return FileBodyProducer(content)
    return None
