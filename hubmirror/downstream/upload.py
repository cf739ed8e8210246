"""
One request body on its way to one upstream: pushed through, paused by whoever is slower.
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
    The body of a request that is still arriving.  Until somebody consumes it the client is
    paused, so what is held is what came in one read.

    @ivar length: in bytes, or C{UNKNOWN_LENGTH}.
    @ivar received: bytes that have arrived.
    @ivar limit: bytes that it may have; C{None} for any number.
    @ivar watch: over the client, as long as it may send.
    """

    limit: int | None = None
    watch: StallWatch | None = None

    def __init__(self, channel: Any, length: int | None) -> None:
        """
        @param channel: has C{pauseBody} and C{resumeBody}.
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

    # From the channel

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
        Whether it has, or has announced, more bytes than it may.
        """
        announced = 0 if self.length is UNKNOWN_LENGTH else self.length
        return self.limit is not None and max(announced, self.received) > self.limit

    def complete(self) -> None:
        """
        All of the body has arrived.
        """
        self._complete = True
        self._finish()

    def close(self) -> None:
        """
        The client is gone, or has its answer.
        """
        self._closed = True
        finished = self._end()
        if finished is not None:
            finished.errback(Failure(BodyFailed("the client left in the middle of its body")))

    # To the upstream

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        @return: fires when the whole body has been written, fails when it never will be; stays
            silent after L{stopProducing}, as C{IBodyProducer} wants it.
        """
        finished: Deferred[None] = Deferred()
        if self._closed:
            finished.errback(Failure(BodyFailed("the client has left")))
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
        The upstream wants no more of it; the rest is the channel's to drop.
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
    Write a body into a file, for resources that want it whole.

    @return: fires with the file, at its beginning.
    """

    def rewind(_: None) -> BinaryIO:
        file.seek(0)
        return file

    return body.startProducing(_FileConsumer(file)).addCallback(rewind)


def bodyOf(request: IRequest) -> IBodyProducer | None:
    """
    The body of a request, or C{None} when it has none that means anything.  Under another site than
    the mirror's own Twisted has collected it in a file.
    """
    content: Any = request.content
    if request.method in (b"GET", b"HEAD"):
        # It has no meaning there (RFC 9110 9.3.1), and with it nothing could be asked twice.
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
