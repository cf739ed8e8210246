"""
Tests of the request body on its way to an upstream, with either side slower or ending first.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH

from hubmirror.downstream.upload import RequestBody, bodyOf
from hubmirror.exchange import Outcome
from hubmirror.protocol.errors import BodyFailed
from tests.wire.support import Line, MemoryCase, answer


class Channel:
    """
    A channel of a client.

    @ivar reading: whether the client may send more of the body.
    """

    reading = True

    def pauseBody(self) -> None:
        self.reading = False

    def resumeBody(self) -> None:
        self.reading = True


class Consumer:
    """
    The consumer of a body.

    @ivar full: whether it pauses its producer at each write.
    """

    def __init__(self, full: bool = False) -> None:
        self.full = full
        self.producer: Any = None
        self.written = b""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        self.written += data
        if self.full:
            self.producer.pauseProducing()


class RequestBodyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.channel = Channel()
        self.body = RequestBody(self.channel, 10)
        self.consumer = Consumer()

    def start(self) -> Deferred[None]:
        return self.body.startProducing(self.consumer)

    def test_length(self) -> None:
        self.assertEqual(self.body.length, 10)
        self.assertIs(RequestBody(self.channel, None).length, UNKNOWN_LENGTH)

    def test_early(self) -> None:
        """The client is paused until the body is consumed."""
        self.body.dataReceived(b"12345")
        self.assertFalse(self.channel.reading)
        finished = self.start()
        self.assertEqual(self.consumer.written, b"12345")
        self.assertTrue(self.channel.reading)
        self.body.dataReceived(b"67890")
        self.assertEqual(self.consumer.written, b"1234567890")
        self.assertNoResult(finished)
        self.body.complete()
        self.successResultOf(finished)
        self.assertIsNone(self.consumer.producer)
        self.assertEqual(self.body.received, 10)

    def test_wholeBeforeStart(self) -> None:
        self.body.dataReceived(b"1234567890")
        self.body.complete()
        self.successResultOf(self.start())
        self.assertEqual(self.consumer.written, b"1234567890")
        self.assertIsNone(self.consumer.producer)

    def test_pause(self) -> None:
        self.start()
        self.consumer.producer.pauseProducing()
        self.assertFalse(self.channel.reading)
        self.consumer.producer.resumeProducing()
        self.assertTrue(self.channel.reading)

    def test_pausedByEarly(self) -> None:
        """If the early data fills the upstream's buffer, the body stays paused."""
        self.consumer.full = True
        self.body.dataReceived(b"12345")
        self.start()
        self.assertFalse(self.channel.reading)
        self.consumer.producer.resumeProducing()
        self.assertTrue(self.channel.reading)

    def test_clientLeaves(self) -> None:
        finished = self.start()
        self.body.dataReceived(b"12345")
        self.body.close()
        self.failureResultOf(finished, BodyFailed)
        self.assertIsNone(self.consumer.producer)
        self.body.close()

    def test_clientHasLeft(self) -> None:
        self.body.close()
        self.failureResultOf(self.start(), BodyFailed)

    def test_closedWhenWhole(self) -> None:
        """The body of a request is closed even when the response is complete."""
        finished = self.start()
        self.body.complete()
        self.body.close()
        self.successResultOf(finished)

    def test_stopped(self) -> None:
        """
        When the upstream stops the producer, later bytes are dropped, and no error is reported.
        """
        finished = self.start()
        self.body.dataReceived(b"12345")
        self.consumer.producer.stopProducing()
        self.body.dataReceived(b"67890")
        self.body.complete()
        self.body.close()
        self.assertNoResult(finished)
        self.assertEqual(self.consumer.written, b"12345")
        self.assertEqual(self.body.received, 10)

    def test_noReadingAfterTheEnd(self) -> None:
        """After a complete body, reading from the connection is left to the next request."""
        self.start()
        producer = self.consumer.producer
        self.body.complete()
        producer.pauseProducing()
        self.assertTrue(self.channel.reading)
        self.channel.reading = False
        producer.resumeProducing()
        self.assertFalse(self.channel.reading)


class BodyOfTests(SynchronousTestCase):
    def bodyOf(self, content: Any, method: bytes = b"PUT", **fields: bytes) -> Any:
        class Request:
            requestHeaders = Headers(
                {name.replace("_", "-"): [value] for name, value in fields.items()}
            )

        request: Any = Request()
        request.method = method
        request.content = content
        return bodyOf(request)

    def test_streamed(self) -> None:
        body = RequestBody(Channel(), 5)
        self.assertIs(self.bodyOf(body), body)

    def test_none(self) -> None:
        self.assertIsNone(self.bodyOf(BytesIO()))
        self.assertIsNone(self.bodyOf(BytesIO(), Content_Length=b"0"))

    def test_meaningless(self) -> None:
        """The body of a GET or HEAD is dropped as it is received."""
        for method in (b"GET", b"HEAD"):
            self.assertIsNone(self.bodyOf(BytesIO(b"12345"), method, Content_Length=b"5"))
            channel = Channel()
            body = RequestBody(channel, 5)
            self.assertIsNone(self.bodyOf(body, method))
            body.dataReceived(b"12345")
            self.assertTrue(channel.reading)

    def test_collected(self) -> None:
        """Under Twisted's site, a body has been collected in a file."""
        for fields in ({"Content_Length": b"5"}, {"Transfer_Encoding": b"chunked"}):
            body = self.bodyOf(BytesIO(b"12345"), **fields)
            self.assertIsInstance(body, FileBodyProducer)
            self.assertEqual(body.length, 5)


class UploadTests(MemoryCase):
    """
    Uploads through the whole mirror.
    """

    def begin(self, *fields: bytes) -> tuple[Line, Line]:
        client = self.connect()
        client.says(b"\r\n".join((b"PUT /v2/a HTTP/1.1", b"Host: a", *fields, b"", b"")))
        return client, self.network.lines[-1]

    def test_streamed(self) -> None:
        """The upstream is sent the head and each piece at once."""
        client, upstream = self.begin(b"Content-Length: 10", b"Content-Type: a/b")
        asked = self.asked()
        self.assertEqual(asked.values(b"Content-Length"), [b"10"])
        self.assertEqual(asked.values(b"Content-Type"), [b"a/b"])
        for piece in (b"12", b"345", b"67890"):
            client.says(piece)
            self.assertEqual(upstream.hears(), piece)
        upstream.says(answer(201))
        self.assertEqual(self.answered(client).status, 201)
        self.assertEqual((client.ended, upstream.ended), ("", ""))

    def test_chunked(self) -> None:
        """A body of unknown length is sent chunked."""
        client, upstream = self.begin(b"Transfer-Encoding: chunked")
        self.assertEqual(self.asked().values(b"Transfer-Encoding"), [b"chunked"])
        client.says(b"A;x\r\n1234567890\r\n")
        self.assertEqual(upstream.hears(), b"a\r\n1234567890\r\n")
        client.says(b"0\r\nX-Trailer: y\r\n\r\n")
        self.assertEqual(upstream.hears(), b"0\r\n\r\n")

    def test_form(self) -> None:
        """The form of a token request is sent byte for byte."""
        form = b"grant_type=password&scope=a%20b&scope=&&password=p%zz+;\xff"
        asked, _ = self.exchange(
            b"/token",
            answer(200),
            method=b"POST",
            fields=((b"Content-Type", b"application/x-www-form-urlencoded"),),
            body=form,
        )
        self.assertEqual(asked.body, form)
        self.assertEqual(asked.values(b"Content-Type"), [b"application/x-www-form-urlencoded"])

    def test_empty(self) -> None:
        """
        A push without a body is sent with C{Content-Length: 0}, which some registries require.
        """
        asked, _ = self.exchange(b"/v2/a/blobs/uploads/", answer(202), method=b"POST")
        self.assertEqual(asked.values(b"Content-Length"), [b"0"])
        asked, _ = self.exchange(b"/v2/a", answer(202), method=b"DELETE")
        self.assertEqual(asked.values(b"Content-Length"), [])

    def test_continue(self) -> None:
        """
        C{100 Continue} is sent only when the upstream consumes the body; C{Expect} is not passed
        on.
        """
        self.network.refuses.add(b"hub.example")
        client = self.connect()
        head = b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        client.says(head)
        self.assertEqual(self.answered(client).status, 502)
        self.network.refuses.clear()
        client = self.connect()
        client.says(head)
        self.assertEqual(self.asked().values(b"Expect"), [])
        self.assertEqual(client.hears(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.says(b"12345")
        self.assertEqual(self.network.lines[-1].hears(), b"12345")

    def test_slowUpstream(self) -> None:
        """An upstream that does not read pauses the client."""
        client, upstream = self.begin(b"Content-Length: 10")
        upstream.producer.pauseProducing()
        self.assertEqual(client.producerState, "paused")
        upstream.producer.resumeProducing()
        self.assertEqual(client.producerState, "producing")
        client.says(b"1234567890")
        upstream.says(answer(201))
        self.assertEqual(self.answered(client).status, 201)

    def test_earlyAnswer(self) -> None:
        """
        If the upstream responds before the end of the body, the client is sent the response, and
        the upstream no more of the body.
        """
        client, upstream = self.begin(b"Content-Length: 10")
        client.says(b"12345")
        upstream.says(answer(401, b"no"))
        got = self.answered(client)
        self.assertEqual((got.status, got.body), (401, b"no"))
        self.assertEqual(upstream.ended, "aborted")
        client.says(b"67890")
        self.assertEqual(client.ended, "")
        self.send(b"/v1/_ping", line=client)
        self.assertEqual(self.answered(client).body, b"true")
        self.assertEqual([exchange.outcome for exchange in self.exchanges], [Outcome.COMPLETE] * 2)

    def test_upstreamBreaks(self) -> None:
        client, upstream = self.begin(b"Content-Length: 10")
        client.says(b"12345")
        upstream.leaves()
        self.assertEqual(self.answered(client).status, 502)

    def test_malformedChunk(self) -> None:
        """After a malformed chunk, the upstream must not take the part for the whole body."""
        client, upstream = self.begin(b"Transfer-Encoding: chunked")
        client.says(b"5\r\n12345\r\nxyz\r\n")
        self.assertEqual(self.answered(client).status, 400)
        self.assertFalse(upstream.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(upstream.ended, "aborted")
        self.assertEqual(len(self.exchanges), 1)
