"""
Tests of clients that read in pieces: containerd requests C{bytes=N-} for each piece, and closes the
connection when it has the piece.  The upstream sends little more than that.
"""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from hubmirror.exchange import Outcome
from tests.faults.loopback import Stand
from tests.faults.table import REPOSITORY
from tests.transport.http2client import Client as HTTP2Client
from tests.wire.loopback import settled, until
from tests.wire.support import Line, MemoryCase

KiB, MiB, GiB = 1024, 1024**2, 1024**3
PIECE = 8 * MiB
TARGET = b"/v2/library/x/blobs/sha256:" + b"0" * 64
OPEN = b"bytes=1000-"


class MemoryTests(MemoryCase):
    """
    The upstream sends as long as its transport is read, and the client reads a piece.
    """

    CHUNK = bytes(64 * KiB)
    BUFFERS = 4 * 64 * KiB

    def setUp(self) -> None:
        super().setUp()
        self.sent = self.received = 0

    def begin(self) -> Line:
        """Send the head of the upstream's response."""
        [upstream] = self.network.lines
        self.assertEqual(self.asked().values(b"Range"), [OPEN])
        upstream.says(
            b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n"
            b"Content-Range: bytes 1000-%d/%d\r\n\r\n" % (GiB, 1000 + GiB - 1, 1000 + GiB)
        )
        return upstream

    def serve(self, upstream: Line) -> None:
        """Send as much as the mirror reads, and fail when that is too much."""
        while upstream.producerState == "producing" and not upstream.ended:
            upstream.says(self.CHUNK)
            self.sent += len(self.CHUNK)
            if self.sent - self.received > self.BUFFERS:
                self.fail("the upstream is read far ahead of the client")

    def assertLittleMore(self, upstream: Line) -> None:
        """Check that the upstream's connection ended with the piece."""
        self.assertEqual(upstream.ended, "aborted")
        self.assertEqual(len(self.network.lines), 1)
        self.clock.advance(0)
        self.assertIs(self.exchanges[0].outcome, Outcome.CLIENT_LEFT)

    def test_http1(self) -> None:
        client = self.send(TARGET, fields=((b"Range", OPEN),))
        upstream = self.begin()

        def write(data: bytes) -> None:
            Line.write(client, data)
            # A transport does this when its buffer is full.
            if len(client.value()) >= 64 * KiB:
                client.producer.pauseProducing()

        client.write = write
        while self.received < PIECE:
            self.serve(upstream)
            self.received += len(client.hears())
            client.producer.resumeProducing()
        client.leaves()
        self.clock.advance(0)
        self.serve(upstream)
        self.assertLittleMore(upstream)

    def test_http2(self) -> None:
        client = HTTP2Client(self.site, wide=False)  # type: ignore[arg-type]
        stream = client.ask(target=TARGET, fields=[(b"range", OPEN)])
        upstream = self.begin()
        while self.received < PIECE:
            self.serve(upstream)
            client.exchange()
            size = len(client.answers[stream].body)
            client.answers[stream].frames.clear()
            self.received += size
            client.h2.increment_flow_control_window(size)
            client.h2.increment_flow_control_window(size, stream)
            client.exchange()
        client.resetStream(stream)
        self.serve(upstream)
        self.assertLittleMore(upstream)


class Piece(Protocol):
    """
    A client that reads a piece of a response, and then closes its stream or connection.

    @ivar received: the approximate number of bytes of the body.
    """

    transport: Any

    def __init__(self, target: str, token: str) -> None:
        self.target, self.token = target, token
        self.received = 0
        self.lost: Deferred[None] = Deferred()

    def taken(self, size: int) -> None:
        self.received += size
        if self.received >= PIECE:
            self.close()

    def close(self) -> None:
        raise NotImplementedError

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost.callback(None)


class HTTP1Piece(Piece):
    PROTOCOL = b"http/1.1"

    def connectionMade(self) -> None:
        self.transport.write(
            f"GET {self.target} HTTP/1.1\r\nHost: a\r\nRange: {OPEN.decode()}\r\n"
            f"Authorization: Bearer {self.token}\r\n\r\n".encode()
        )

    def dataReceived(self, data: bytes) -> None:
        self.taken(len(data))

    def close(self) -> None:
        self.transport.abortConnection()


class HTTP2Piece(Piece):
    PROTOCOL = b"h2"

    def connectionMade(self) -> None:
        self.h2 = H2Connection(H2Configuration())
        self.h2.initiate_connection()
        # Clients have large windows: the number of bytes that the mirror sends must not depend on
        # them.
        self.h2.update_settings({4: 32 * MiB})
        self.h2.increment_flow_control_window(GiB)
        self.h2.send_headers(
            1,
            [
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "a"),
                (":path", self.target),
                ("range", OPEN.decode()),
                ("authorization", f"Bearer {self.token}"),
            ],
            end_stream=True,
        )
        self.transport.write(self.h2.data_to_send())

    def dataReceived(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, DataReceived) and self.received < PIECE:
                self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
                self.taken(len(event.data))
        self.transport.write(self.h2.data_to_send())

    def close(self) -> None:
        self.h2.reset_stream(1)


class LoopbackTests(TestCase):
    """
    The same over sockets, whose buffers contain most of the bytes that are sent in vain.
    """

    timeout = 60

    async def read(self, kind: type[HTTP1Piece | HTTP2Piece]) -> None:
        stand = Stand(reactor)
        stand.blob = stand.hub.addBlob(REPOSITORY, GiB)
        await stand.start()
        self.addCleanup(stand.stop)
        port = int(stand.url.rpartition(":")[2])
        trust = trustRootFromCertificates([Certificate.loadPEM(stand.hub.caPEM)])
        endpoint = wrapClientTLS(
            optionsForClientTLS("127.0.0.1", trust, acceptableProtocols=[kind.PROTOCOL]),
            TCP4ClientEndpoint(reactor, "127.0.0.1", port),
        )
        token = stand.hub.issueToken(REPOSITORY, "pull")
        client: Any = await endpoint.connect(Factory.forProtocol(lambda: kind(stand.path, token)))
        self.addCleanup(self.leave, client)
        await until(lambda: client.received >= PIECE)
        await until(lambda: len(stand.exchanges) > 0)
        self.assertIs(stand.exchanges[0].outcome, Outcome.CLIENT_LEFT)
        await until(lambda: not stand.hub.cdn.site.channels)
        self.assertLess(await settled(lambda: stand.hub.cdn.bytesSent), PIECE + 16 * MiB)
        self.assertEqual(len(stand.hub.cdn.seen), 1)
        self.assertEqual(client.lost.called, kind is HTTP1Piece)

    async def leave(self, client: Any) -> None:
        if not client.lost.called:
            client.transport.abortConnection()
            await client.lost

    async def test_http1(self) -> None:
        await self.read(HTTP1Piece)

    async def test_http2(self) -> None:
        """The stream is closed, and the connection stays open."""
        await self.read(HTTP2Piece)
