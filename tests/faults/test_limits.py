"""
Tests of the limits on clients: those who exceed them are refused, and others are served as before.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHandshakeListener, ISSLTransport
from twisted.logger import capturedLogs, formatEvent
from zope.interface import directlyProvides

from hubmirror.exchange import Outcome
from tests.transport.http2client import Client
from tests.wire.support import Line, MemoryCase, Message, answer, read

PING = b"GET /v1/_ping HTTP/1.1\r\nHost: a\r\n\r\n"


class LimitCase(MemoryCase):
    def knock(self, host: str, secure: bool = False, handshake: bool = True) -> Line:
        """Open a connection from an address."""
        family = IPv6Address if ":" in host else IPv4Address
        there: IAddress = family("TCP", host, 50000)
        protocol: Any = self.site.buildProtocol(there)
        line = Line(self.clock, protocol, IPv4Address("TCP", "192.0.2.1", 5000), there)
        line.negotiatedProtocol = b"http/1.1"
        if secure:
            directlyProvides(line, ISSLTransport)
        protocol.makeConnection(line)
        if secure and handshake:
            IHandshakeListener(protocol).handshakeCompleted()
        self.clock.advance(0)
        return line

    def assertServed(self, line: Line) -> None:
        line.says(PING)
        self.assertEqual(read(line.hears()).status, 200)

    def assertRefused(self, line: Line) -> None:
        """Check that a connection was closed, and that its further data is ignored."""
        self.assertEqual((line.hears(), line.ended), (b"", "aborted"))

    def assertNothingLeft(self) -> None:
        self.clock.pump([100] * 10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.site._channels, set())
        self.assertEqual(self.site.admission._open, {})


class ConnectionTests(LimitCase):
    options = {"max_connections": 5, "max_connections_per_client": 3}

    def test_ofOneClient(self) -> None:
        lines = [self.knock("192.0.2.7") for _ in range(3)]
        self.assertRefused(self.knock("192.0.2.7"))
        self.assertServed(self.knock("192.0.2.8"))
        for line in lines:
            self.assertServed(line)

    def test_inAll(self) -> None:
        lines = [self.knock(f"192.0.2.{number}") for number in range(5)]
        self.assertRefused(self.knock("192.0.2.9"))
        for line in lines:
            self.assertServed(line)

    def test_room(self) -> None:
        """After a connection has ended, in whatever way, another one is accepted."""
        for leave in (Line.leaves, Line.abortConnection, Line.loseConnection):
            lines = [self.knock("192.0.2.7") for _ in range(3)]
            self.assertRefused(self.knock("192.0.2.7"))
            leave(lines[0])
            self.clock.advance(0)
            self.assertServed(self.knock("192.0.2.7"))
            self.assertRefused(self.knock("192.0.2.7"))
            for line in lines[1:]:
                line.leaves()
            self.clock.advance(100)
        self.assertNothingLeft()

    def test_ipv6(self) -> None:
        """An IPv6 /64 is one client, and the next /64 is another."""
        for number in range(3):
            self.assertServed(self.knock(f"2001:db8:1:2::{number}"))
        self.assertRefused(self.knock("2001:db8:1:2:9:9:9:9"))
        self.assertServed(self.knock("2001:db8:1:3::1"))

    def test_beforeTheHandshake(self) -> None:
        """A connection counts from its beginning, and is refused before the TLS handshake."""
        lines = [self.knock("192.0.2.7", secure=True, handshake=False) for _ in range(3)]
        self.assertRefused(self.knock("192.0.2.7", secure=True, handshake=False))
        for line in lines:
            line.leaves()
        self.clock.advance(0)
        self.assertServed(self.knock("192.0.2.7", secure=True))

    def test_log(self) -> None:
        """A flood causes one line in the log, and another with a number ten seconds later."""
        for _ in range(3):
            self.knock("192.0.2.7")
        with capturedLogs() as events:
            for _ in range(100):
                self.knock("192.0.2.7")
            self.clock.advance(10)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "too many connections (3, 3 from 192.0.2.7): refusing more",
                "connections refused: 100",
            ],
        )


class TimeTests(LimitCase):
    options = {"head_timeout": 10, "idle_timeout": 50}

    def test_head(self) -> None:
        """A head that arrives byte by byte does not extend its timeout."""
        client = self.connect()
        for byte in b"GET /v2/ H":
            self.assertEqual(client.ended, "")
            client.says(bytes((byte,)))
            self.clock.advance(1)
        self.assertEqual(client.ended, "closed")
        self.assertNothingLeft()

    def test_everyHead(self) -> None:
        """Each head has a timeout of its own."""
        client = self.connect()
        for _ in range(3):
            client.says(PING[:10])
            self.clock.advance(9)
            client.says(PING[10:])
            self.assertEqual(read(client.hears()).status, 200)
        client.says(PING[:10])
        self.clock.advance(10)
        self.assertEqual(client.ended, "closed")

    def test_idle(self) -> None:
        client = self.connect()
        self.clock.advance(49)
        self.assertServed(client)
        self.clock.advance(49)
        self.assertEqual(client.ended, "")
        self.clock.advance(1)
        self.assertEqual(client.ended, "closed")
        self.assertNothingLeft()

    def test_handshake(self) -> None:
        client = self.knock("192.0.2.7", secure=True, handshake=False)
        self.clock.advance(9)
        self.assertEqual(client.ended, "")
        self.clock.advance(1)
        self.assertEqual(client.ended, "aborted")
        self.assertNothingLeft()

    def test_tlsOnPlainPort(self) -> None:
        """A TLS handshake on a plain port closes the connection at once, which no longer counts."""
        client = self.connect()
        client.says(b"\x16\x03\x01")
        self.assertEqual((read(client.hears()).status, client.ended), (400, "closed"))
        self.assertNothingLeft()


class StallTests(LimitCase):
    options = {"client_timeout": 100, "idle_timeout": 50, "stall_timeout": 15}

    def test_reader(self) -> None:
        """A client that accepts nothing of its response is disconnected."""
        client = self.send(b"/v2/a")
        upstream = self.network.lines[0]
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
        client.producer.pauseProducing()
        self.clock.pump([1] * 99)
        self.assertEqual((client.ended, upstream.ended), ("", ""))
        self.clock.advance(1)
        self.assertEqual((client.ended, upstream.ended), ("aborted", "aborted"))
        self.assertNothingLeft()
        self.assertEqual(
            [exchange.outcome for exchange in self.exchanges], [Outcome.CLIENT_STALLED]
        )

    def test_readerOfAStream(self) -> None:
        """Over HTTP/2, the stream of such a client is reset, and the connection stays open."""
        client = Client(self.site, wide=False)  # type: ignore[arg-type]
        stream = client.ask(target=b"/v2/a")
        [upstream] = self.network.lines
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
        client.exchange()
        self.assertEqual(len(client.answers[stream].body), 65_535)
        self.clock.pump([1] * 99)
        client.exchange()
        self.assertIsNone(client.answers[stream].reset)
        self.clock.advance(1)
        client.exchange()
        self.assertIsNotNone(client.answers[stream].reset)
        self.assertEqual(upstream.ended, "aborted")
        ping = client.ask(target=b"/v1/_ping")
        self.assertEqual(client.answers[ping].status, b"200")
        client.leave()
        self.assertNothingLeft()
        self.assertIs(self.exchanges[0].outcome, Outcome.CLIENT_STALLED)

    def test_writer(self) -> None:
        """A client that sends nothing more of its body is disconnected."""
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        self.clock.pump([1] * 99)
        client.says(b"6")
        self.clock.pump([1] * 99)
        self.assertEqual((client.ended, self.network.lines[0].ended), ("", ""))
        self.clock.advance(1)
        self.assertEqual((client.ended, self.network.lines[0].ended), ("aborted", "aborted"))
        self.assertNothingLeft()
        self.assertEqual([exchange.outcome for exchange in self.exchanges], [Outcome.CLIENT_LEFT])

    def test_slowRegistry(self) -> None:
        """A client that is paused because the registry is slow is not disconnected."""
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        upstream = self.network.lines[0]
        upstream.producer.pauseProducing()
        self.clock.pump([10] * 29)
        self.assertEqual(client.ended, "")
        upstream.producer.resumeProducing()
        upstream.producer.pauseProducing()
        self.clock.pump([10] * 29)
        upstream.producer.resumeProducing()
        self.clock.advance(99)
        client.says(b"67890")
        upstream.says(answer(201))
        self.assertEqual(self.answered(client).status, 201)

    def test_stalledRegistry(self) -> None:
        """If the registry accepts nothing more, the client is told so, and can be read again."""
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        upstream = self.network.lines[0]
        upstream.producer.pauseProducing()
        self.clock.advance(299)
        self.assertEqual((client.producerState, client.hears()), ("paused", b""))
        self.clock.advance(1)
        got = self.answered(client)
        self.assertEqual((got.status, upstream.ended), (504, "aborted"))
        self.assertIn(b"accepts no data", got.body)
        self.assertEqual(client.producerState, "producing")
        client.says(b"67890")
        self.assertEqual([exchange.outcome for exchange in self.exchanges], [Outcome.FAILED])
        client.leaves()
        self.clock.advance(0)
        self.assertNothingLeft()

    def test_registryThatHashes(self) -> None:
        """
        A client that has sent its whole body, and waits for the response, is not disconnected.
        """
        client = self.send(b"/v2/a", b"PUT", body=b"12345")
        self.clock.pump([1] * 299)
        self.network.lines[0].says(answer(201))
        self.assertEqual(self.answered(client).status, 201)


class SizeTests(LimitCase):
    options = {"max_upload": "1k", "max_head": "8k"}

    def test_announced(self) -> None:
        """
        A body whose announced length is too large is refused before it is read; no request is sent
        upstream.
        """
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n")
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (413, "SIZE_INVALID"))
        self.assertEqual(self.network.lines, [])

    def test_largest(self) -> None:
        client = self.send(b"/v2/a", b"PUT", body=b"x" * 1024)
        self.assertEqual(len(self.asked().body), 1024)
        self.network.lines[0].says(answer(201))
        self.assertEqual(self.answered(client).status, 201)

    def chunk(self, size: int, client: Line) -> None:
        client.says(b"%x\r\n%b\r\n" % (size, b"x" * size))

    def test_chunked(self) -> None:
        """Of a body of unknown length, no more than the limit is sent upstream."""
        client = self.connect()
        client.says(b"PATCH /v2/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4):
            self.chunk(256, client)
        upstream = self.network.lines[0]
        self.assertEqual(upstream.ended, "")
        self.chunk(1, client)
        self.clock.advance(0)
        self.assertEqual(upstream.ended, "aborted")
        self.assertFalse(upstream.hears().endswith(b"0\r\n\r\n"))
        got = self.answered(client)
        self.assertEqual((got.status, got.error), (413, "SIZE_INVALID"))
        [exchange] = self.exchanges
        self.assertEqual((exchange.outcome, exchange.status), (Outcome.REFUSED, 413))
        # Further bytes of the client are dropped for a while.
        self.chunk(1000, client)
        self.clock.advance(30)
        self.assertEqual(client.ended, "closed")
        self.assertNothingLeft()

    def test_harmless(self) -> None:
        """An upload over the limit does not mark the upstream down for other clients."""
        self.configure(fallback="https://second.example", **self.options)
        self.test_chunked()
        self.send(b"/v2/b")
        self.assertEqual(self.network.origins[-1].host, b"hub.example")

    def test_token(self) -> None:
        """The limit applies to token requests, too."""
        client = self.connect()
        client.says(b"POST /token HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n")
        self.assertEqual(self.answered(client).status, 413)

    def test_chunkedToken(self) -> None:
        """A form that is too large is refused, whatever else is in the same read."""
        piece = b"12c\r\n%b\r\n" % bytes(300)
        for rest in (piece * 3, piece + b"0\r\n\r\n"):
            client = self.connect()
            client.says(b"POST /token HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.says(piece * 3)
            client.says(rest)
            self.assertEqual(self.answered(client).status, 413)
            self.assertEqual(client.ended, "")

    def head(self, size: int) -> Message:
        client = self.connect()
        rest = size - len(PING) - len(b"X: \r\n")
        client.says(PING[:-2] + b"X: " + b"x" * rest + b"\r\n\r\n")
        return self.answered(client)

    def test_head(self) -> None:
        self.assertEqual(self.head(8 * 1024).status, 200)
        self.assertEqual(self.head(8 * 1024 + 200).status, 431)

    def test_endlessHead(self) -> None:
        """A head is refused as soon as it is over the limit."""
        client = self.connect()
        client.says(PING[:-2])
        for _ in range(20):
            client.says(b"X: " + b"x" * 500 + b"\r\n")
        self.assertEqual(self.answered(client).status, 431)
