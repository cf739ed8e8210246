"""
Tests of the choice of a connection's channel.
"""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.downstream.site import MirrorSite
from hubmirror.transport.closingports import FIRST_REQUEST
from tests.transport.http2client import IDLE, Recorder, TLSTransport


class NegotiationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.resource = Recorder()
        self.site = MirrorSite(self.resource, self.clock, IDLE)

    def connect(self, transport: StringTransport) -> Any:
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        return protocol

    def test_offers(self) -> None:
        self.assertEqual(self.site.acceptableProtocols(), [b"h2", b"http/1.1"])

    def test_http1(self) -> None:
        """A connection without ALPN has HTTP/1.1, with TLS or without."""
        for transport in (TLSTransport(b"http/1.1"), TLSTransport(None), StringTransport()):
            protocol = self.connect(transport)
            if isinstance(transport, TLSTransport):
                protocol.handshakeCompleted()
            protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: host\r\n\r\n")
            request = self.resource.requests[-1]
            self.assertEqual(request.clientproto, b"HTTP/1.1")
            self.assertEqual(request.isSecure(), isinstance(transport, TLSTransport))

    def test_slowHandshake(self) -> None:
        transport = TLSTransport(b"h2")
        self.connect(transport)
        self.clock.advance(IDLE)
        self.assertTrue(transport.aborted)

    def test_closeBeforeHandshake(self) -> None:
        transport = TLSTransport(b"h2")
        protocol = self.connect(transport)
        gone: Deferred[None] = self.site.close()
        self.clock.advance(FIRST_REQUEST - 0.1)
        self.assertFalse(transport.aborted)
        self.clock.advance(0.1)
        self.assertTrue(transport.aborted)
        self.assertNoResult(gone)
        protocol.connectionLost(None)
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closeDuringHandshake(self) -> None:
        """A client whose handshake ends while the site closes gets its first request served."""
        transport = TLSTransport(None)
        protocol = self.connect(transport)
        gone: Deferred[None] = self.site.close()
        protocol.handshakeCompleted()
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: host\r\n\r\n")
        self.resource.requests[-1].finish()
        self.assertIn(b"Connection: close\r\n", transport.value())
        self.assertTrue(transport.disconnecting)
        protocol.connectionLost(None)
        self.successResultOf(gone)

    def test_closeAfterHandshake(self) -> None:
        """After the handshake has selected a channel, the site still waits for the connection."""
        protocol = self.connect(TLSTransport(b"h2"))
        protocol.handshakeCompleted()
        gone = self.site.close()
        self.assertNoResult(gone)
        protocol.connectionLost(None)
        self.successResultOf(gone)
