"""
Tests of the site: how it passes requests on, and how it ends connections.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from hubmirror.downstream.site import MirrorSite
from hubmirror.downstream.upload import RequestBody
from hubmirror.transport.closingports import FIRST_REQUEST
from tests.downstream.support import Server
from tests.transport.http2client import Client, Recorder, TLSTransport

GET = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n"


class RequestTests(SynchronousTestCase):
    def test_head(self) -> None:
        """A request is passed on when its head is complete, and its body when it is consumed."""
        server = Server()
        client, request = server.ask(
            b"PUT /a?b=c&b=d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n123"
        )
        self.assertEqual((request.method, request.path), (b"PUT", b"/a"))
        self.assertEqual(request.args, {b"b": [b"c", b"d"]})
        self.assertIsInstance(request.content, RequestBody)
        self.assertEqual(request.content.length, 5)
        self.assertEqual(client.producerState, "paused")

    def test_noBody(self) -> None:
        _client, request = Server().ask(GET)
        self.assertEqual(request.content.read(), b"")

    def test_collected(self) -> None:
        """A resource that does not stream gets the whole body, with any framing."""
        read: list[bytes] = []

        class Whole(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                read.append(request.content.read())
                return NOT_DONE_YET

        for framing, body in (
            (b"Content-Length: 200000", b"x" * 200_000),
            (b"Transfer-Encoding: chunked", b"30d40\r\n" + b"x" * 200_000 + b"\r\n0\r\n\r\n"),
        ):
            client = Server(Whole()).connect()
            client.says(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
            for start in range(0, len(body), 1000):
                client.says(body[start : start + 1000])
            self.assertEqual(read.pop(), b"x" * 200_000)

    def collecting(self, framing: bytes) -> tuple[Server, Any]:
        """
        A site that permits 5 bytes and 9 seconds, and a client that sends a body to a resource
        that responds with its size.
        """

        class Whole(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> bytes:
                return b"%d bytes" % len(request.content.read())

        server = Server(Whole())
        server.site.bodyLimits = lambda: (9.0, 5)
        client = server.connect()
        client.says(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
        return server, client

    def test_collectedSize(self) -> None:
        """A body that is too large, or is announced as too large, is not collected."""
        for framing, body, expected in (
            (b"Content-Length: 5", b"12345", b"5 bytes"),
            (b"Content-Length: 6", b"", b"HTTP/1.1 413 "),
            (b"Transfer-Encoding: chunked", b"5\r\n12345\r\n0\r\n\r\n", b"5 bytes"),
            (b"Transfer-Encoding: chunked", b"5\r\n12345\r\n1\r\n6\r\n", b"HTTP/1.1 413 "),
        ):
            _server, client = self.collecting(framing)
            client.says(body)
            self.assertIn(expected, client.hears())

    def test_restOfTooLarge(self) -> None:
        """The rest of a body that is too large may be in the same read, and is discarded."""
        for same, later in (
            (b"1\r\n6\r\n1\r\n7\r\n", b"1\r\n8\r\n0\r\n\r\n"),
            (b"1\r\n6\r\n0\r\n\r\n", b""),
        ):
            _server, client = self.collecting(b"Transfer-Encoding: chunked")
            client.says(b"5\r\n12345\r\n" + same)
            self.assertIn(b"HTTP/1.1 413 ", client.hears())
            client.says(later + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n1234")
            self.assertIn(b"4 bytes", client.hears())

    def test_collectedSlowly(self) -> None:
        """A client that sends nothing of its body for some time is disconnected."""
        server, client = self.collecting(b"Content-Length: 5")
        for byte in (b"1", b"2"):
            server.clock.advance(8)
            client.says(byte)
        self.assertEqual(client.ended, "")
        server.clock.pump([9, 9])
        self.assertEqual(client.ended, "aborted")
        self.assertEqual(client.hears(), b"")
        self.assertEqual(server.clock.getDelayedCalls(), [])

    def test_collectedInTime(self) -> None:
        """The time for the body does not apply to the resource that has received it."""
        server, client = self.collecting(b"Content-Length: 5")
        client.says(b"12345")
        server.clock.pump([9, 9])
        self.assertIn(b"5 bytes", client.hears())
        self.assertEqual(client.ended, "")

    def test_leftWhileCollecting(self) -> None:
        """If a client leaves before its body is complete, the resource is not called."""
        asked: list[Any] = []

        class Whole(Resource):
            isLeaf = True

            def render(self, request: Any) -> int:
                asked.append(request)
                return NOT_DONE_YET

        server = Server(Whole())
        client = server.connect()
        client.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n123")
        client.leaves()
        server.clock.advance(0)
        self.assertEqual(asked, [])


class CloseTests(SynchronousTestCase):
    def test_nothingOpen(self) -> None:
        self.successResultOf(Server().site.close())

    def test_idle(self) -> None:
        """A kept connection without a request ends at once."""
        server = Server()
        client, request = server.ask(GET)
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        self.assertEqual(client.ended, "")
        closing = server.site.close()
        self.assertEqual(client.ended, "closed")
        self.assertNoResult(closing)
        server.clock.advance(0)
        self.successResultOf(closing)

    def test_fresh(self) -> None:
        """A new connection gets some time for its first request, which is its last."""
        server = Server()
        quiet, slow, client = server.connect(), server.connect(), server.connect()
        slow.says(GET[:9])
        closing = server.site.close()
        server.clock.advance(FIRST_REQUEST - 0.1)
        slow.says(GET[9:12])
        client.says(GET)
        self.assertEqual((quiet.ended, slow.ended, client.ended), ("", "", ""))
        server.clock.advance(0.2)
        self.assertEqual((quiet.ended, slow.ended, client.ended), ("closed", "", ""))
        slow.says(GET[12:])
        for line, request in zip((client, slow), server.held.requests, strict=True):
            request.finish()
            self.assertIn(b"Connection: close\r\n", line.hears())
            self.assertEqual(line.ended, "closed")
        server.clock.advance(0)
        self.successResultOf(closing)

    def test_underWay(self) -> None:
        """Other connections are closed after their response."""
        server = Server()
        client, request = server.ask(GET)
        closing = server.site.close()
        self.assertEqual(client.ended, "")
        request.setHeader(b"Content-Length", b"2")
        request.write(b"ok")
        request.finish()
        self.assertIn(b"Connection: close\r\n", client.hears())
        self.assertEqual(client.ended, "closed")
        self.assertNoResult(closing)
        server.clock.advance(0)
        self.successResultOf(closing)

    def test_abort(self) -> None:
        server = Server()
        client, _request = server.ask(GET)
        closing, aborting = server.site.close(), server.site.abort()
        self.assertEqual(client.ended, "aborted")
        server.clock.advance(0)
        self.successResultOf(closing)
        self.successResultOf(aborting)

    def test_freshAndFull(self) -> None:
        """That time does not become longer when the transport was full for a moment."""
        for protocol in (b"http/1.1", b"h2"):
            clock = Clock()
            site = MirrorSite(Recorder(), clock, 75)
            transport = TLSTransport(protocol)
            channel = site.buildProtocol(None)
            channel.makeConnection(transport)
            channel.handshakeCompleted()
            site.close()
            producer: Any = transport.producer
            producer.pauseProducing()
            producer.resumeProducing()
            clock.advance(FIRST_REQUEST - 0.1)
            self.assertFalse(transport.disconnecting)
            clock.advance(0.1)
            self.assertTrue(transport.disconnecting, protocol)

    def test_noHandshake(self) -> None:
        """A client that is still shaking hands is not waited for long."""
        server = Server()
        client = server.connect(secure=True, handshake=False)
        closing = server.site.close()
        self.assertEqual(client.ended, "")
        server.clock.advance(FIRST_REQUEST)
        self.assertEqual(client.ended, "aborted")
        server.clock.advance(0)
        self.successResultOf(closing)


class IdleTests(SynchronousTestCase):
    def test_idle(self) -> None:
        """A connection without a request is closed after the idle timeout."""
        server = Server(idleTimeout=75)
        client = server.connect()
        server.clock.advance(74)
        self.assertEqual(client.ended, "")
        server.clock.advance(1)
        self.assertEqual(client.ended, "closed")

    def test_slowHead(self) -> None:
        """A connection whose request head is not complete in that time is closed, too."""
        server = Server(idleTimeout=75)
        client = server.connect()
        for byte in b"GET / HTTP/1.1\r":
            client.says(bytes((byte,)))
            server.clock.advance(7)
        self.assertEqual(client.ended, "closed")

    def test_underWay(self) -> None:
        """A connection with a request in progress is not closed."""
        server = Server(idleTimeout=75)
        client, request = server.ask(GET)
        server.clock.advance(7500)
        self.assertEqual(client.ended, "")
        request.setHeader(b"Content-Length", b"0")
        request.finish()
        server.clock.advance(74)
        self.assertEqual(client.ended, "")
        server.clock.advance(1)
        self.assertEqual(client.ended, "closed")

    def test_noHandshake(self) -> None:
        server = Server(idleTimeout=75)
        client = server.connect(secure=True, handshake=False)
        server.clock.advance(75)
        self.assertEqual(client.ended, "aborted")
        server.clock.advance(0)
        self.successResultOf(server.site.close())

    def test_left(self) -> None:
        """Nothing of a connection remains in the reactor."""
        for secure in (False, True):
            server = Server()
            server.connect(secure=secure).leaves()
            server.clock.advance(0)
            self.assertEqual(server.clock.getDelayedCalls(), [])


class UnreadTests(SynchronousTestCase):
    """
    Clients that still read a response that is complete on the mirror's side.
    """

    def answered(self, protocol: bytes, early: bool) -> tuple[Clock, Any, Any]:
        """
        A connection whose response is done while the transport is full.

        @param early: whether it was full before the end of the response.
        @return: the clock, the transport and its producer.
        """
        clock = Clock()
        held = Recorder()
        site = MirrorSite(held, clock, 75, clientTimeout=300)
        if protocol == b"h2":
            client = Client(site)
            client.ask()
            transport = client.transport
        else:
            transport = TLSTransport(protocol)
            channel = site.buildProtocol(None)
            channel.makeConnection(transport)
            channel.handshakeCompleted()
            channel.dataReceived(GET)
        [request] = held.requests
        request.setHeader(b"Content-Length", b"5")
        request.write(b"whole")
        producer = transport.producer
        if early:
            producer.pauseProducing()
        request.finish()
        if not early:
            # The transport sends small pieces later.
            producer.pauseProducing()
        return clock, transport, producer

    def test_all(self) -> None:
        """
        They may accept nothing for client-timeout.  The time for a connection without a request
        begins when they have accepted everything.
        """
        for protocol in (b"http/1.1", b"h2"):
            for early in (True, False):
                clock, transport, producer = self.answered(protocol, early)
                clock.pump([1] * 299)
                self.assertFalse(transport.disconnecting or transport.aborted)
                producer.resumeProducing()
                clock.pump([1] * 74)
                self.assertFalse(transport.disconnecting or transport.aborted)
                clock.advance(1)
                self.assertTrue(transport.disconnecting)

    def test_nothing(self) -> None:
        for protocol in (b"http/1.1", b"h2"):
            for early in (True, False):
                clock, transport, _ = self.answered(protocol, early)
                clock.pump([1] * 299)
                self.assertFalse(transport.aborted)
                clock.advance(1)
                self.assertTrue(transport.aborted)


class ProtocolTests(SynchronousTestCase):
    def test_offered(self) -> None:
        self.assertEqual(Server().site.acceptableProtocols(), [b"h2", b"http/1.1"])

    def test_http1(self) -> None:
        """HTTP/1.1 is used when TLS has negotiated it or nothing."""
        for negotiated in (b"http/1.1", None):
            server = Server()
            client = server.connect(secure=True, negotiated=negotiated)
            client.says(GET)
            [request] = server.held.requests
            self.assertTrue(request.isSecure())
            self.assertEqual(request.clientproto, b"HTTP/1.1")

    def test_http2(self) -> None:
        """The server's side of HTTP/2 begins with its settings."""
        client = Server().connect(secure=True, negotiated=b"h2")
        self.assertEqual(client.hears()[3:5], b"\x04\x00")


class GoodbyeTests(SynchronousTestCase):
    """
    Twisted's own TLS waits for the client's close_notify.
    """

    def setUp(self) -> None:
        self.clock = Clock()

    def close(self, protocol: bytes, plain: bool, full: bool = False) -> tuple[TLSTransport, Any]:
        """A connection that is being closed, and the transport below TLS."""
        site = MirrorSite(Resource(), self.clock, 75, clientTimeout=100, plain=plain)
        transport: Any = TLSTransport(protocol)
        below = transport.transport
        self.channel = site.buildProtocol(None)
        self.channel.makeConnection(transport)
        self.channel.handshakeCompleted()

        def loseConnection() -> None:
            TLSTransport.loseConnection(transport)
            if full and transport.producer is not None:
                # The last of what was written does not fit into the system's buffers.
                transport.producer.pauseProducing()

        transport.loseConnection = loseConnection
        site.close()
        self.clock.advance(FIRST_REQUEST)
        self.assertTrue(transport.disconnecting)
        return transport, below

    def test_silent(self) -> None:
        """
        The mirror waits for that only a short time.  It does not abort the connection, because the
        client may still read.
        """
        for protocol in (b"http/1.1", b"h2"):
            transport, below = self.close(protocol, plain=True)
            self.clock.advance(2.9)
            self.assertFalse(below.disconnecting)
            self.clock.advance(0.1)
            self.assertTrue(below.disconnecting, protocol)
            self.assertFalse(transport.aborted)
            self.clock.advance(100)
            self.assertTrue(transport.aborted)

    def test_stillSending(self) -> None:
        """
        It waits longer for a client that sends anything: up to client-timeout with HTTP/2, because
        it is still reading, and otherwise for some seconds.
        """
        for protocol, longest in ((b"http/1.1", 6), (b"h2", 100)):
            _, below = self.close(protocol, plain=True)
            for _ in range(0, longest, 2):
                self.assertFalse(below.disconnecting)
                self.clock.advance(2)
                self.channel.dataReceived(b"window update")
            self.clock.advance(1)
            self.channel.dataReceived(b"window update")
            self.clock.advance(2)
            self.assertTrue(below.disconnecting, protocol)

    def test_bulk(self) -> None:
        """The mirror's TLS does this itself, but must be told when it takes too long."""
        for protocol, longest in ((b"http/1.1", 6), (b"h2", 100)):
            transport, below = self.close(protocol, plain=False)
            self.clock.advance(longest - 1)
            self.assertFalse(below.disconnecting)
            self.clock.advance(1)
            self.assertTrue(below.disconnecting, protocol)
            self.clock.advance(99)
            self.assertFalse(transport.aborted)
            self.clock.advance(1)
            self.assertTrue(transport.aborted, protocol)

    def test_stillReading(self) -> None:
        """All this begins only when the transport has sent everything."""
        for protocol in (b"http/1.1", b"h2"):
            for plain in (True, False):
                transport, below = self.close(protocol, plain, full=True)
                self.clock.advance(99)
                self.assertFalse(below.disconnecting or transport.aborted)
                transport.producer.resumeProducing()
                self.assertIsNone(transport.producer)
                self.clock.advance(2)
                self.assertFalse(below.disconnecting or transport.aborted)
                self.clock.advance(1)
                self.assertEqual(below.disconnecting, plain)

    def test_notReading(self) -> None:
        """Unless the client accepts nothing for client-timeout."""
        for protocol in (b"http/1.1", b"h2"):
            transport, _ = self.close(protocol, plain=False, full=True)
            self.clock.advance(99)
            self.assertFalse(transport.aborted)
            self.clock.advance(1)
            self.assertTrue(transport.aborted)
