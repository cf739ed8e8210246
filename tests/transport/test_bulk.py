"""TLS in bulk, against Twisted's own TLS and against itself: no byte is lost or reordered."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from hubmirror.testing.ca import Authority
from hubmirror.transport.tls import BATCH
from hubmirror.transport.tlsendpoints import BulkTLSEndpoint, BulkTLSReactor, inBulk, resuming

AUTHORITY = Authority()
SERVER = PrivateCertificate.loadPEM(AUTHORITY.serverPEM(["localhost", "127.0.0.1"]))
TRUST = trustRootFromCertificates([Certificate.loadPEM(AUTHORITY.pem)])


@implementer(IHandshakeListener)
class Peer(Protocol):
    """Keeps what it gets, and how it ended."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.deliveries = 0
        self.established = False
        self.reason: Failure | None = None

    def handshakeCompleted(self) -> None:
        self.established = True

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self.deliveries += 1

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.reason = reason


class Pair:
    """
    A client and a server with a wire in memory.

    @ivar client: the client's protocol, C{server} the server's.
    """

    def __init__(self, bulkClient: bool, bulkServer: bool, name: str = "localhost") -> None:
        self.clock = Clock()
        self.client, self.server = Peer(), Peer()
        creator = optionsForClientTLS(name, trustRoot=TRUST)
        outgoing = self.wrapped(bulkClient, creator, True, self.client)
        incoming = self.wrapped(
            bulkServer,
            resuming(SERVER.options()) if bulkServer else SERVER.options(),
            False,
            self.server,
        )
        self.pump: Any = connect(
            incoming,
            FakeTransport(incoming, isServer=True),
            outgoing,
            FakeTransport(outgoing, isServer=False),
        )
        self.flush()

    def wrapped(self, bulk: bool, creator: Any, isClient: bool, peer: Peer) -> Any:
        factory = TLSMemoryBIOFactory(
            creator, isClient, Factory.forProtocol(lambda: peer), self.clock
        )
        if bulk:
            factory = inBulk(self.clock, factory)
        return factory.buildProtocol(None)

    def flush(self) -> None:
        """Let all that is under way arrive."""
        while True:
            moved = self.pump.pump()
            waiting = bool(self.clock.getDelayedCalls())
            self.clock.advance(0)
            if not moved and not waiting:
                return


ROLES = [(True, True), (True, False), (False, True)]
PIECES = st.lists(st.integers(0, 3 * BATCH), max_size=8)


def bytesOf(size: int, seed: int) -> bytes:
    return hashlib.shake_128(b"%d" % seed).digest(size)


class OrderTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=40)
    @given(st.sampled_from(ROLES), PIECES, PIECES, st.booleans())
    def test_anySizes(
        self, roles: tuple[bool, bool], up: list[int], down: list[int], together: bool
    ) -> None:
        """Large and small writes, both ways at once: each byte arrives, in its place."""
        pair = Pair(*roles)
        sent = {pair.client: b"", pair.server: b""}
        for peer, sizes in ((pair.client, up), (pair.server, down)):
            for number, size in enumerate(sizes):
                data = bytesOf(size, number)
                sent[peer] += data
                peer.transport.write(data)  # type: ignore[union-attr]
                if not together:
                    pair.flush()
        pair.flush()
        self.assertTrue(pair.client.established and pair.server.established)
        self.assertEqual(bytes(pair.server.got), sent[pair.client])
        self.assertEqual(bytes(pair.client.got), sent[pair.server])

    def test_atOnce(self) -> None:
        """A batch is one delivery, not one for each record."""
        pair = Pair(True, True)
        pair.server.transport.write(bytes(BATCH))  # type: ignore[union-attr]
        pair.flush()
        self.assertEqual((len(pair.client.got), pair.client.deliveries), (BATCH, 1))

    def test_beforeTheHandshake(self) -> None:
        """What is written as soon as there is a connection waits for TLS."""

        class Eager(Peer):
            def connectionMade(self) -> None:
                self.transport.write(b"early")  # type: ignore[union-attr]

        for roles in ROLES:
            self.patch(Peer, "connectionMade", Eager.connectionMade)
            pair = Pair(*roles)
            self.assertEqual((pair.client.got, pair.server.got), (b"early", b"early"))


class EndTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=20)
    @given(st.sampled_from(ROLES), PIECES)
    def test_withDataInFlight(self, roles: tuple[bool, bool], sizes: list[int]) -> None:
        """What was written before the connection is lost arrives, and then its orderly end."""
        pair = Pair(*roles)
        sent = b""
        for number, size in enumerate(sizes):
            sent += bytesOf(size, number)
            pair.server.transport.write(bytesOf(size, number))  # type: ignore[union-attr]
        pair.server.transport.loseConnection()  # type: ignore[union-attr]
        pair.flush()
        self.assertEqual(bytes(pair.client.got), sent)
        for peer in (pair.client, pair.server):
            assert peer.reason is not None
            peer.reason.trap(ConnectionDone)

    def test_abort(self) -> None:
        """
        An abort of either side is no orderly end for the other.  (Twisted's own says goodbye even
        then.)
        """
        for roles in ROLES:
            for aborting, other, bulk in zip(
                ("client", "server"), ("server", "client"), roles, strict=True
            ):
                if not bulk:
                    continue
                pair = Pair(*roles)
                getattr(pair, aborting).transport.abortConnection()
                pair.flush()
                reason = getattr(pair, other).reason
                self.assertTrue(reason.check(ConnectionLost, SSL.Error), reason)

    def test_writeAfterwards(self) -> None:
        pair = Pair(True, True)
        pair.server.transport.loseConnection()  # type: ignore[union-attr]
        pair.server.transport.write(b"late")  # type: ignore[union-attr]
        pair.flush()
        pair.server.transport.write(b"later")  # type: ignore[union-attr]
        self.assertEqual(pair.client.got, b"")

    def test_wrongName(self) -> None:
        """A certificate for another name ends the client's connection, with the reason."""
        pair = Pair(True, True, "elsewhere.example")
        assert pair.client.reason is not None
        self.assertIn("VerificationError", repr(pair.client.reason.value) + str(pair.client.reason))


class Slow(Peer):
    """Reads nothing until it is told to."""

    def connectionMade(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]


class Source:
    """Writes a given number of bytes, as fast as its consumer lets it."""

    def __init__(self, consumer: Any, size: int) -> None:
        self.consumer, self.left, self.paused, self.stopped = consumer, size, False, False
        consumer.registerProducer(self, True)

    def produce(self) -> None:
        while self.left and not self.paused and not self.stopped:
            data = bytesOf(min(BATCH, self.left), self.left)
            self.left -= len(data)
            self.consumer.write(data)
        if not self.left:
            self.consumer.unregisterProducer()
            self.consumer.loseConnection()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        reactor.callLater(0, self.produce)

    def stopProducing(self) -> None:
        self.stopped = True


class LoopbackTests(TestCase):
    """Over sockets, where writes go past the transport while it has nothing to send."""

    SIZE = 24 * 1024 * 1024
    timeout = 60

    async def start(self, bulkServer: bool, server: Peer) -> int:
        endpointReactor: Any = BulkTLSReactor(reactor) if bulkServer else reactor
        port = endpointReactor.listenSSL(
            0, Factory.forProtocol(lambda: server), SERVER.options(), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def connect(self, bulk: bool, port: int, client: Peer) -> None:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        creator = optionsForClientTLS("localhost", trustRoot=TRUST)
        wrap = partial(BulkTLSEndpoint, reactor) if bulk else wrapClientTLS
        await wrap(creator, endpoint).connect(Factory.forProtocol(lambda: client))

    async def test_all(self) -> None:
        """A slow start, then all of it: the producer waits, and nothing is lost."""
        for roles in ROLES:
            ended: Deferred[None] = Deferred()

            class Client(Slow):
                def connectionLost(self, reason: Failure, ended: Any = ended) -> None:  # type: ignore[override]
                    ended.callback(None)

            server, client = Peer(), Client()
            port = await self.start(roles[1], server)
            await self.connect(roles[0], port, client)
            client.transport.resumeProducing()  # type: ignore[union-attr]
            while not server.established:
                await self.turn()
            source = Source(server.transport, self.SIZE)
            source.produce()
            self.assertGreater(source.left, 0, "the producer was never paused")
            await ended
            expected, left = hashlib.sha256(), self.SIZE
            while left:
                size = min(BATCH, left)
                expected.update(bytesOf(size, left))
                left -= size
            self.assertEqual(hashlib.sha256(client.got).digest(), expected.digest())

    def turn(self) -> Deferred[None]:
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        return turned
