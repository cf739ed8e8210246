"""Tests of new connections: the addresses, the proxy, and the errors."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from OpenSSL import SSL
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import AddressRefused, ConnectFailed, ConnectTimedOut, LocalFailure
from hubmirror.protocol.forwarded import Address
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.testing.ca import Authority
from hubmirror.transport import connecting, failures
from hubmirror.transport.connecting import ConnectCancelled, Connector, loadTrust
from hubmirror.transport.http1client import UpstreamConnection
from hubmirror.upstream.policy import AddressPolicy
from tests.transport.support import HERE, THERE, Names
from tests.wire.support import Line

PUBLIC, PRIVATE = "1.1.1.1", "10.0.0.1"


def origin(url: bytes) -> Origin:
    return splitURL(url)[0]


def noDescriptor(*_arguments: object) -> int:
    """An C{os.open} that fails."""
    raise OSError(errno.EMFILE, "Too many open files")


class ConnectCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.names = Names(
            cdn_example=[PUBLIC],
            inside_example=[PRIVATE],
            mapped_example=["::ffff:10.0.0.1"],
            both_example=[PRIVATE, PUBLIC],
            six_example=["2606:4700::1111"],
            proxy_example=["192.168.0.1"],
        )
        self.reactor.installNameResolver(self.names)
        self.connector = self.makeConnector()

    def makeConnector(self, *allowed: Any, **options: Any) -> Connector:
        def permits(origin: Origin, address: Address) -> bool:
            return AddressPolicy([], allowed).permits(origin, address)

        return Connector(
            self.reactor, trust=ssl.platformTrust(), permits=permits, timeout=5.0, **options
        )

    def connect(
        self,
        url: bytes,
        released: Callable[[UpstreamConnection], None] = lambda connection: None,
    ) -> Deferred[UpstreamConnection]:
        return Deferred.fromCoroutine(self.connector.connect(origin(url), released))

    @property
    def places(self) -> list[tuple[str, int]]:
        """The addresses to which a connection was requested."""
        return [client[:2] for client in self.reactor.tcpClients]

    def accept(self) -> Line:
        """Accept the latest connection."""
        protocol = self.reactor.tcpClients[-1][2].buildProtocol(THERE)
        line = Line(self.reactor, protocol, HERE, THERE)
        protocol.makeConnection(line)
        return line

    def message(self, connecting: Deferred[Any], kind: type[ConnectFailed]) -> str:
        return self.failureResultOf(connecting, kind).value.message


class PlainTests(ConnectCase):
    def test_ready(self) -> None:
        """The connection can be used, and is given back to its owner."""
        released: list[UpstreamConnection] = []
        connecting = self.connect(b"http://cdn.example:8080", released.append)
        self.assertEqual(self.places, [(PUBLIC, 8080)])
        self.assertNoResult(connecting)
        line = self.accept()
        connection = self.successResultOf(connecting)
        asked = connection.send(b"HEAD", b"/", b"cdn.example", Headers(), None)
        line.says(b"HTTP/1.1 200 OK\r\n\r\n")
        self.successResultOf(asked)
        self.assertEqual(released, [connection])

    def test_addresses(self) -> None:
        for url, place in (
            (b"http://six.example", ("2606:4700::1111", 80)),
            (b"https://cdn.example", (PUBLIC, 443)),
            (b"http://[2606:4700::1111]:8080", ("2606:4700::1111", 8080)),
            (b"http://1.1.1.1", (PUBLIC, 80)),
        ):
            self.connect(url)
            self.assertEqual(self.places[-1], place)

    def test_unusualNames(self) -> None:
        """Names that DNS allows, though IDNA refuses them, are resolved without changes."""
        for host in (b"a_b.example", b"r3---cdn.example", b"_x.example.", b"a" * 63 + b".example"):
            self.names.known[host.decode()] = [PUBLIC]
            for scheme, port in ((b"http", 80), (b"https", 443)):
                self.connect(scheme + b"://" + host)
                self.assertEqual(self.places.pop(), (PUBLIC, port), host)
                self.reactor.tcpClients.clear()

    def test_trust(self) -> None:
        """
        The CA certificates are read once, before the first connection: later, a process might have
        no file descriptor to read them.
        """
        read: list[object] = []
        self.patch(SSL.Context, "set_default_verify_paths", lambda self: read.append(self))
        self.connector = self.makeConnector()
        self.assertEqual(len(read), 1)
        for url in (b"https://cdn.example", b"https://six.example"):
            self.connect(url)
            self.assertEqual(self.accept().hears()[:1], b"\x16")
        self.assertEqual(len(read), 1)

    def test_ownResolver(self) -> None:
        asked: list[Any] = []

        def makeResolver(*arguments: Any) -> Names:
            asked.append(arguments)
            return Names(cdn_example=["9.9.9.9"])

        self.patch(connecting, "ServerResolver", makeResolver)
        self.connector = self.makeConnector(resolver=("1.1.1.1", 53))
        self.connect(b"http://cdn.example")
        self.assertEqual(asked, [(self.reactor, "1.1.1.1", 53)])
        self.assertEqual(self.places, [("9.9.9.9", 80)])


class AddressTests(ConnectCase):
    def test_refused(self) -> None:
        """No packet is sent to an address that is not public, in whatever way it is written."""
        for host in (
            b"inside.example",
            b"mapped.example",
            b"127.0.0.1",
            b"169.254.169.254",
            b"[::1]",
            b"[::ffff:10.0.0.1]",
            b"[64:ff9b::10.0.0.1]",
        ):
            for scheme in (b"http", b"https"):
                url = scheme + b"://" + host
                text = self.message(self.connect(url), AddressRefused)
                self.assertIn(str(origin(url)), text)
                self.assertIn("--allow-redirects-to", text)
        self.assertEqual(self.places, [])

    def test_onlyPublic(self) -> None:
        self.connect(b"http://both.example")
        self.reactor.advance(1)
        self.assertEqual(self.places, [(PUBLIC, 80)])

    def test_allowed(self) -> None:
        self.connector = self.makeConnector(origin(b"http://inside.example"))
        self.connect(b"http://inside.example")
        self.assertEqual(self.places, [(PRIVATE, 80)])
        self.message(self.connect(b"http://mapped.example"), AddressRefused)

    def test_everyTime(self) -> None:
        """The addresses of a name are checked at each connection."""
        self.connect(b"http://cdn.example")
        self.names.known["cdn.example"] = [PRIVATE]
        self.message(self.connect(b"http://cdn.example"), AddressRefused)
        self.names.known["cdn.example"] = []
        text = self.message(self.connect(b"http://cdn.example"), ConnectFailed)
        self.assertEqual(text, "the name does not resolve")
        self.assertEqual(self.places, [(PUBLIC, 80)])


class FailureTests(ConnectCase):
    def test_unknownName(self) -> None:
        text = self.message(self.connect(b"https://unknown.example"), ConnectFailed)
        self.assertEqual(text, "the name does not resolve")

    def test_impossibleName(self) -> None:
        """A redirect may contain an invalid name."""
        long = b".".join([b"a" * 60] * 4) + b".example.org"
        for host in (b"a..b", b".", b".a", b"!", b"a$b", b"xn--", b"a" * 64 + b".example", long):
            for scheme in (b"http", b"https"):
                connecting = self.connect(scheme + b"://" + host)
                self.failureResultOf(connecting, ConnectFailed)
        self.assertEqual(self.places, [])

    def test_refused(self) -> None:
        connecting = self.connect(b"http://cdn.example")
        factory = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError(PUBLIC)))
        # The endpoint checks whether there is another address.
        self.reactor.advance(1)
        self.assertEqual(self.message(connecting, ConnectFailed), "connection refused")

    def test_timeout(self) -> None:
        connecting = self.connect(b"http://cdn.example")
        self.reactor.advance(4)
        self.assertNoResult(connecting)
        self.reactor.advance(1)
        text = self.message(connecting, ConnectTimedOut)
        self.assertEqual(text, "could not connect within 5 s")

    def test_handshakeTimeout(self) -> None:
        """The timeout covers the name, the connection and TLS together."""
        connecting = self.connect(b"https://cdn.example")
        self.reactor.advance(3)
        line = self.accept()
        self.assertEqual(line.hears()[:1], b"\x16")
        self.reactor.advance(2)
        self.message(connecting, ConnectTimedOut)
        self.assertEqual(line.ended, "aborted")
        self.reactor.advance(0)

    def test_noDescriptors(self) -> None:
        """Without file descriptors, names can't be resolved.  This is not the upstream's fault."""
        with self.patched(noDescriptor):
            text = self.message(self.connect(b"http://no.example"), LocalFailure)
        self.assertEqual(text, "the mirror has no file descriptor left for it")
        self.message(self.connect(b"http://no.example"), ConnectFailed)

    @contextmanager
    def patched(self, opening: Callable[..., int]) -> Iterator[None]:
        """Run with this function in place of C{os.open}."""
        patch = self.patch(failures.os, "open", opening)
        try:
            yield
        finally:
            patch.restore()

    def test_cancelled(self) -> None:
        """Cancelling because the client has left is not a failure of the upstream."""
        connecting = self.connect(b"http://cdn.example")
        connecting.cancel()
        self.failureResultOf(connecting, ConnectCancelled)

    def test_lookup(self) -> None:
        """
        If the timeout ends while a name is being resolved, the error does not state that the name
        does not exist.
        """
        self.names.silent.add("cdn.example")
        for scheme in (b"http", b"https"):
            connecting = self.connect(scheme + b"://cdn.example")
            connecting.cancel()
            self.failureResultOf(connecting, ConnectCancelled)
            connecting = self.connect(scheme + b"://cdn.example")
            self.reactor.advance(5)
            self.message(connecting, ConnectTimedOut)

    def test_cancelledInHandshake(self) -> None:
        connecting = self.connect(b"https://cdn.example")
        line = self.accept()
        connecting.cancel()
        self.failureResultOf(connecting, ConnectCancelled)
        self.assertEqual(line.ended, "aborted")
        self.reactor.advance(0)


class ProxyTests(ConnectCase):
    """A proxy resolves names itself.  Only the proxy is connected to, whatever its address is."""

    def test_http(self) -> None:
        self.connector = self.makeConnector(proxy="http://proxy.example:3128")
        connecting = self.connect(b"http://cdn.example:8080")
        self.assertEqual(self.places, [("192.168.0.1", 3128)])
        line = self.accept()
        self.assertIn(b"CONNECT cdn.example:8080 HTTP/1.1\r\n", line.hears())
        line.says(b"HTTP/1.1 200 OK\r\n\r\n")
        connection = self.successResultOf(connecting)
        connection.send(b"GET", b"/", b"cdn.example:8080", Headers(), None)
        self.assertEqual(line.hears(), b"GET / HTTP/1.1\r\nHost: cdn.example:8080\r\n\r\n")

    def test_tls(self) -> None:
        """The TLS connection is with the origin, not with the proxy."""
        self.connector = self.makeConnector(proxy="socks5://192.168.0.1:1080")
        self.connect(b"https://cdn.example")
        line = self.accept()
        line.says(b"\x05\x00")
        line.hears()
        line.says(b"\x05\x00\x00\x01\0\0\0\0\0\0")
        hello = line.hears()
        self.assertEqual(hello[:2], b"\x16\x03")
        # SNI and ALPN are sent.
        self.assertIn(b"cdn.example", hello)
        self.assertIn(b"http/1.1", hello)

    def test_literal(self) -> None:
        """An address in a URL is checked even with a proxy."""
        self.connector = self.makeConnector(proxy="http://proxy.example:3128")
        for url in (b"http://10.0.0.1", b"https://[::1]"):
            self.message(self.connect(url), AddressRefused)
        self.assertEqual(self.places, [])
        for url in (b"http://1.1.1.1", b"http://1.1.1.1."):
            self.connect(url)
            self.assertEqual(self.places.pop(), ("192.168.0.1", 3128))

    def test_looksLikeAName(self) -> None:
        """A host that the proxy would interpret as an address is refused, with the same advice."""
        self.connector = self.makeConnector(proxy="socks5://192.168.0.1:1080")
        for host in (
            b"127.1",
            b"0x7f000001",
            b"2130706433",
            b"0177.0.0.1",
            b"127.0.0.1.",
            b"localhost",
            b"LocalHost.",
            b"a.localhost",
            b"name.7",
        ):
            for scheme in (b"http", b"https"):
                url = scheme + b"://" + host
                text = self.message(self.connect(url), AddressRefused)
                self.assertIn(str(origin(url)), text)
                self.assertIn("--allow-redirects-to", text)
        self.assertEqual(self.places, [])

    def test_allowed(self) -> None:
        """Origins that the operator has allowed are connected to, in any spelling."""
        urls = (b"http://localhost:5000", b"http://127.1", b"http://10.0.0.1")
        allowed = [origin(url) for url in urls]
        self.connector = self.makeConnector(*allowed, proxy="http://proxy.example:3128")
        for url in urls:
            self.connect(url)
            self.assertEqual(self.places.pop(), ("192.168.0.1", 3128))
        self.message(self.connect(b"http://localhost:5001"), AddressRefused)

    def test_refused(self) -> None:
        self.connector = self.makeConnector(proxy="http://proxy.example:3128")
        connecting = self.connect(b"https://cdn.example")
        self.accept().says(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        text = self.message(connecting, ConnectFailed)
        self.assertEqual(text, "the proxy refused the connection (407)")
        self.reactor.advance(0)


class TrustTests(SynchronousTestCase):
    def load(self, content: bytes) -> Any:
        file = FilePath(self.mktemp())
        file.setContent(content)
        return loadTrust(file.path)

    def test_system(self) -> None:
        self.assertIsInstance(loadTrust(None), type(ssl.platformTrust()))

    def test_noDescriptors(self) -> None:
        """OpenSSL would not report that it could open no file."""
        self.patch(failures.os, "open", noDescriptor)
        error = self.assertRaises(ValueError, loadTrust, None)
        self.assertRegex(str(error), "system's CAs can't be read: .* no file descriptor")

    def test_bundle(self) -> None:
        """A bundle may have other text between the certificates."""
        pem = Authority().pem
        self.load(b"# one\n" + pem + b"\n# two\r\n" + Authority().pem.replace(b"\n", b"\r\n"))

    def test_useless(self) -> None:
        for content in (
            b"",
            b"no certificate",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ):
            error = self.assertRaises(ValueError, self.load, content)
            self.assertRegex(str(error), "contains no PEM certificates")

    def test_missing(self) -> None:
        error = self.assertRaises(ValueError, loadTrust, self.mktemp())
        self.assertRegex(str(error), "can't be read: No such file or directory")
