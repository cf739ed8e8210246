"""
Tests of bodies in the server: they are received as fast as they are consumed, and sent as fast as
they are accepted.
"""

from __future__ import annotations

from typing import Any

from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.static import File

from hubmirror.downstream.upload import RequestBody
from tests.downstream.support import Server
from tests.wire.support import Line, read

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECT = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-Continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Consumer:
    """
    A consumer of a request's body.
    """

    def __init__(self) -> None:
        self.data = b""
        self.producer: Any = None

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data


class Producer:
    """
    A push producer that records the last call.
    """

    told = "resume"

    def pauseProducing(self) -> None:
        self.told = "pause"

    def resumeProducing(self) -> None:
        self.told = "resume"

    def stopProducing(self) -> None:
        self.told = "stop"


def consume(request: Any) -> tuple[Consumer, Any]:
    """Consume the body of a request."""
    consumer = Consumer()
    return consumer, request.content.startProducing(consumer)


def finish(request: Any) -> None:
    """Send an empty response."""
    request.setHeader(b"Content-Length", b"0")
    request.finish()


class UploadTests(SynchronousTestCase):
    def test_beforeTheBody(self) -> None:
        """A request is processed when its head is complete."""
        for head, length in ((PUT, 10), (CHUNKED, None)):
            _, request = Server().ask(head)
            self.assertIsInstance(request.content, RequestBody)
            self.assertEqual(request.content.length == 10, length == 10)

    def test_whole(self) -> None:
        for head, pieces in (
            (PUT, [b"hello", b"world"]),
            (CHUNKED, [b"a\r\nhello", b"world\r\n0\r\n\r\n"]),
        ):
            line, request = Server().ask(head + pieces[0])
            consumer, done = consume(request)
            self.assertEqual(consumer.data, b"hello")
            self.assertNoResult(done)
            line.says(pieces[1])
            self.assertEqual(consumer.data, b"helloworld")
            self.successResultOf(done)

    def test_pause(self) -> None:
        """The client is paused until the body is consumed, and when the consumer is slow."""
        line, request = Server().ask(PUT)
        line.says(b"12")
        self.assertEqual(line.producerState, "paused")
        consumer, _ = consume(request)
        self.assertEqual(line.producerState, "producing")
        consumer.producer.pauseProducing()
        self.assertEqual(line.producerState, "paused")
        consumer.producer.resumeProducing()
        self.assertEqual(line.producerState, "producing")

    def test_readsOnAfterTheBody(self) -> None:
        """
        Even if its body was slow, a client that leaves while the response is prepared is noticed.
        """
        line, request = Server().ask(PUT)
        consumer, _ = consume(request)
        consumer.producer.pauseProducing()
        # This was already being transferred.
        line.says(b"helloworld")
        self.assertEqual(line.producerState, "producing")

    def test_clientLeaves(self) -> None:
        line, request = Server().ask(PUT + b"hello")
        _, done = consume(request)
        request.notifyFinish().addErrback(lambda _: request.content.close())
        line.leaves()
        line._clock.advance(0)
        self.failureResultOf(done)

    def test_malformed(self) -> None:
        """A malformed body causes an error response if none has begun, and otherwise aborts it."""
        for started in (False, True):
            line, request = Server().ask(CHUNKED)
            finished = request.notifyFinish()
            if started:
                request.write(b"part")
                line.hears()
            line.says(b"nonsense\r\n")
            self.failureResultOf(finished)
            if started:
                self.assertEqual((line.ended, line.hears()), ("aborted", b""))
            else:
                self.assertEqual((line.ended, read(line.hears()).status), ("closed", 400))

    def test_malformedAfterTheAnswer(self) -> None:
        line, request = Server().ask(CHUNKED)
        finish(request)
        line.hears()
        line.says(b"nonsense\r\n")
        self.assertEqual((line.ended, line.hears()), ("aborted", b""))


class ExpectTests(SynchronousTestCase):
    """
    Tests of C{Expect: 100-continue}: the client is asked to continue when its body is consumed.
    """

    def test_lazily(self) -> None:
        line, request = Server().ask(EXPECT)
        self.assertEqual(line.hears(), b"")
        consume(request)
        self.assertEqual(line.hears(), CONTINUE)
        line.says(b"hello")
        request.channel.resumeBody()
        self.assertEqual(line.hears(), b"")

    def test_refused(self) -> None:
        """
        A client that was not asked to continue may send its body or not, so the next bytes are
        ambiguous.
        """
        line, request = Server().ask(EXPECT)
        finish(request)
        self.assertEqual(read(line.hears()).values(b"Connection"), [b"close"])
        self.assertEqual(line.ended, "closed")

    def test_unasked(self) -> None:
        """
        A client that does not wait for C{100 Continue} is not sent one, and keeps its connection.
        """
        line, request = Server().ask(EXPECT)
        line.says(b"hello")
        consume(request)
        line.says(b"world")
        finish(request)
        answer = read(line.hears())
        self.assertEqual((answer.status, answer.values(b"Connection")), (200, []))
        self.assertEqual(line.ended, "")

    def test_none(self) -> None:
        """C{100 Continue} is not sent without a body, and not in HTTP/1.0."""
        for head in (
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\n",
            b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        ):
            line, request = Server().ask(head)
            request.channel.resumeBody()
            self.assertEqual(line.hears(), b"", head)

    def test_tooLate(self) -> None:
        line, request = Server().ask(EXPECT)
        channel = request.channel
        channel.loseConnection()
        channel.resumeBody()
        self.assertEqual(line.hears(), b"")


class EarlyAnswerTests(SynchronousTestCase):
    """A response before the end of the body."""

    def setUp(self) -> None:
        self.server = Server(idleTimeout=75)
        self.line, request = self.server.ask(PUT + b"hel")
        self.assertEqual(self.line.producerState, "paused")
        finish(request)

    def test_reused(self) -> None:
        """The client may send the rest, which is discarded, and then another request."""
        self.assertEqual(read(self.line.hears()).values(b"Connection"), [])
        self.assertEqual(self.line.producerState, "producing")
        self.line.says(b"lowor")
        self.line.says(b"ld" + GET)
        self.assertEqual(
            [request.method for request in self.server.held.requests], [b"PUT", b"GET"]
        )

    def test_notForEver(self) -> None:
        self.server.clock.advance(29)
        self.line.says(b"lowo")
        self.assertEqual(self.line.ended, "")
        self.server.clock.advance(1)
        self.assertEqual(self.line.ended, "closed")

    def test_siteCloses(self) -> None:
        self.server.site.close()
        self.assertEqual(self.line.ended, "closed")


class BackpressureTests(SynchronousTestCase):
    """
    The channel is the producer of its transport; it passes pauses on to the producer of the
    response.
    """

    def test_pushed(self) -> None:
        line, request = Server().ask()
        producer = Producer()
        request.registerProducer(producer, True)
        line.producer.pauseProducing()
        self.assertEqual(producer.told, "pause")
        line.producer.resumeProducing()
        self.assertEqual(producer.told, "resume")
        line.leaves()
        line._clock.advance(0)
        self.assertEqual(producer.told, "stop")

    def test_fullBefore(self) -> None:
        """A producer that is registered while the transport is full is paused."""
        line, request = Server().ask()
        line.producer.pauseProducing()
        producer = Producer()
        request.registerProducer(producer, True)
        self.assertEqual(producer.told, "pause")

    def test_afterTheEnd(self) -> None:
        """After a producer has ended, none of its methods is called."""
        line, request = Server().ask()
        producer = Producer()
        request.registerProducer(producer, True)
        request.unregisterProducer()
        line.producer.pauseProducing()
        line.producer.stopProducing()
        self.assertEqual(producer.told, "resume")

    def test_noNewRequest(self) -> None:
        """A client that does not accept its responses gets no further ones."""
        server = Server()
        line = server.connect()
        line.producer.pauseProducing()
        line.says(GET)
        self.assertEqual(server.held.requests, [])
        line.producer.resumeProducing()
        self.assertEqual(len(server.held.requests), 1)

    def test_restOfAHead(self) -> None:
        """
        The rest of a long head, of which a part arrived while the transport was full, is read when
        it is no longer full.
        """
        server = Server()
        line = server.connect()
        line.producer.pauseProducing()
        line.says(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: %b\r\n" % (b"y" * 1000) * 20)
        self.assertEqual(line.producerState, "paused")
        line.producer.resumeProducing()
        self.assertEqual(line.producerState, "producing")
        line.says(b"\r\n")
        self.assertEqual(len(server.held.requests), 1)


class PulledTests(SynchronousTestCase):
    """Resources beside the mirror may use pull producers, such as static files."""

    def setUp(self) -> None:
        self.content = b"0123456789abcdef" * 20_000
        folder = FilePath(self.mktemp())
        folder.makedirs()
        folder.child("file").setContent(self.content)
        root = Resource()
        root.putChild(b"files", File(folder.path))
        self.line: Line = Server(root).connect()

    def test_whole(self) -> None:
        self.line.says(b"GET /files/file HTTP/1.1\r\nHost: a\r\n\r\n" * 2)
        first = read(self.line.hears())
        self.assertEqual(first.body[: len(self.content)], self.content)
        self.assertEqual(read(first.body[len(self.content) :]).body, self.content)

    def test_backpressure(self) -> None:
        """Nothing is read from the file while the client accepts nothing."""
        write, channel = self.line.write, self.line.producer

        def fill(data: bytes) -> None:
            write(data)
            channel.pauseProducing()

        self.line.write = fill  # type: ignore[method-assign]
        self.line.says(b"GET /files/file HTTP/1.1\r\nHost: a\r\n\r\n")
        body = b""
        while len(body) < len(self.content):
            part = self.line.hears()
            self.assertLessEqual(len(part), 70_000)
            body += part.partition(b"\r\n\r\n")[2] if not body else part
            channel.resumeProducing()
        self.assertEqual(body, self.content)
