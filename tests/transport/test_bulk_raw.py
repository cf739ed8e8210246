"""Tests of the mirror's TLS with OpenSSL as the peer, which can do what Twisted's TLS can't."""

from __future__ import annotations

import contextlib
import socket

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.transport.tls import BATCH
from hubmirror.transport.tlsendpoints import inBulk
from tests.transport.test_bulk import RECORD
from tests.transport.tlspair import SERVER, TRUST, End, Peer, bytesOf


class RawPeer:
    """
    A server with TLS 1.2 that uses OpenSSL directly.
    """

    def __init__(self, bulk: bool) -> None:
        self.reactor = MemoryReactorClock()
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(SERVER.original)
        context.use_privatekey(SERVER.privateKey.original)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        one, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        self.tls = SSL.Connection(context, self._socket)
        self.tls.set_accept_state()
        self.got = b""
        self.client = Peer()
        factory = TLSMemoryBIOFactory(
            optionsForClientTLS("localhost", trustRoot=TRUST),
            True,
            Factory.forProtocol(lambda: self.client),
            self.reactor,
        )
        protocol = (inBulk(self.reactor, factory) if bulk else factory).buildProtocol(None)
        assert protocol is not None
        self.end = End(one, protocol, self.reactor)
        protocol.makeConnection(self.end)

    def settle(self) -> None:
        for _ in range(20):
            with contextlib.suppress(SSL.WantReadError, SSL.ZeroReturnError):
                self.tls.do_handshake()
                while True:
                    self.got += self.tls.recv(RECORD)
            self.reactor.advance(0)
            self.end.step(reading=False)
            self.end.step(reading=True)

    def close(self) -> None:
        self.end.abortConnection()
        self.reactor.advance(0)
        self._socket.close()


class RawCase(SynchronousTestCase):
    """
    A client with such a peer.

    @cvar bulk: whether the client has the mirror's TLS instead of Twisted's.
    """

    bulk = True

    def setUp(self) -> None:
        self.peer = RawPeer(self.bulk)
        self.addCleanup(self.peer.close)
        self.peer.settle()

    def assertSentBefore(self, *writes: bytes) -> None:
        """Check what is sent before an end that the peer has requested."""
        peer, client = self.peer, self.peer.client
        for data in writes:
            client.transport.write(data)
        peer.tls.shutdown()
        peer.end.step(reading=True)
        self.assertIsNone(client.reason)
        peer.settle()
        self.assertTrue(peer.got == b"".join(writes))
        assert client.reason is not None
        client.reason.trap(ConnectionDone)


class RenegotiationTests(RawCase):
    def test_renegotiation(self) -> None:
        """
        TLS 1.2 may renegotiate at any time: writes wait meanwhile, and their producer is paused.
        """
        peer, client = self.peer, self.peer.client
        paused: list[bool] = []

        class Producer:
            def pauseProducing(self) -> None:
                paused.append(True)

            def resumeProducing(self) -> None:
                paused.append(False)

        client.transport.registerProducer(Producer(), True)
        self.assertTrue(peer.tls.renegotiate())
        peer.tls.do_handshake()
        peer.end.step(reading=True)
        client.transport.write(bytesOf(BATCH, 1))
        client.transport.write(bytesOf(2 * BATCH, 2))
        self.assertEqual(paused[-1], True)
        peer.settle()
        self.assertEqual(paused[-1], False)
        self.assertTrue(peer.got == bytesOf(BATCH, 1) + bytesOf(2 * BATCH, 2))
        self.assertEqual((peer.tls.total_renegotiations(), client.established), (1, 1))
        client.transport.unregisterProducer()

    def test_renegotiationOfAnIdleClient(self) -> None:
        self.assertTrue(self.peer.tls.renegotiate())
        self.peer.tls.do_handshake()
        self.peer.settle()
        self.assertFalse(self.peer.tls.renegotiate_pending())
        self.peer.client.transport.write(b"small")
        self.peer.settle()
        self.assertEqual(self.peer.got, b"small")

    def test_loseInRenegotiation(self) -> None:
        peer, client = self.peer, self.peer.client
        peer.tls.renegotiate()
        peer.tls.do_handshake()
        peer.end.step(reading=True)
        client.transport.write(bytesOf(BATCH, 1))
        client.transport.loseConnection()
        peer.settle()
        self.assertTrue(peer.got == bytesOf(BATCH, 1))
        self.assertTrue(peer.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)


class PlainRenegotiationTests(RenegotiationTests):
    bulk = False


class HalfClosedTests(RawCase):
    def test_peerReadsOn(self) -> None:
        """
        If the peer sends close_notify but goes on reading, everything that was written before is
        sent, however slowly it reads, before the connection ends.
        """
        self.assertSentBefore(bytesOf(8 * BATCH, 1))


class PlainHalfClosedTests(HalfClosedTests):
    bulk = False


class StricterTests(RawCase):
    def test_small(self) -> None:
        """
        Small writes that wait for the end of the turn are sent, too, which Twisted's TLS forgets.
        """
        self.assertSentBefore(bytesOf(8 * BATCH, 1), b"small")
