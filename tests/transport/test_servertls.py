"""Tests of ports with TLS, with OpenSSL on both sides and without a network."""

from __future__ import annotations

import contextlib
import os
import ssl
import warnings
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.x509 import load_der_x509_certificate
from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hubmirror import HubMirror, MirrorConfig
from hubmirror.config import ConfigError
from hubmirror.testing import ca
from hubmirror.testing.ca import Authority
from hubmirror.transport.servertls import FolderTLS, ServerTLS, folderEndpoint
from hubmirror.transport.tls import BATCH
from hubmirror.transport.tlsendpoints import TLSReactor, inBulk
from tests.transport.support import Negotiating, changeMode, encrypted

AUTHORITY = Authority()
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


def certificate(*names: str, authority: Authority = AUTHORITY) -> CertificateOptions:
    return PrivateCertificate.loadPEM(authority.serverPEM(list(names))).options()


def client(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    protocols: Iterable[str] = (),
    ciphers: str | None = None,
) -> ssl.SSLContext:
    """A client with one version of TLS."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    if ciphers is not None:
        context.set_ciphers(ciphers)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@implementer(IHandshakeListener)
class Served(Protocol):
    """
    A protocol of the server.

    @ivar reason: the reason for the connection's end, once it has ended.
    """

    reason: Any = None

    def handshakeCompleted(self) -> None:
        self.transport.write(b"hello")  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.reason = reason.value


class Handshake:
    """
    A client's handshake with a server's protocol.

    @ivar client: the client's side.
    @ivar server: the server's C{OpenSSL.SSL.Connection}.
    @ivar served: the protocol above it.
    """

    def __init__(
        self,
        server: ServerTLS,
        context: ssl.SSLContext | None = None,
        *,
        name: str | None = "localhost",
        session: Any = None,
        bulk: bool = True,
        wrapped: Factory | None = None,
    ) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or client()
        if name is None:
            context.check_hostname = False
        self.client = context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)
        self.served = Served()
        wrapped = wrapped or Negotiating()
        wrapped.protocol = lambda: self.served  # type: ignore[assignment]
        clock: Any = Clock()
        factory = TLSMemoryBIOFactory(server, False, wrapped, clock)
        protocol: Any = (inBulk(clock, factory) if bulk else factory).buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.server = protocol.getHandle()
        try:
            for _ in range(4):
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.client.do_handshake()
                    self.client.read()
                if outgoing.pending:
                    protocol.dataReceived(outgoing.read())
                clock.advance(1)
                incoming.write(transport.value())
                transport.clear()
        finally:
            protocol.connectionLost(Failure(ConnectionResetError()))

    def name(self) -> str:
        """The name in the certificate that the client received."""
        der = self.client.getpeercert(True)
        assert der is not None
        return load_der_x509_certificate(der).subject.rfc4514_string()


class ProtocolTests(SynchronousTestCase):
    """Tests of application protocols (RFC 7301)."""

    bulk = True

    def setUp(self) -> None:
        self.server = ServerTLS({"": certificate("localhost")})

    def shakeHands(self, *protocols: str, wrapped: Factory | None = None) -> str | None:
        found = set()
        for version in VERSIONS:
            context = client(version, protocols)
            done = Handshake(self.server, context, bulk=self.bulk, wrapped=wrapped)
            found.add(done.client.selected_alpn_protocol())
        [protocol] = found
        return protocol

    def test_chosen(self) -> None:
        """The server's first protocol that the client offers is selected."""
        self.assertEqual(self.shakeHands("http/1.1", "h2"), "h2")
        self.assertEqual(self.shakeHands("foo", "http/1.1"), "http/1.1")

    def test_none(self) -> None:
        """For a client that offers none, the handshake succeeds; it will use HTTP/1.1."""
        self.assertIsNone(self.shakeHands())

    def test_noneInCommon(self) -> None:
        """
        The alert is C{no_application_protocol} (120), and the connection ends in the same way as
        with other failed handshakes.
        """
        for version in VERSIONS:
            for offered in (["foo"], ["http/1.0"], ["acme-tls/1", "spdy/3"]):
                with self.assertRaises(ssl.SSLError) as caught:
                    Handshake(self.server, client(version, offered), bulk=self.bulk)
                self.assertRegex(str(caught.exception), "alert no application protocol")
        self.assertEqual(self.flushLoggedErrors(), [])
        # This does not affect the next client.
        self.assertEqual(self.shakeHands("h2"), "h2")

    def test_notNegotiating(self) -> None:
        """A factory that does not negotiate serves every client."""
        self.assertIsNone(self.shakeHands("foo", wrapped=Factory()))


class PlainProtocolTests(ProtocolTests):
    """The same tests with Twisted's own TLS protocol, for C{plain-transport}."""

    bulk = False


class SuiteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = ServerTLS({"": certificate("localhost")})

    def suite(self, ciphers: str | None, version: Any = ssl.TLSVersion.TLSv1_2) -> str:
        chosen = Handshake(self.server, client(version, ciphers=ciphers)).client.cipher()
        assert chosen is not None
        return chosen[0]

    def test_tls12(self) -> None:
        """
        Only suites with AEAD and forward secrecy are accepted, when each suite of OpenSSL is
        offered alone.
        """
        context = client(ssl.TLSVersion.TLSv1_2, ciphers="ALL:COMPLEMENTOFALL:@SECLEVEL=0")
        names = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
        accepted = set()
        for name in names:
            with contextlib.suppress(ssl.SSLError, SSL.Error):
                accepted.add(self.suite(f"{name}:@SECLEVEL=0"))
        self.assertGreater(len(names), 50)
        self.assertEqual(
            accepted,
            {
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "ECDHE-ECDSA-AES256-GCM-SHA384",
                "ECDHE-ECDSA-CHACHA20-POLY1305",
            },
        )

    def test_order(self) -> None:
        """AES with 128 bits is preferred, but ChaCha20 for clients that prefer it."""
        self.assertEqual(self.suite(None), "ECDHE-ECDSA-AES128-GCM-SHA256")
        self.assertEqual(self.suite("ECDHE+CHACHA20:ECDHE+AESGCM"), "ECDHE-ECDSA-CHACHA20-POLY1305")
        self.assertEqual(self.suite(None, ssl.TLSVersion.TLSv1_3), "TLS_AES_128_GCM_SHA256")

    def test_oldVersions(self) -> None:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with self.assertRaises(ssl.SSLError):
                self.suite("ALL:@SECLEVEL=0", version)

    def test_method(self) -> None:
        """C{sslmethod} in the endpoint's description takes effect."""
        given = certificate("localhost")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            options = CertificateOptions(
                given.privateKey, given.certificate, method=SSL.TLSv1_2_METHOD
            )
            self.server = ServerTLS({"": options})
        self.assertEqual(self.suite(None), "ECDHE-ECDSA-AES128-GCM-SHA256")
        with self.assertRaises(ssl.SSLError):
            self.suite(None, ssl.TLSVersion.TLSv1_3)

    def test_batch(self) -> None:
        """A batch is encrypted by one call instead of one for each record."""
        server = SSL.Connection(self.server.contextFor(b""))
        other = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
        server.set_accept_state()
        other.set_connect_state()
        server.set_app_data(Served())
        for _ in range(4):
            for one, another in ((server, other), (other, server)):
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    another.bio_write(one.bio_read(1 << 16))
        self.assertEqual(server.send(bytes(BATCH)), BATCH)


class SessionTests(SynchronousTestCase):
    """Sessions are resumed with tickets (RFC 5077, RFC 8446 2.2)."""

    def setUp(self) -> None:
        self.server = ServerTLS({"": certificate("localhost")})

    def isResumed(self, context: ssl.SSLContext, session: Any, **options: Any) -> bool:
        again = Handshake(self.server, context, session=session, **options)
        return bool(again.client.session_reused)

    def test_resumption(self) -> None:
        """Sessions are resumed with both versions of TLS, by both TLS protocols."""
        for version in VERSIONS:
            for bulk in (True, False):
                context = client(version)
                first = Handshake(self.server, context, bulk=bulk).client
                self.assertFalse(first.session_reused)
                assert first.session is not None
                self.assertTrue(first.session.has_ticket)
                self.assertTrue(self.isResumed(context, first.session, bulk=bulk))

    def test_replaced(self) -> None:
        """After a certificate is replaced, earlier sessions are still resumed."""
        for version in VERSIONS:
            context = client(version)
            session = Handshake(self.server, context).client.session
            self.server.replace({"": certificate("localhost")})
            self.assertTrue(self.isResumed(context, session))

    def test_otherServer(self) -> None:
        """A ticket of another server causes a full handshake, not an error."""
        for version in VERSIONS:
            context = client(version)
            session = Handshake(ServerTLS({"": certificate("localhost")}), context).client.session
            self.assertFalse(self.isResumed(context, session))


class NameTests(SynchronousTestCase):
    """Tests of which certificate a client gets."""

    def got(self, server: ServerTLS, name: str | None) -> set[str]:
        names = set()
        for version in VERSIONS:
            context = client(version)
            context.check_hostname = False
            names.add(Handshake(server, context, name=name).name())
        return names

    def test_byName(self) -> None:
        """
        The certificate is selected by name, in any case, or by a wildcard; otherwise it is the
        first.
        """
        server = ServerTLS(
            {
                "a.example": certificate("a.example"),
                "b.example": certificate("b.example"),
                "*.c.example": certificate("*.c.example"),
            }
        )
        for name, expected in (
            ("a.example", "a.example"),
            ("B.example", "b.example"),
            ("x.c.example", "*.c.example"),
            ("x.y.c.example", "a.example"),
            ("d.example", "a.example"),
            (None, "a.example"),
        ):
            self.assertEqual(self.got(server, name), {f"CN={expected}"}, name)

    def test_replaced(self) -> None:
        """The next handshake has the new certificate, with or without a name."""
        server = ServerTLS({"": certificate("old.example")})
        server.replace({"": certificate("new.example")})
        self.assertEqual(self.got(server, "localhost"), {"CN=new.example"})
        self.assertEqual(self.got(server, None), {"CN=new.example"})
        with self.assertRaises(ValueError):
            server.replace({})
        self.assertEqual(self.got(server, None), {"CN=new.example"})


class FolderTests(NameTests):
    def setUp(self) -> None:
        self.folder = FilePath(self.mktemp())
        self.folder.makedirs()
        self.clock = Clock()

    def put(self, file: str, content: bytes) -> None:
        self.folder.child(file).setContent(content)

    def test_byFile(self) -> None:
        """
        A key and its certificates may be in one file or in several, with the authority's
        certificate or without.
        """
        self.put("a.pem", AUTHORITY.serverPEM(["a.example", "www.a.example"]))
        key, _, rest = AUTHORITY.serverPEM(["b.example"]).partition(b"-----BEGIN CERT")
        self.put("b.pem", b"-----BEGIN CERT" + rest)
        self.put("key.pem", key)
        self.put("c.txt", b"nothing")
        server = FolderTLS(self.folder.path)
        self.assertEqual(self.got(server, "www.a.example"), {"CN=a.example"})
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})

    def test_twice(self) -> None:
        """Of two certificates for one name, the one that expires later is used."""
        self.put("b.pem", AUTHORITY.serverPEM(["new.example", "a.example"]))
        self.patch(ca, "_LIFETIME", timedelta(days=1))
        self.put("a.pem", AUTHORITY.serverPEM(["old.example", "a.example"]))
        self.put("c.pem", AUTHORITY.serverPEM(["old.example", "a.example"]))
        server = FolderTLS(self.folder.path)
        self.assertEqual(self.got(server, "a.example"), {"CN=new.example"})

    def test_added(self) -> None:
        """
        A certificate that is added to the folder is used for the next handshake with its name; a
        malformed one has no effect.
        """
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        server = FolderTLS(self.folder.path, self.clock.seconds)
        self.put("b.pem", AUTHORITY.serverPEM(["b.example"]))
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})
        self.clock.advance(1)
        self.put("c.pem", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
        self.assertEqual(self.got(server, "c.example"), self.got(server, None))
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})

    def test_brokenFirst(self) -> None:
        """A file that is read while it is written is read again when it is complete."""
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        server = FolderTLS(self.folder.path, self.clock.seconds)
        whole = AUTHORITY.serverPEM(["b.example"])
        file = self.folder.child("b.pem")
        with open(file.path, "wb") as written:
            written.write(whole.replace(b"M", b"!", 50))
        self.assertEqual(self.got(server, "b.example"), {"CN=a.example"})
        with open(file.path, "wb") as written:
            written.write(whole)
        changeMode(file.path, 0o600)
        self.clock.advance(1)
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})

    def test_halfRenewed(self) -> None:
        """While only the key of one pair has been replaced, every name keeps its certificate."""
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        self.put("b.pem", AUTHORITY.serverPEM(["b.example"]))
        server = FolderTLS(self.folder.path)
        key, mark, rest = AUTHORITY.serverPEM(["b.example"]).partition(b"-----BEGIN CERT")
        old = self.folder.child("b.pem").getContent()
        self.put("b.pem", key + old[old.index(mark) :])
        before = server.contextFor(b"b.example")
        server.look()
        self.assertIs(server.contextFor(b"b.example"), before)
        self.put("b.pem", key + mark + rest)
        server.look()
        self.assertIsNot(server.contextFor(b"b.example"), before)
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})

    def test_withdrawn(self) -> None:
        """
        A pair that is removed, and a certificate whose key has never been there, hinder no other
        change.
        """
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        self.put("b.pem", AUTHORITY.serverPEM(["b.example"]))
        server = FolderTLS(self.folder.path)
        pem = AUTHORITY.serverPEM(["c.example"])
        self.put("c.pem", pem[pem.index(b"-----BEGIN CERT") :])
        self.folder.child("b.pem").remove()
        server.look()
        self.assertEqual(self.got(server, "b.example"), {"CN=a.example"})

    def test_flood(self) -> None:
        """Handshakes with unknown names look at the folder once in a second at most."""
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        server = FolderTLS(self.folder.path, self.clock.seconds)
        looks: list[float] = []
        self.patch(server, "look", lambda: looks.append(self.clock.seconds()))
        for name in (b"b.example", b"c.example", b"b.example"):
            for _ in range(3):
                server.contextFor(name)
            self.clock.advance(0.5)
        self.assertEqual(looks, [0, 1])

    def test_below(self) -> None:
        """A certificate that is put into a folder below it is found, too."""
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        below = self.folder.child("b")
        below.makedirs()
        server = FolderTLS(self.folder.path)
        below.child("b.pem").setContent(AUTHORITY.serverPEM(["b.example"]))
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})

    def test_circle(self) -> None:
        """A symbolic link to a folder is followed, but not in a circle."""
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        elsewhere = self.mktemp()
        os.mkdir(elsewhere)
        Path(elsewhere, "b.pem").write_bytes(AUTHORITY.serverPEM(["b.example"]))
        os.symlink(os.path.abspath(elsewhere), self.folder.child("elsewhere").path)
        os.symlink(os.path.abspath(self.folder.path), self.folder.child("again").path)
        server = FolderTLS(self.folder.path)
        self.assertEqual(self.got(server, "b.example"), {"CN=b.example"})

    def test_description(self) -> None:
        """C{tls:} in a description creates such an endpoint, or fails with an error of one line."""
        self.put("a.pem", AUTHORITY.serverPEM(["a.example"]))
        reactor = MemoryReactor()
        path = self.folder.path
        description = f"tls:{path}:8443:interface=\\:\\:1"
        folderEndpoint(TLSReactor(reactor), description).endpoint.listen(Negotiating())
        [(port, factory, _backlog, interface)] = reactor.tcpServers
        self.assertEqual((port, interface), (8443, "::1"))
        self.assertIsInstance(factory, TLSMemoryBIOFactory)
        empty = self.mktemp()
        os.mkdir(empty)
        locked = self.mktemp()
        os.mkdir(locked)
        Path(locked, "b.pem").write_bytes(encrypted(AUTHORITY.serverPEM(["b.example"])))
        for wrong, reason in (
            (f"tls:{locked}:443", f"{locked}/b.pem: Password was not given"),
            (f"tls:{path}:1:2:3:4", "write it as tls:FOLDER:PORT"),
            (f"tls:{empty}:443", "no certificate with its key"),
            (f"tls:{empty}/none:443", f"there is no {empty}/none here"),
        ):
            with self.assertRaises(ConfigError) as caught:
                HubMirror(reactor, MirrorConfig(port=(wrong,)))
            self.assertIn(reason, str(caught.exception))
