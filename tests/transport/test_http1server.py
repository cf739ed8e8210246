"""Tests of HTTP/1.1 towards clients: requests are parsed strictly, and responded to in order."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests import examples
from tests.downstream.support import HERE, THERE, Server
from tests.wire.support import Line, read

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
IDLE, HEAD = 75, 40

#: Beginnings of invalid requests, and the status of the response.
MALFORMED = [
    (b"\r\n\r\nGET\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"GET /" + b"a" * 20_000, 414),
    (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 600 + b"\r\n", 431),
]


class Recorder(Resource):
    """
    Responds at once, and records the requests.

    @ivar asked: method, target and body of each request.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes, bytes]] = []

    def render(self, request: Any) -> bytes:
        self.asked.append((request.method, request.uri, request.content.read()))
        return b"answer %d" % len(self.asked)


class Unsized(Resource):
    """
    Sends a response without Content-Length.
    """

    isLeaf = True

    def render(self, request: Any) -> int:
        request.write(b"ans")
        request.write(b"wer")
        request.finish()
        return NOT_DONE_YET


def statuses(line: Line) -> list[int]:
    """The statuses of the responses that a client receives."""
    return [int(part[:3]) for part in line.hears().split(b"HTTP/1.1 ")[1:]]


class RequestTests(SynchronousTestCase):
    """Tests of what a resource receives."""

    def test_verbatim(self) -> None:
        _, request = Server().ask(
            b"get /%2f?a=b;c&&#d HTTP/1.0\r\nX: 1\r\nx: 2\r\nCookie: a=b\r\n\r\n"
        )
        self.assertEqual(
            (request.method, request.uri, request.clientproto),
            (b"get", b"/%2f?a=b;c&&#d", b"HTTP/1.0"),
        )
        self.assertEqual(request.requestHeaders.getRawHeaders(b"X"), [b"1", b"2"])
        self.assertEqual(request.getCookie(b"a"), b"b")

    def test_addresses(self) -> None:
        for secure in (False, True):
            server = Server()
            line = server.connect(secure)
            line.says(GET)
            [request] = server.held.requests
            self.assertEqual(request.isSecure(), secure)
            self.assertEqual(request.getClientAddress(), line.getPeer())
            self.assertEqual(request.getHost(), line.getHost())

    def test_inPieces(self) -> None:
        server = Server()
        line = server.connect()
        for byte in GET[:-1]:
            line.says(bytes([byte]))
        self.assertEqual(server.held.requests, [])
        line.says(GET[-1:])
        self.assertEqual(len(server.held.requests), 1)

    @examples(0.5)
    @given(st.data())
    def test_anySplit(self, data: st.DataObject) -> None:
        """Pipelined requests and their bodies do not depend on how their bytes are split."""
        recorder = Recorder()
        line = Server(recorder).connect()
        wire = (
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
            b"PUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\nX: y\r\n\r\n"
            b"PATCH /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            b"HEAD /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        while wire:
            size = data.draw(st.integers(1, len(wire)))
            line.says(wire[:size])
            wire = wire[size:]
        self.assertEqual(
            recorder.asked,
            [
                (b"GET", b"/1", b""),
                (b"POST", b"/2", b"hello"),
                (b"PUT", b"/3", b"abc\r\n"),
                (b"PATCH", b"/4", b""),
                (b"HEAD", b"/5", b""),
            ],
        )
        self.assertEqual((statuses(line), line.ended), ([200] * 5, "closed"))


class PersistenceTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Whether the connection is kept, and the C{Connection} field of the response."""
        for head, field, stays in (
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [], True),
            (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", [], True),
            (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", [b"close"], False),
            (b"GET / HTTP/1.0\r\n\r\n", [b"close"], False),
            (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", [b"keep-alive"], True),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", [b"close"], False),
        ):
            line = Server(Recorder()).connect()
            line.says(head)
            answer = read(line.hears())
            self.assertEqual(answer.start, b"HTTP/1.1 200 OK")
            self.assertEqual(answer.values(b"Connection"), field, head)
            self.assertEqual(line.ended, "" if stays else "closed", head)

    def test_unknownLength(self) -> None:
        """In HTTP/1.0, only the end of the connection ends such a response."""
        line = Server(Unsized()).connect()
        line.says(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = read(line.hears())
        self.assertEqual((answer.values(b"Connection"), answer.body), ([b"close"], b"answer"))
        self.assertEqual(line.ended, "closed")

    def test_chunked(self) -> None:
        line = Server(Unsized()).connect()
        line.says(GET)
        answer = read(line.hears())
        self.assertEqual(answer.body, b"3\r\nans\r\n3\r\nwer\r\n0\r\n\r\n")
        self.assertEqual((answer.values(b"Connection"), line.ended), ([], ""))

    def test_noBody(self) -> None:
        """No length is needed where no body is allowed."""
        for method, status in ((b"HEAD", 200), (b"GET", 304), (b"GET", 204)):
            line, request = Server().ask(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method)
            request.setResponseCode(status)
            request.write(b"")
            request.finish()
            answer = read(line.hears())
            self.assertEqual((answer.status, answer.values(b"Connection")), (status, []))
            self.assertEqual((answer.body, line.ended), (b"", ""))

    def test_oneAfterAnother(self) -> None:
        """A pipelined request waits until the one before it has been responded to."""
        server = Server()
        _, first = server.ask(GET + GET.replace(b"/", b"/second", 1))
        self.assertEqual(len(server.held.requests), 1)
        first.setHeader(b"Content-Length", b"0")
        first.finish()
        _, second = server.held.requests
        self.assertEqual(second.uri, b"/second")

    def test_nothingAfterTheLast(self) -> None:
        recorder = Recorder()
        line = Server(recorder).connect()
        line.says(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        line.says(GET)
        self.assertEqual((statuses(line), len(recorder.asked)), ([200], 1))

    def test_readAhead(self) -> None:
        """Most pipelined requests stay in the client's send buffer."""
        line, request = Server().ask()
        line.says(GET * 10)
        self.assertEqual(line.producerState, "producing")
        line.says(GET * 1000)
        self.assertEqual(line.producerState, "paused")
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        self.assertEqual(line.producerState, "paused")


class MalformedTests(SynchronousTestCase):
    def test_table(self) -> None:
        """
        The response is an error that clients of registries understand, and then the connection
        ends; nothing after it is read.
        """
        for wire, status in MALFORMED:
            recorder = Recorder()
            line = Server(recorder).connect()
            line.says(wire)
            line.says(GET)
            answer = read(line.hears())
            self.assertEqual(answer.status, status, wire[:80])
            self.assertEqual(answer.values(b"Content-Type"), [b"application/json"])
            self.assertEqual(answer.values(b"Content-Length"), [b"%d" % len(answer.body)])
            self.assertEqual(answer.values(b"Connection"), [b"close"])
            [error] = json.loads(answer.body)["errors"]
            self.assertEqual(set(error), {"code", "message", "detail"})
            self.assertEqual((line.ended, recorder.asked), ("closed", []))

    def test_largestHead(self) -> None:
        """The limit of the site applies."""
        server = Server()
        server.site.maxHead = 100
        line, _ = server.ask(b"GET / HTTP/1.1\r\nHost: ".ljust(100, b"a") + b"\r\n\r\n")
        self.assertEqual(line.ended, "")
        line = server.connect()
        line.says(b"GET / HTTP/1.1\r\nHost: ".ljust(101, b"a") + b"\r\n\r\n")
        self.assertEqual(statuses(line), [431])

    def test_afterOthers(self) -> None:
        """Requests before it are responded to first."""
        server = Server()
        line, request = server.ask(GET + b"nonsense\r\n\r\n")
        self.assertEqual(line.hears(), b"")
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        self.assertEqual((statuses(line), line.ended), ([200, 400], "closed"))

    def test_tlsOnPlain(self) -> None:
        """
        Clients that try TLS first use plain HTTP only if the response shows that the port has plain
        HTTP: Docker 29, containerd, buildkit.
        """
        line = Server().connect()
        line.says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        self.assertEqual((line.ended, statuses(line)), ("closed", [400]))

    def test_tlsInTLS(self) -> None:
        line = Server().connect(secure=True)
        line.says(b"\x16\x03\x01\r\n\r\n")
        self.assertEqual((line.ended, statuses(line)), ("closed", [400]))

    @given(st.binary())
    def test_anything(self, wire: bytes) -> None:
        """
        For any input, there is an error, an end, or a wait for more; or a response, since
        hypothesis has learned what requests look like.
        """
        line = Server(Recorder()).connect()
        line.says(wire)
        got = line.hears()
        self.assertRegex(got, rb"(?s)\A(HTTP/1\.1 (200|4[0-9]{2}|501|505) .*)?\Z")
        if not got.startswith(b"HTTP/1.1 200"):
            self.assertIn(
                (line.ended, bool(got)), [("", False), ("closed", True), ("aborted", False)]
            )


class TimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(idleTimeout=IDLE)
        self.server.site.headTimeout = HEAD
        self.clock = self.server.clock
        self.line = self.server.connect()

    def assertEndsIn(self, seconds: float) -> None:
        self.clock.advance(seconds - 1)
        self.assertEqual(self.line.ended, "")
        self.clock.advance(1)
        self.assertEqual(self.line.ended, "closed")

    def test_nothingCame(self) -> None:
        self.assertEndsIn(IDLE)

    def test_slowHead(self) -> None:
        """A head that has begun has a shorter timeout, which further bytes do not extend."""
        self.clock.advance(IDLE - 1)
        for byte in GET[:3]:
            self.line.says(bytes([byte]))
            self.clock.advance(10)
        self.assertEndsIn(HEAD - 30)

    def test_slowHeads(self) -> None:
        """Each head has a timeout of its own."""
        for _ in range(3):
            self.line.says(GET[:-1])
            self.clock.advance(HEAD - 1)
            self.line.says(GET[-1:])
            self.clock.advance(IDLE)
            request = self.server.held.requests[-1]
            request.setHeader(b"Content-Length", b"0")
            request.finish()
        self.line.says(GET[:-1])
        self.assertEndsIn(HEAD)

    def test_betweenRequests(self) -> None:
        self.line.says(GET)
        self.clock.advance(IDLE * 10)
        [request] = self.server.held.requests
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        self.assertEndsIn(IDLE)

    def test_answerThatNobodyTakes(self) -> None:
        """A client that does not let its connection close is aborted."""
        self.patch(self.line, "loseConnection", lambda: None)
        self.line.says(b"nonsense\r\n\r\n")
        self.clock.advance(self.server.site.clientTimeout)
        self.assertEqual(self.line.ended, "aborted")

    def test_nothingLeft(self) -> None:
        self.line.says(GET)
        self.line.leaves()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndTests(SynchronousTestCase):
    def test_clientLeaves(self) -> None:
        line, request = Server().ask()
        finished = request.notifyFinish()
        line.leaves()
        line._clock.advance(0)
        self.failureResultOf(finished)
        self.assertIsNone(request.channel)

    def test_closeIdle(self) -> None:
        """
        When a site closes, it closes idle connections at once, and reports when all are closed.
        """
        server = Server()
        lines = []
        for _ in range(2):
            line, request = server.ask()
            request.setHeader(b"Content-Length", b"0")
            request.finish()
            lines.append(line)
        closed = server.site.close()
        self.assertEqual([line.ended for line in lines], ["closed", "closed"])
        self.assertNoResult(closed)
        server.clock.advance(0)
        self.successResultOf(closed)

    def test_closeBusy(self) -> None:
        """A response in progress is the last one on its connection."""
        server = Server()
        line, request = server.ask(GET + GET)
        closed = server.site.close()
        self.assertEqual(line.ended, "")
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        self.assertEqual(read(line.hears()).values(b"Connection"), [b"close"])
        self.assertEqual((line.ended, len(server.held.requests)), ("closed", 1))
        server.clock.advance(0)
        self.successResultOf(closed)

    def test_openedLate(self) -> None:
        """A connection that was being established when the site closed serves one request."""
        server = Server()
        server.site.close()
        line, request = server.ask()
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        self.assertEqual(read(line.hears()).values(b"Connection"), [b"close"])
        self.assertEqual(line.ended, "closed")

    def test_abort(self) -> None:
        server = Server()
        line, request = server.ask()
        finished = request.notifyFinish()
        aborted = server.site.abort()
        self.assertEqual(line.ended, "aborted")
        server.clock.advance(0)
        self.failureResultOf(finished)
        self.successResultOf(aborted)

    def test_abortRequest(self) -> None:
        """An aborted response does not look complete."""
        line, request = Server().ask()
        request.write(b"part")
        line.hears()
        request.channel.abortConnection()
        self.assertEqual((line.ended, line.hears()), ("aborted", b""))

    def test_noDelay(self) -> None:
        """TCP_NODELAY is set: the end of a response does not wait for an acknowledgement."""
        calls: list[bool] = []
        server = Server()
        channel = server.site.buildProtocol(THERE)
        line = Line(server.clock, channel, HERE, THERE)
        line.setTcpNoDelay = calls.append  # type: ignore[attr-defined]
        channel.makeConnection(line)
        self.assertEqual(calls, [True])
