"""
Tests of HTTP/1.1 towards upstreams: the requests, the responses, and the reuse of connections.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer

from hubmirror.protocol.errors import (
    BodyFailed,
    ConnectFailed,
    HeadFailed,
    HeadTimedOut,
    StaleConnection,
)
from hubmirror.transport.http1client import RESPONSE_TIMEOUT, UpstreamConnection, UpstreamResponse
from tests.transport.support import HERE, THERE, Body, Receiver
from tests.wire.support import Line

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

#: Targets that other clients re-encode, shorten or refuse.
TARGETS = [
    b"/",
    b"/v2/library/debian/blobs/sha256:ab",
    b"/v2/library/debian/blobs/sha256%3Aab",
    b"/v2//x/./y/../z",
    b"/%2F%2f%zz%",
    b"/?",
    b"/;?;",
    b"/a?b=c&&d=%20+&=#e#",
    b"/?Expires=1&Signature=Ab~c-d_%2B%2f==&Key-Pair-Id=K",
    b"//double",
    b"/\"<>\\^`{|}'()*!$,[]@:",
    b"*",
]

#: A response to GET, and whether its connection is reused.
REUSE = [
    (OK + b"hello", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", True),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: y\r\n\r\n", True),
    (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", False),
    (b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\nx", False),
    (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", False),
    # Bytes after the response, which would be taken for the next one.
    (OK + b"hello!", False),
    (OK + b"hello" + OK, False),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", False),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", False),
]

BAD_HEADS = [
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 200 " + b"x" * 20_000,
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 600 + b"\r\n",
]


class ClientCase(SynchronousTestCase):
    """
    Tests of a client's connection.

    @ivar released: how often the connection was given back.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.open()

    def open(self, secure: bool = False) -> None:
        self.released = 0
        self.connection = UpstreamConnection(self.clock, secure, self.release)
        self.line = Line(self.clock, self.connection, HERE, THERE)
        self.connection.makeConnection(self.line)

    def release(self, connection: UpstreamConnection) -> None:
        self.assertIs(connection, self.connection)
        self.released += 1

    def send(
        self,
        method: bytes = b"GET",
        target: bytes = b"/",
        headers: Headers | None = None,
        body: IBodyProducer | None = None,
    ) -> Deferred[UpstreamResponse]:
        return self.connection.send(method, target, b"a.example", headers or Headers(), body)

    def answer(self, data: bytes, method: bytes = b"GET") -> UpstreamResponse:
        """Send a request, and its response."""
        asked = self.send(method)
        self.line.says(data)
        return self.successResultOf(asked)

    def lost(self, reason: Exception) -> None:
        self.connection.connectionLost(Failure(reason))

    def read(self, response: UpstreamResponse) -> Receiver:
        receiver = Receiver()
        response.deliverBody(receiver)
        return receiver

    def assertWhole(self, receiver: Receiver, body: bytes) -> None:
        self.assertEqual(receiver.body, body)
        self.assertIsInstance(receiver.reason, ResponseDone)


class RequestTests(ClientCase):
    def test_targets(self) -> None:
        for target in TARGETS:
            self.open()
            self.send(target=target)
            expected = b"GET %b HTTP/1.1\r\nHost: a.example\r\n\r\n" % target
            self.assertEqual(self.line.hears(), expected)

    def test_fields(self) -> None:
        headers = Headers({b"Accept": [b"a, b", b"c"], b"X-Empty": [b""], b"X": [b"\xe4\xff"]})
        self.send(headers=headers)
        self.assertEqual(
            self.line.hears(),
            b"GET / HTTP/1.1\r\nHost: a.example\r\n"
            b"Accept: a, b\r\nAccept: c\r\nX-Empty: \r\nX: \xe4\xff\r\n\r\n",
        )

    def test_framing(self) -> None:
        for method, body, field in (
            (b"GET", None, b""),
            (b"HEAD", None, b""),
            (b"DELETE", None, b""),
            (b"POST", None, b"Content-Length: 0\r\n"),
            (b"PUT", None, b"Content-Length: 0\r\n"),
            (b"PATCH", None, b"Content-Length: 0\r\n"),
            (b"PUT", Body(0), b"Content-Length: 0\r\n"),
            (b"PATCH", Body(2**40), b"Content-Length: 1099511627776\r\n"),
            (b"DELETE", Body(3), b"Content-Length: 3\r\n"),
            (b"PATCH", Body(None), b"Transfer-Encoding: chunked\r\n"),
        ):
            self.open()
            self.send(method, body=body)
            expected = b"%b / HTTP/1.1\r\nHost: a.example\r\n%b\r\n" % (method, field)
            self.assertEqual(self.line.hears(), expected)


class HeadTests(ClientCase):
    def test_kept(self) -> None:
        """Nothing of a head is hidden or changed."""
        response = self.answer(
            b"HTTP/1.0 203 Was \xfcbersetzt\r\nContent-Length: 5\r\nConnection: x, y\r\n"
            b"X: 1\r\nContent-Encoding: \r\nx: 2\r\n\r\n"
        )
        self.assertEqual(response.version, (b"HTTP", 1, 0))
        self.assertEqual((response.code, response.phrase), (203, b"Was \xfcbersetzt"))
        self.assertEqual(response.length, 5)
        self.assertEqual(
            dict(response.headers.getAllRawHeaders()),
            {
                b"Content-Length": [b"5"],
                b"Connection": [b"x, y"],
                b"X": [b"1", b"2"],
                b"Content-Encoding": [b""],
            },
        )

    def test_unknownLength(self) -> None:
        response = self.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertIs(response.length, UNKNOWN_LENGTH)

    def test_noBody(self) -> None:
        """The fields of a response without a body keep their length."""
        for method, status in ((b"HEAD", b"200"), (b"HEAD", b"404"), (b"GET", b"304")):
            self.open()
            response = self.answer(
                b"HTTP/1.1 %b X\r\nContent-Length: 1099511627776\r\n\r\n" % status, method
            )
            self.assertEqual(response.headers.getRawHeaders(b"Content-Length"), [b"1099511627776"])
            self.assertEqual(response.length, 0)
            self.assertWhole(self.read(response), b"")

    def test_interim(self) -> None:
        response = self.answer(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK
        )
        self.assertEqual(response.code, 200)
        self.assertFalse(response.headers.hasHeader(b"Link"))

    def test_bad(self) -> None:
        for head in BAD_HEADS:
            self.open()
            asked = self.send()
            self.line.says(head)
            self.failureResultOf(asked, HeadFailed)
            self.assertEqual(self.line.ended, "aborted", head[:60])


class BodyTests(ClientCase):
    def test_length(self) -> None:
        receiver = self.read(self.answer(OK + b"he"))
        self.assertEqual(receiver.body, b"he")
        self.line.says(b"llo")
        self.assertWhole(receiver, b"hello")

    def test_chunked(self) -> None:
        receiver = self.read(self.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
        self.line.says(b"5\r\nhello\r\n")
        self.assertEqual(receiver.body, b"hello")
        self.line.says(b"1;x\r\n!\r\n0\r\n\r\n")
        self.assertWhole(receiver, b"hello!")

    def test_untilClose(self) -> None:
        receiver = self.read(self.answer(b"HTTP/1.1 200 OK\r\n\r\nhel"))
        self.line.says(b"lo")
        self.line.leaves()
        self.clock.advance(0)
        self.assertWhole(receiver, b"hello")
        self.assertEqual(self.released, 0)

    def test_early(self) -> None:
        """A body that arrives before it is read is kept."""
        response = self.answer(OK + b"hello")
        self.assertWhole(self.read(response), b"hello")

    def test_broken(self) -> None:
        for head, reason in (
            (OK, ConnectionDone()),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n", ConnectionDone()),
            # An end of the connection that was not a proper one.
            (b"HTTP/1.1 200 OK\r\n\r\n", ConnectionLost()),
        ):
            self.open()
            receiver = self.read(self.answer(head + b"hel"))
            self.lost(reason)
            self.assertEqual(receiver.body, b"hel")
            self.assertIsInstance(receiver.reason, BodyFailed)

    def test_tooLong(self) -> None:
        """A response that is longer than its length is not passed on as complete."""
        receiver = self.read(self.answer(OK + b"hel"))
        self.line.says(b"lo!")
        self.assertIsInstance(receiver.reason, BodyFailed)
        self.assertEqual(self.line.ended, "aborted")

    def test_brokenUnread(self) -> None:
        """An error before the body is read is reported when it is read."""
        response = self.answer(OK + b"hel")
        self.lost(ConnectionDone())
        receiver = self.read(response)
        self.assertEqual(receiver.body, b"hel")
        self.assertIsInstance(receiver.reason, BodyFailed)

    def test_malformed(self) -> None:
        """Malformed chunks, after the head or together with it."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for first, second in ((head, b"x\r\n"), (head + b"1\r\na\r\nx\r\n", b"")):
            self.open()
            receiver = self.read(self.answer(first))
            if second:
                self.line.says(second)
            self.assertIsInstance(receiver.reason, BodyFailed)
            self.assertEqual(self.line.ended, "aborted")

    @given(st.data())
    def test_anySplit(self, data: st.DataObject) -> None:
        """The result of two responses does not depend on how their bytes are split."""
        self.open()
        first = (
            b"HTTP/1.1 103 Early Hints\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n"
        )
        for wire, body in ((first, b"abc"), (OK + b"hello", b"hello")):
            receiver = Receiver()
            self.send().addCallback(lambda response, to=receiver: response.deliverBody(to))
            while wire:
                size = data.draw(st.integers(1, len(wire)))
                self.line.says(wire[:size])
                wire = wire[size:]
            self.assertWhole(receiver, body)
        self.assertEqual(self.released, 2)


class PauseTests(ClientCase):
    def assertReading(self, reading: bool) -> None:
        self.assertEqual(self.line.producerState, "producing" if reading else "paused")

    def test_nobodyReads(self) -> None:
        response = self.answer(OK + b"h")
        self.assertReading(False)
        self.read(response)
        self.assertReading(True)

    def test_takenAtOnce(self) -> None:
        """A body that is read at once causes no pause and no resume."""
        calls: list[str] = []
        self.patch(self.line, "pauseProducing", lambda: calls.append("pause"))
        asked = self.send()
        asked.addCallback(self.read)
        self.line.says(OK)
        self.assertEqual(calls, [])

    def test_inConnectionMade(self) -> None:
        receiver = Receiver(made=lambda transport: transport.pauseProducing())
        self.answer(OK).deliverBody(receiver)
        self.assertReading(False)
        receiver.transport.resumeProducing()  # type: ignore[union-attr]
        self.assertReading(True)

    def test_inDataReceived(self) -> None:
        """
        A pause in C{dataReceived} takes effect, even for data that arrived before the body was
        read.
        """
        receiver = Receiver(received=lambda transport: transport.pauseProducing())
        self.answer(OK + b"he").deliverBody(receiver)
        self.assertEqual(receiver.body, b"he")
        self.assertReading(False)

    def test_atOnceAndInDataReceived(self) -> None:
        receiver = Receiver(received=lambda transport: transport.pauseProducing())
        self.send().addCallback(lambda response: response.deliverBody(receiver))
        self.line.says(OK + b"he")
        self.assertReading(False)

    def test_whileItFlows(self) -> None:
        response = self.answer(OK)
        receiver = self.read(response)
        response.pauseProducing()
        self.assertReading(False)
        response.resumeProducing()
        self.assertReading(True)
        self.line.says(b"hello")
        self.assertWhole(receiver, b"hello")

    def test_endsWhilePaused(self) -> None:
        """
        A connection that is kept is read from even if its last body was paused, so that its end is
        noticed.
        """
        for early, late in ((b"", b"hello"), (b"hello", b"")):
            receiver = Receiver(made=lambda transport: transport.pauseProducing())
            self.answer(OK + early).deliverBody(receiver)
            if late:
                self.line.says(late)
            self.assertWhole(receiver, b"hello")
            self.assertReading(True)
        self.assertEqual(self.released, 2)

    def test_afterTheEnd(self) -> None:
        """After a body has ended, its transport has no effect on the next response."""
        old = self.answer(OK + b"hello")
        self.read(old)
        new = self.answer(OK)
        self.read(new)
        old.pauseProducing()
        self.assertReading(True)
        new.pauseProducing()
        old.resumeProducing()
        self.assertReading(False)
        old.stopProducing()
        self.assertEqual(self.line.ended, "")

    def test_afterTheLoss(self) -> None:
        """A connection that was lost is not used any more."""
        response = self.answer(OK)
        self.lost(ConnectionDone())
        for name in ("pauseProducing", "resumeProducing", "abortConnection"):
            self.patch(self.line, name, None)
        for ask in (
            response.pauseProducing,
            response.resumeProducing,
            response.stopProducing,
            self.connection.pauseBody,
            self.connection.resumeBody,
            self.connection.abort,
        ):
            ask()

    def test_stop(self) -> None:
        response = self.answer(OK + b"he")
        receiver = self.read(response)
        response.stopProducing()
        self.assertEqual(self.line.ended, "aborted")
        self.clock.advance(0)
        self.assertIsInstance(receiver.reason, BodyFailed)

    def test_stopAtTheLastByte(self) -> None:
        """A connection that is aborted at the last byte is not given back."""
        receiver = Receiver(received=lambda transport: transport.loseConnection())
        self.send().addCallback(lambda response: response.deliverBody(receiver))
        self.line.says(OK)
        self.line.says(b"hello")
        self.assertEqual((self.line.ended, self.released), ("aborted", 0))


class ReuseTests(ClientCase):
    def test_table(self) -> None:
        for answer, reused in REUSE:
            self.open()
            self.read(self.answer(answer))
            self.assertEqual(self.released, reused, answer)
            self.assertEqual(self.line.ended, "" if reused else "aborted", answer)
            self.assertEqual(self.connection.reused, reused)

    def test_notBeforeTheEnd(self) -> None:
        self.read(self.answer(OK + b"hell"))
        self.assertEqual(self.released, 0)
        self.line.says(b"o")
        self.assertEqual(self.released, 1)

    def test_head(self) -> None:
        """A response to HEAD that has a body ends the connection."""
        self.answer(OK + b"hello", b"HEAD")
        self.assertEqual((self.released, self.line.ended), (0, "aborted"))

    def test_unasked(self) -> None:
        """Unrequested data, before the first request or after a response, ends the connection."""
        self.line.says(b"220 hello\r\n")
        self.assertEqual(self.line.ended, "aborted")
        self.open()
        self.answer(OK + b"hello")
        self.line.says(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertEqual(self.line.ended, "aborted")

    def test_stale(self) -> None:
        self.answer(OK + b"hello")
        asked = self.send()
        self.line.leaves()
        self.clock.advance(0)
        self.failureResultOf(asked, StaleConnection)

    def test_notStale(self) -> None:
        """
        If the connection is new, or a byte was received, it is not known whether the request may be
        repeated.
        """
        for kept, data in ((False, b""), (False, b"HTTP"), (True, b"HTTP")):
            self.open()
            if kept:
                self.answer(OK + b"hello")
            asked = self.send()
            self.line.says(data)
            self.line.leaves()
            self.clock.advance(0)
            error = self.failureResultOf(asked, HeadFailed).value
            self.assertNotIsInstance(error, StaleConnection)


class UploadTests(ClientCase):
    def upload(self, length: int | None) -> tuple[Body, Deferred[UpstreamResponse]]:
        body = Body(length)
        asked = self.send(b"PUT", body=body)
        self.line.hears()
        return body, asked

    def test_length(self) -> None:
        body, asked = self.upload(5)
        body.consumer.write(b"he")
        body.consumer.write(b"llo")
        body.finished.callback(None)
        self.assertEqual(self.line.hears(), b"hello")
        self.line.says(OK + b"hello")
        self.assertEqual(self.successResultOf(asked).code, 200)
        self.assertEqual(self.released, 1)

    def test_chunked(self) -> None:
        """An empty write sends no chunk, because that would end the body."""
        body, _ = self.upload(None)
        for data in (b"hello", b"", b"x" * 16):
            body.consumer.write(data)
        body.finished.callback(None)
        self.assertEqual(self.line.hears(), b"5\r\nhello\r\n10\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n")

    def test_producer(self) -> None:
        """The transport pauses the producer of the body."""
        body, _ = self.upload(5)
        producer = StringTransport()
        body.consumer.registerProducer(producer, True)
        self.assertTrue(self.line.streaming)
        self.line.producer.pauseProducing()
        self.assertEqual(producer.producerState, "paused")
        self.line.producer.resumeProducing()
        self.assertEqual(producer.producerState, "producing")
        self.line.producer.pauseProducing()
        body.consumer.unregisterProducer()
        self.assertIsNone(self.line.producer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stalled(self) -> None:
        """The request fails when the upstream accepts nothing of its body for too long."""
        body, asked = self.upload(5)
        body.consumer.registerProducer(StringTransport(), True)
        for _ in range(3):
            self.line.producer.pauseProducing()
            self.clock.advance(RESPONSE_TIMEOUT - 1)
            self.line.producer.resumeProducing()
        self.assertNoResult(asked)
        self.line.producer.pauseProducing()
        self.clock.advance(RESPONSE_TIMEOUT)
        self.failureResultOf(asked, HeadTimedOut)
        self.assertEqual(self.line.ended, "aborted")

    def assertFails(self, asked: Deferred[UpstreamResponse]) -> None:
        self.assertEqual(self.line.ended, "aborted")
        self.clock.advance(0)
        self.failureResultOf(asked, HeadFailed)

    def test_tooShort(self) -> None:
        body, asked = self.upload(5)
        body.consumer.write(b"hell")
        body.finished.callback(None)
        self.assertFails(asked)

    def test_tooLong(self) -> None:
        body, asked = self.upload(5)
        self.assertRaises(BodyFailed, body.consumer.write, b"hello!")
        self.assertEqual(self.line.hears(), b"")
        body.finished.errback(BodyFailed("too long"))
        self.assertFails(asked)

    def test_fails(self) -> None:
        body, asked = self.upload(None)
        body.consumer.write(b"hello")
        body.finished.errback(BodyFailed("the client left"))
        self.assertEqual(self.line.hears(), b"5\r\nhello\r\n")
        self.assertFails(asked)

    def test_lost(self) -> None:
        body, asked = self.upload(5)
        self.lost(ConnectionDone())
        self.assertTrue(body.stopped)
        self.failureResultOf(asked, HeadFailed)

    def test_earlyAnswer(self) -> None:
        """
        If a response is complete before the request body, the rest of that is not sent, and the
        connection is not kept, because the upstream would wait for the rest.
        """
        body, asked = self.upload(5)
        self.line.says(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        self.assertWhole(self.read(self.successResultOf(asked)), b"no")
        self.assertTrue(body.stopped)
        self.assertEqual((self.released, self.line.ended), (0, "aborted"))

    def test_earlyHead(self) -> None:
        """If a response only begins before the end of the request body, the body goes on."""
        body, asked = self.upload(5)
        self.line.says(OK)
        receiver = self.read(self.successResultOf(asked))
        body.consumer.write(b"hello")
        body.finished.callback(None)
        self.line.says(b"hello")
        self.assertWhole(receiver, b"hello")
        self.assertEqual((body.stopped, self.released), (False, 1))


class TimeTests(ClientCase):
    def assertTimesOut(self, asked: Deferred[UpstreamResponse]) -> None:
        self.clock.advance(RESPONSE_TIMEOUT - 1)
        self.assertNoResult(asked)
        self.clock.advance(1)
        self.failureResultOf(asked, HeadTimedOut)
        self.assertEqual(self.line.ended, "aborted")
        self.clock.advance(0)

    def test_noBody(self) -> None:
        self.assertTimesOut(self.send(b"POST"))

    def test_body(self) -> None:
        """There is no time limit for a body."""
        body = Body(1)
        asked = self.send(b"PUT", body=body)
        self.clock.advance(10 * RESPONSE_TIMEOUT)
        body.consumer.write(b"x")
        body.finished.callback(None)
        self.assertTimesOut(asked)

    def test_nothingLeft(self) -> None:
        """No timer remains after a head, a lost connection or a cancelled request."""
        for ending in (
            lambda asked: self.line.says(OK),
            lambda asked: self.lost(ConnectionLost()),
            lambda asked: asked.cancel(),
        ):
            self.open()
            asked = self.send()
            asked.addErrback(lambda _: None)
            ending(asked)
            self.clock.advance(0)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        asked = self.send()
        asked.cancel()
        self.assertEqual(self.line.ended, "aborted")
        self.failureResultOf(asked, CancelledError)
        self.clock.advance(0)
        self.successResultOf(self.connection.closed)


class OpeningTests(ClientCase):
    def test_plain(self) -> None:
        self.assertIs(self.successResultOf(self.connection.ready), self.connection)

    def test_secure(self) -> None:
        """A connection with TLS is ready only after the handshake."""
        self.open(secure=True)
        self.assertNoResult(self.connection.ready)
        self.connection.handshakeCompleted()
        self.assertIs(self.successResultOf(self.connection.ready), self.connection)

    def test_handshakeFails(self) -> None:
        self.open(secure=True)
        self.lost(ConnectionLost())
        error = self.failureResultOf(self.connection.ready, ConnectFailed).value
        self.assertEqual(error.message, "the connection closed while it was set up")
        self.assertIsNone(self.successResultOf(self.connection.closed))

    def test_cancelled(self) -> None:
        self.open(secure=True)
        self.connection.ready.cancel()
        self.assertEqual(self.line.ended, "aborted")
        self.failureResultOf(self.connection.ready, CancelledError)
        self.clock.advance(0)

    def test_noDelay(self) -> None:
        """TCP_NODELAY is set: a head does not wait for an acknowledgement."""
        calls: list[Any] = []
        connection = UpstreamConnection(self.clock, False, self.release)
        line = Line(self.clock, connection, HERE, THERE)
        line.setTcpNoDelay = calls.append  # type: ignore[attr-defined]
        connection.makeConnection(line)
        self.assertEqual(calls, [True])
