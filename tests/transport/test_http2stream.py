"""
Tests of one request and its response over HTTP/2.
"""

from typing import Any

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.downstream.upload import RequestBody
from hubmirror.protocol.errors import BodyFailed
from tests.transport.http2client import REQUEST, Client, HTTP2Case, Producer

KiB = 1024


@implementer(IConsumer)
class Upstream:
    """
    A consumer of a request body.
    """

    def __init__(self) -> None:
        self.body = b""
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.body += data


class RequestTests(HTTP2Case):
    def test_request(self) -> None:
        """A resource gets the same as with HTTP/1.1."""
        fields = [(b"accept", b"a"), (b"accept", b"b"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
        _, request = self.request(b"GET", b"/v2/a%2fb/tags/list?n=1&", fields=fields)
        self.assertEqual(request.method, b"GET")
        self.assertEqual(request.uri, b"/v2/a%2fb/tags/list?n=1&")
        self.assertEqual(request.clientproto, b"HTTP/2")
        self.assertEqual(request.args, {b"n": [b"1"]})
        self.assertEqual(request.content.read(), b"")
        headers = request.requestHeaders
        self.assertEqual(headers.getRawHeaders(b"Host"), [b"mirror.example:8443"])
        self.assertEqual(headers.getRawHeaders(b"Accept"), [b"a", b"b"])
        self.assertEqual(headers.getRawHeaders(b"Cookie"), [b"a=1; b=2"])
        self.assertEqual(request.getCookie(b"b"), b"2")
        self.assertTrue(request.isSecure())
        self.assertEqual(request.getClientAddress(), self.client.transport.getPeer())
        self.assertEqual(request.getHost(), self.client.transport.getHost())

    def test_hostOnly(self) -> None:
        """A client may send Host instead of C{:authority}, or both."""
        control = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/")]
        self.client.askRaw([*control, (b"host", b"old")])
        self.client.askRaw([*control, (b":authority", b"new"), (b"host", b"new")])
        hosts = [request.requestHeaders.getRawHeaders(b"Host") for request in self.requests]
        self.assertEqual(hosts, [[b"old"], [b"new"]])

    def test_star(self) -> None:
        """C{*} is a target for the server as a whole, and a request like others."""
        self.client.ask(b"OPTIONS", b"*")
        self.assertEqual(self.requests[-1].uri, b"*")

    def test_connect(self) -> None:
        """CONNECT has only an authority; the resource refuses it."""
        self.client.askRaw([(b":method", b"CONNECT"), (b":authority", b"a:443")], ended=False)
        self.assertEqual(self.requests[0].method, b"CONNECT")
        self.assertEqual(self.requests[0].uri, b"a:443")

    def test_answer(self) -> None:
        """Fields of HTTP/1.1 only are removed from the response."""
        stream, request = self.request()
        request.setResponseCode(206, b"Partial")
        for name, value in [
            (b"Content-Length", b"6"),
            (b"X-Two", b"lines\r\nof text"),
            (b"Connection", b"close"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Transfer-Encoding", b"identity"),
            (b"Upgrade", b"h2c"),
        ]:
            request.setHeader(name, value)
        request.write(b"foo")
        request.channel.writeSequence([b"b", b"ar"])
        request.finish()
        self.client.exchange()
        answer = self.client.answers[stream]
        (head,) = answer.heads
        self.assertEqual(head[b":status"], b"206")
        self.assertEqual(head[b"content-length"], b"6")
        self.assertEqual(head[b"x-two"], b"lines of text")
        unwanted = {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
        self.assertEqual(unwanted & set(head), set())
        self.assertEqual(answer.body, b"foobar")
        self.assertTrue(answer.ended)
        self.assertEqual(self.resource.ended, [None])

    def test_headFirst(self) -> None:
        """The head is sent before the body is available."""
        stream, request = self.request()
        request.write(b"")
        self.client.exchange()
        self.assertEqual(self.client.answers[stream].status, b"200")

    def test_nothing(self) -> None:
        stream, request = self.request()
        request.finish()
        self.client.exchange()
        self.assertEqual(self.client.answers[stream].body, b"")
        self.assertTrue(self.client.answers[stream].ended)

    def test_withoutBody(self) -> None:
        """If no body can follow, the head ends the stream."""
        for method, code in [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)]:
            stream, request = self.request(method)
            request.setResponseCode(code)
            request.setHeader(b"Content-Length", b"5")
            request.write(b"12345")
            self.client.exchange()
            self.assertTrue(self.client.answers[stream].ended)
            self.assertEqual(self.client.answers[stream].frames, [])
            request.finish()

    def test_several(self) -> None:
        """Responses may be sent in any order."""
        first, one = self.request()
        second, two = self.request()
        two.write(b"two")
        two.finish()
        self.client.exchange()
        self.assertTrue(self.client.answers[second].ended)
        one.write(b"one")
        one.finish()
        self.client.exchange()
        self.assertEqual(self.client.answers[first].body, b"one")
        self.assertEqual(self.client.answers[second].body, b"two")


class ProducerTests(HTTP2Case):
    def setUp(self) -> None:
        super().setUp()
        self.client = Client(self.site, wide=False)
        self.stream, self.inner = self.request()

    def test_paused(self) -> None:
        """A producer is paused when bytes wait for a window, and resumed when all are sent."""
        producer = Producer()
        self.inner.registerProducer(producer, True)
        self.inner.write(bytes(65535))
        self.assertEqual(producer.told, [])
        self.inner.write(b"1")
        self.assertEqual(producer.told, ["pause"])
        self.inner.write(b"2")
        self.client.h2.increment_flow_control_window(2**20)
        self.client.h2.increment_flow_control_window(1, self.stream)
        self.client.exchange()
        self.assertEqual(producer.told, ["pause"])
        self.client.h2.increment_flow_control_window(1, self.stream)
        self.client.exchange()
        self.assertEqual(producer.told, ["pause", "resume"])

    def test_full(self) -> None:
        """All producers are paused when the transport is full, before they write anything."""
        producer = Producer()
        self.inner.registerProducer(producer, True)
        self.client.full(True)
        self.assertEqual(producer.told, ["pause"])
        self.client.full(False)
        self.assertEqual(producer.told, ["pause", "resume"])
        self.inner.write(bytes(65536))
        self.client.full(True)
        self.client.full(False)
        self.assertEqual(producer.told, ["pause", "resume", "pause"])

    def test_late(self) -> None:
        """A producer that is registered while bytes wait is paused at once."""
        self.inner.write(bytes(200_000))
        producer = Producer()
        self.inner.registerProducer(producer, True)
        self.assertEqual(producer.told, ["pause"])

    def test_unregistered(self) -> None:
        producer = Producer()
        self.inner.registerProducer(producer, True)
        self.inner.unregisterProducer()
        self.inner.write(bytes(200_000))
        self.client.resetStream(self.stream)
        self.assertEqual(producer.told, [])

    def test_pull(self) -> None:
        """A pull producer, such as that of C{static.File}, is asked for each piece."""
        request = self.inner

        class Pulled(Producer):
            left = 5000

            def resumeProducing(self) -> None:
                if self.left:
                    self.left -= 1
                    request.write(bytes(200))
                else:
                    request.unregisterProducer()
                    request.finish()

        producer = Pulled()
        request.registerProducer(producer, False)
        self.assertEqual(producer.left, 5000 - 328)
        self.client.h2.increment_flow_control_window(2**20)
        self.client.h2.increment_flow_control_window(2**20, self.stream)
        self.client.exchange()
        self.assertEqual(len(self.client.answers[self.stream].body), 1_000_000)
        self.assertTrue(self.client.answers[self.stream].ended)


class UploadTests(HTTP2Case):
    def upload(self, *fields: tuple[bytes, bytes]) -> tuple[int, Any, Upstream]:
        """
        Begin a request with a body that is consumed.
        """
        stream, request = self.request(b"PUT", fields=list(fields), ended=False)
        upstream = Upstream()
        self.done = request.content.startProducing(upstream)
        self.client.exchange()
        return stream, request, upstream

    def test_streamed(self) -> None:
        """A body is received while it is sent."""
        for fields, length in [([], None), ([(b"content-length", b"8")], 8)]:
            stream, request, upstream = self.upload(*fields)
            self.assertIsInstance(request.content, RequestBody)
            if length:
                self.assertEqual(request.content.length, length)
            self.client.sendBody(stream, b"1234")
            self.assertEqual(upstream.body, b"1234")
            self.assertNoResult(self.done)
            self.client.sendBody(stream, b"5678", ended=True)
            self.assertEqual(upstream.body, b"12345678")
            self.successResultOf(self.done)

    def test_endsWithTrailers(self) -> None:
        stream, _, upstream = self.upload()
        self.client.sendBody(stream, b"1234")
        self.client.h2.send_headers(stream, [(b"x-sum", b"1")], end_stream=True)
        self.client.exchange()
        self.assertEqual(upstream.body, b"1234")
        self.successResultOf(self.done)

    def test_emptyBody(self) -> None:
        """An end without data is an empty body, in any form."""
        stream, request = self.request(b"PUT", fields=[(b"content-length", b"0")], ended=False)
        self.client.sendBody(stream, b"", ended=True)
        self.assertEqual(request.content.read(), b"")
        request.finish()
        self.client.exchange()
        self.assertTrue(self.client.answers[stream].ended)
        self.assertIsNone(self.client.answers[stream].reset)

    def test_large(self) -> None:
        """Windows open again when a body is consumed."""
        stream, _, upstream = self.upload()
        body = bytes(range(256)) * 16 * KiB
        self.assertEqual(self.client.sendBody(stream, body, ended=True), len(body))
        self.assertEqual(upstream.body, body)

    def test_padding(self) -> None:
        """Padding counts for the windows, too."""
        stream, _, upstream = self.upload()
        for _ in range(10_000):
            self.client.h2.send_data(stream, b"1", pad_length=255)
            self.client.exchange()
        self.assertEqual(len(upstream.body), 10_000)

    def test_notWanted(self) -> None:
        """A body that is not consumed is held back when its window is full."""
        stream, request = self.request(b"PUT", ended=False)
        self.assertEqual(self.client.sendBody(stream, bytes(2**20)), 64 * KiB)
        self.assertEqual(request.content.received, 64 * KiB)
        other, _, upstream = self.upload()
        self.assertEqual(self.client.sendBody(other, bytes(2**20)), 2**20)
        self.assertEqual(len(upstream.body), 2**20)

    def test_paused(self) -> None:
        stream, _, upstream = self.upload()
        upstream.producer.pauseProducing()
        self.assertEqual(self.client.sendBody(stream, bytes(2**20)), 256 * KiB)
        upstream.producer.resumeProducing()
        self.client.exchange()
        self.assertEqual(self.client.sendBody(stream, bytes(2**20)), 2**20)

    def test_windowOfTheConnection(self) -> None:
        """When a stream ends, the window that its unread body took returns to the connection."""
        ends = [
            lambda stream, request: self.client.resetStream(stream),
            lambda stream, request: request.finish(),
            lambda stream, request: request.channel.abortConnection(),
            lambda stream, request: (
                self.client.sendBody(stream, b"", ended=True),
                request.write(b"answer"),
            ),
        ]
        for end in ends:
            for _ in range(4):
                stream, request = self.request(b"PUT", ended=False)
                self.client.sendBody(stream, bytes(256 * KiB))
                end(stream, request)
                self.clock.advance(0)
                self.client.exchange()
        other, _, upstream = self.upload()
        self.client.sendBody(other, bytes(2**20))
        self.assertEqual(len(upstream.body), 2**20)

    def test_continue(self) -> None:
        """A client that waits is asked to continue once, when its body is consumed."""
        expect = (b"expect", b"100-continue")
        stream, request = self.request(b"PUT", fields=[expect], ended=False)
        answer = self.client.answers[stream]
        self.assertEqual(answer.heads, [])
        request.content.startProducing(Upstream())
        self.client.exchange()
        self.assertEqual(answer.status, b"100")
        request.channel.resumeBody()
        request.write(b"")
        self.client.exchange()
        self.assertEqual([head[b":status"] for head in answer.heads], [b"100", b"200"])

    def test_continueUnwanted(self) -> None:
        expect = (b"expect", b"100-continue")
        stream, request = self.request(b"PUT", fields=[expect], ended=False)
        request.setResponseCode(401)
        request.write(b"")
        request.content.startProducing(Upstream())
        self.client.exchange()
        self.assertEqual(len(self.client.answers[stream].heads), 1)

    def test_earlyAnswer(self) -> None:
        """
        After the response, the body is discarded, and the stream is reset if the client goes on
        sending.
        """
        stream, request = self.request(b"PUT", ended=False)
        request.setResponseCode(401)
        request.write(b"no")
        request.finish()
        self.client.exchange()
        answer = self.client.answers[stream]
        self.assertEqual((answer.status, answer.body, answer.ended), (b"401", b"no", True))
        self.assertEqual(self.client.sendBody(stream, bytes(2**21)), 2**21)
        self.assertIsNone(answer.reset)
        self.clock.advance(1)
        self.client.exchange()
        self.assertEqual(answer.reset, ErrorCodes.NO_ERROR)

    def test_earlyAnswerThenEnd(self) -> None:
        """The stream of a client that ends its body itself is not reset."""
        stream, request = self.request(b"PUT", ended=False)
        request.finish()
        self.client.exchange()
        self.client.sendBody(stream, b"rest", ended=True)
        self.clock.advance(10)
        self.client.exchange()
        self.assertIsNone(self.client.answers[stream].reset)
        self.client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_earlyAnswerThenLeave(self) -> None:
        _, request = self.request(b"PUT", ended=False)
        request.finish()
        self.client.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_wrongLength(self) -> None:
        """A body whose length differs from Content-Length is an error."""
        stream, _, _ = self.upload((b"content-length", b"8"))
        self.client.sendBody(stream, b"1234", ended=True)
        self.assertClosed(ErrorCodes.PROTOCOL_ERROR)
        self.failureResultOf(self.done, BodyFailed)


class ResetTests(HTTP2Case):
    def test_byClient(self) -> None:
        """The producer is stopped at once, and C{notifyFinish} fails."""
        stream, request = self.request(b"PUT", ended=False)
        other, second = self.request()
        done = request.content.startProducing(Upstream())
        producer = Producer()
        request.registerProducer(producer, True)
        self.client.resetStream(stream)
        self.assertEqual(producer.told, ["stop"])
        (reason,) = self.resource.ended
        assert isinstance(reason, Failure)
        reason.trap(ConnectionDone)
        self.failureResultOf(done, BodyFailed)
        second.write(b"alive")
        second.finish()
        self.client.exchange()
        self.assertEqual(self.client.answers[other].body, b"alive")

    def test_byClientAtOnce(self) -> None:
        """If a reset arrives together with the end of a body, the reset counts."""
        stream, request = self.request(b"PUT", ended=False)
        upstream = Upstream()
        upstream.write = request.write
        request.content.startProducing(upstream).addErrback(lambda _: None)
        self.client.h2.send_data(stream, b"body", end_stream=True)
        self.client.h2.reset_stream(stream)
        self.client.exchange()
        self.assertEqual(len(self.resource.ended), 1)
        self.assertEqual(self.client.answers[stream].heads, [])

    def test_byClientBeforeItBegan(self) -> None:
        """The data of a request that is not created does not reduce the connection's window."""
        h2 = self.client.h2
        for _ in range(80):
            stream = h2.get_next_available_stream_id()
            h2.send_headers(stream, REQUEST)
            h2.send_data(stream, bytes(16 * KiB))
            h2.reset_stream(stream)
            self.client.exchange()
        self.assertEqual(self.requests, [])
        other = self.client.ask(ended=False)
        self.assertGreater(h2.local_flow_control_window(other), 0)

    def test_byClientWhileQueued(self) -> None:
        """Data that was queued for a stream that was reset does not block others."""
        self.client = Client(self.site, wide=False)
        stream, request = self.request()
        request.write(bytes(200_000))
        request.finish()
        full, another = self.request()
        self.client.h2.increment_flow_control_window(2**20)
        self.client.full(True)
        another.write(bytes(60_000))
        self.client.resetStream(stream)
        self.client.resetStream(full)
        self.client.full(False)
        other, second = self.request()
        second.write(b"alive")
        self.client.exchange()
        self.assertEqual(self.client.answers[other].body, b"alive")

    def test_byServer(self) -> None:
        """A response that is aborted looks incomplete to the client, and other streams go on."""
        stream, request = self.request()
        other, second = self.request()
        request.write(b"half")
        self.client.full(True)
        request.write(b"lost")
        request.channel.abortConnection()
        request.write(b"too late")
        self.client.full(False)
        self.assertEqual(self.resource.ended, [])
        self.clock.advance(0)
        (reason,) = self.resource.ended
        assert isinstance(reason, Failure)
        reason.trap(ConnectionAborted)
        second.write(b"whole")
        second.finish()
        self.client.exchange()
        answer = self.client.answers[stream]
        self.assertEqual(answer.body, b"half")
        self.assertEqual(answer.reset, ErrorCodes.INTERNAL_ERROR)
        self.assertFalse(answer.ended)
        self.assertEqual(self.client.answers[other].body, b"whole")

    def test_byServerBeforeHead(self) -> None:
        stream, request = self.request()
        request.loseConnection()
        request.write(b"too late")
        self.client.exchange()
        self.assertEqual(self.client.answers[stream].heads, [])
        self.assertEqual(self.client.answers[stream].reset, ErrorCodes.INTERNAL_ERROR)

    def test_byServerThenClosed(self) -> None:
        """If the connection is lost after that, the request is not notified again."""
        _, request = self.request()
        request.channel.abortConnection()
        self.client.leave()
        self.clock.advance(0)
        self.assertEqual(len(self.resource.ended), 1)

    def test_afterTheEnd(self) -> None:
        """h2 may know of the client's end before the stream does."""
        h2 = self.client.h2
        stream = h2.get_next_available_stream_id()
        self.resource.render = lambda request: (
            request.write(b""),
            request.channel.abortConnection(),
            1,
        )[-1]
        h2.send_headers(stream, [(b":method", b"HEAD"), *REQUEST[1:]])
        h2.send_data(stream, b"body", end_stream=True)
        self.client.exchange()
        self.clock.advance(0)
        self.assertFalse(self.client.transport.disconnecting)
        self.assertTrue(self.client.answers[stream].ended)
