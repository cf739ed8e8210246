"""
Certificates that are renewed while the mirror runs.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hubmirror.listening import Certificates, SharingReactor, makeEndpoint
from hubmirror.testing.ca import Authority
from hubmirror.transport.tlsendpoints import TLSReactor


class Listener:
    """Listens nowhere."""

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> None:
        pass


class SharingTests(TestCase):
    """
    Two mirrors on one port, as while one takes over from another.
    """

    def listen(self, number: int, interface: str) -> IListeningPort:
        port: IListeningPort = SharingReactor(reactor).listenTCP(
            number, Factory(), interface=interface
        )
        self.addCleanup(port.stopListening)
        return port

    def test_twice(self) -> None:
        for interface in ("127.0.0.1", "::1"):
            first = self.listen(0, interface)
            second = self.listen(first.getHost().port, interface)  # type: ignore[attr-defined]
            self.assertEqual(first.getHost(), second.getHost())

    def test_taken(self) -> None:
        """
        What is bound in another way is not shared.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            number = other.getsockname()[1]
            self.assertRaises(CannotListenError, self.listen, number, "127.0.0.1")


class CertificatesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.path = os.path.abspath(self.mktemp())
        self.renew(self.authority.serverPEM(["a.example"]))
        self.description = f"ssl:0:privateKey={self.path}:certKey={self.path}"
        self.clock = Clock()
        reactor = TLSReactor(Listener())
        makeEndpoint(reactor, self.description).listen(None)  # type: ignore[arg-type]
        [self.server] = reactor.servers
        self.certificates = Certificates(self.clock, [self.description], reactor.servers)
        self.certificates.start()
        self.addCleanup(self.certificates.stop)
        self.first = self.server.contextFor(b"")

    def renew(self, pem: bytes) -> None:
        """As certbot does: another file in place of this one."""
        with open(self.path + ".new", "wb") as file:
            file.write(pem)
        os.replace(self.path + ".new", self.path)

    def test_renewed(self) -> None:
        """Within a minute, new handshakes get the new one."""
        self.renew(self.authority.serverPEM(["a.example"]))
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
        self.assertIsNot(self.server.contextFor(b""), self.first)
        self.assertEqual([formatEvent(event) for event in logs], ["a new certificate for port 0"])

    def test_unchanged(self) -> None:
        self.clock.pump([30, 30])
        self.assertIs(self.server.contextFor(b""), self.first)

    def test_halfWritten(self) -> None:
        """A pair that does not belong together changes nothing, and is told once."""
        key = self.authority.serverPEM(["a.example"]).partition(b"-----BEGIN CERT")[0]
        certificate = self.authority.serverPEM(["a.example"]).partition(b"-----BEGIN CERT")
        for pem in (key + certificate[1] + certificate[2], b"", b"-----BEGIN CERTIFICATE-----"):
            self.renew(pem)
            with capturedLogs() as logs:
                self.clock.pump([30, 30, 30])
            self.assertIs(self.server.contextFor(b""), self.first)
            [line] = [str(formatEvent(event)) for event in logs]
            self.assertIn("the certificate of port 0 stays as it was", line)
        self.renew(self.authority.serverPEM(["a.example"]))
        self.clock.advance(30)
        self.assertIsNot(self.server.contextFor(b""), self.first)

    def test_gone(self) -> None:
        os.unlink(self.path)
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
        self.assertIs(self.server.contextFor(b""), self.first)
        self.assertEqual(len(logs), 1)
