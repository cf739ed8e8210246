"""
Tests of certificates that are renewed while the mirror runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from hubmirror import listening
from hubmirror.listening import Certificates, _filesOf, _loadOptions, makeEndpoint
from hubmirror.testing import ca
from hubmirror.testing.ca import Authority
from hubmirror.transport import servertls
from hubmirror.transport.tlsendpoints import TLSReactor
from tests.transport.support import changeMode, encrypted


def refuse(*_: object) -> None:
    """Fail as for a user who may not read a file."""
    raise PermissionError(13, "Permission denied")


def confuse(*_: object) -> None:
    """Fail in a way that nobody expects."""
    raise TypeError("confused")


class Listener:
    """A reactor that does not listen."""

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> None:
        pass


class PositionalTests(SynchronousTestCase):
    """
    Twisted accepts the parameters of C{ssl:} without their names, too.
    """

    def test_chain(self) -> None:
        """The chain is sent, and both files are watched."""
        key, mark, chain = Authority().serverPEM(["a.example"]).partition(b"-----BEGIN CERT")
        files = {"key.pem": key, "chain.pem": mark + chain}
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        for name, content in files.items():
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        keyPath, chainPath = (os.path.join(folder, name) for name in files)
        for description in (
            f"ssl:443:{keyPath}:{chainPath}",
            f"ssl:443:{keyPath}:certKey={chainPath}",
            f"ssl:privateKey={keyPath}:443:certKey={chainPath}",
        ):
            self.assertTrue(_loadOptions(description).extraCertChain, description)
            self.assertEqual(_filesOf(description), [keyPath, chainPath], description)
        # A chain that is given is not replaced.
        description = f"ssl:443:{keyPath}:{chainPath}:TLSv1_2_METHOD::50:{chainPath}"
        self.assertEqual(_filesOf(description), [keyPath, chainPath, chainPath])


class FolderTests(SynchronousTestCase):
    """
    A folder of certificates, C{tls:FOLDER:PORT}.
    """

    def setUp(self) -> None:
        self.authority = Authority()
        self.folder = FilePath(self.mktemp())
        self.folder.makedirs()
        self.file = self.folder.child("a.pem")
        self.file.setContent(self.authority.serverPEM(["a.example"]))
        self.clock = Clock()
        reactor = TLSReactor(Listener())
        description = f"haproxy:tls:{self.folder.path}:8443"
        makeEndpoint(reactor, description)
        [folder] = reactor.folders
        self.server = folder.server
        self.certificates = Certificates(self.clock, [description], [], reactor.folders)
        self.certificates.start()
        self.addCleanup(self.certificates.stop)

    def test_renewed(self) -> None:
        """A certificate of the same name is taken up within a minute, and so is its expiry."""
        first = self.server.contextFor(b"a.example")
        before = self.certificates.expiries()["8443"]
        self.patch(ca, "_LIFETIME", timedelta(days=1))
        self.file.setContent(self.authority.serverPEM(["a.example"]))
        self.assertIs(self.server.contextFor(b"a.example"), first)
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
        self.assertIsNot(self.server.contextFor(b"a.example"), first)
        self.assertLess(self.certificates.expiries()["8443"], before)
        self.assertEqual(
            [formatEvent(event) for event in logs], [f"new certificates in {self.folder.path}"]
        )

    def test_broken(self) -> None:
        """What can't be read changes nothing, and is told once."""
        first = self.server.contextFor(b"a.example")
        self.file.setContent(b"")
        with capturedLogs() as logs:
            self.clock.pump([30, 30, 30])
        self.assertIs(self.server.contextFor(b"a.example"), first)
        [line] = [str(formatEvent(event)) for event in logs]
        self.assertIn("stay as they were: no certificate with its key", line)

    def test_encrypted(self) -> None:
        """An encrypted key changes nothing, and the checks go on."""
        first = self.server.contextFor(b"a.example")
        self.file.setContent(encrypted(self.authority.serverPEM(["a.example"])))
        with capturedLogs() as logs:
            self.clock.pump([30, 30, 30])
        self.assertIs(self.server.contextFor(b"a.example"), first)
        [line] = [str(formatEvent(event)) for event in logs]
        self.assertIn(f"stay as they were: {self.file.path}: Password was not given", line)
        self.file.setContent(self.authority.serverPEM(["a.example"]))
        self.clock.pump([30, 30])
        self.assertIsNot(self.server.contextFor(b"a.example"), first)

    def renewedUnreadably(self, readFolder: Callable[..., object]) -> object:
        """
        Replace the certificate while C{readFolder} fails, and check that the old one stays.

        @return: the context of the old certificate.
        """
        first = self.server.contextFor(b"a.example")
        self.file.setContent(self.authority.serverPEM(["a.example"]))
        failing = self.patch(servertls, "readFolder", readFolder)
        self.clock.pump([30, 30])
        self.assertIs(self.server.contextFor(b"a.example"), first)
        failing.restore()
        return first

    def test_unexpected(self) -> None:
        """No error that a file causes ends the checks."""
        first = self.renewedUnreadably(confuse)
        self.file.setContent(self.authority.serverPEM(["a.example"]))
        self.clock.pump([30, 30])
        self.assertIsNot(self.server.contextFor(b"a.example"), first)

    def test_permissions(self) -> None:
        """A certificate that can't be read is used when its permissions have been corrected."""
        first = self.renewedUnreadably(refuse)
        changeMode(self.file.path, 0o640)
        self.clock.advance(30)
        self.assertIsNot(self.server.contextFor(b"a.example"), first)

    def test_gone(self) -> None:
        """A folder that has gone is logged once, whatever names clients ask for."""
        first = self.server.contextFor(b"a.example")
        self.file.remove()
        self.folder.remove()
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
            for _ in range(3):
                self.assertIs(self.server.contextFor(b"unknown.example"), first)
        self.assertEqual(len(logs), 1)


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
        """Replace a file by another one, as certbot does."""
        with open(self.path + ".new", "wb") as file:
            file.write(pem)
        os.replace(self.path + ".new", self.path)

    def test_renewed(self) -> None:
        """Within a minute, the renewed certificate is used for new handshakes."""
        self.renew(self.authority.serverPEM(["a.example"]))
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
        self.assertIsNot(self.server.contextFor(b""), self.first)
        self.assertEqual([formatEvent(event) for event in logs], ["a new certificate for port 0"])

    def test_unchanged(self) -> None:
        self.clock.pump([30, 30])
        self.assertIs(self.server.contextFor(b""), self.first)

    def test_halfWritten(self) -> None:
        """
        A key and a certificate that do not belong together change nothing, which is logged once.
        """
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

    def test_permissions(self) -> None:
        """A certificate that can't be read is used when its permissions have been corrected."""
        self.renew(self.authority.serverPEM(["a.example"]))
        refusing = self.patch(listening, "_loadOptions", refuse)
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
        self.assertEqual(len(logs), 1)
        self.assertIs(self.server.contextFor(b""), self.first)
        refusing.restore()
        changeMode(self.path, 0o640)
        self.clock.advance(30)
        self.assertIsNot(self.server.contextFor(b""), self.first)

    def test_unexpected(self) -> None:
        """No error that a file causes ends the checks."""
        self.renew(self.authority.serverPEM(["a.example"]))
        confusing = self.patch(listening, "_loadOptions", confuse)
        self.clock.pump([30, 30])
        self.assertIs(self.server.contextFor(b""), self.first)
        confusing.restore()
        self.renew(self.authority.serverPEM(["a.example"]))
        self.clock.pump([30, 30])
        self.assertIsNot(self.server.contextFor(b""), self.first)

    def test_gone(self) -> None:
        os.unlink(self.path)
        with capturedLogs() as logs:
            self.clock.pump([30, 30])
        self.assertIs(self.server.contextFor(b""), self.first)
        self.assertEqual(len(logs), 1)
