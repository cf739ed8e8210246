"""
Tests of how a request is read: its client, the mirror's URL, and its target.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror import MirrorConfig
from hubmirror.downstream.incoming import Incoming, Registries, Settings, addressOf, readIncoming
from hubmirror.protocol.errors import BadRequest, LoopDetected, NotAllowed
from hubmirror.upstream.registry import Registry
from tests.downstream.support import HERE, THERE
from tests.upstream.support import RecordingAgent


class Request:
    """
    The parts of a request that are read.
    """

    def __init__(
        self,
        uri: bytes = b"/v2/",
        method: bytes = b"GET",
        peer: Any = THERE,
        here: Any = HERE,
        secure: bool = False,
        **fields: bytes,
    ) -> None:
        self.uri = uri
        self.method = method
        self.requestHeaders = Headers(
            {name.replace("_", "-"): [value] for name, value in fields.items()}
        )
        self.getClientAddress = lambda: peer
        self.getHost = lambda: here
        self.isSecure = lambda: secure

    def getHeader(self, name: bytes) -> bytes | None:
        values = self.requestHeaders.getRawHeaders(name)
        return values[-1] if values else None


def read(request: Request, **options: Any) -> Incoming:
    config = MirrorConfig(port=(), **options)
    made = [Registry(Clock(), config, each, RecordingAgent()) for each in config.allRegistries()]
    return readIncoming(request, Settings(config, Registries(made)), b"hubmirror-1")


class PeerTests(SynchronousTestCase):
    def test_table(self) -> None:
        for peer, address in (
            (IPv4Address("TCP", "192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "2001:db8::7", 1), "2001:db8::7"),
            (IPv6Address("TCP", "fe80::7%eth0", 1), "fe80::7"),
            (UNIXAddress("/run/mirror.sock"), None),
            (None, None),
        ):
            expected = None if address is None else ip_address(address)
            self.assertEqual(addressOf(peer), expected)

    def test_mapped(self) -> None:
        """An IPv4 client on a dual-stack socket is recognized by its IPv4 address."""
        peer = IPv6Address("TCP", "::ffff:192.0.2.7", 1)
        incoming = read(
            Request(peer=peer, Host=b"a", X_Forwarded_Host=b"front"), trusted_proxy="192.0.2.7"
        )
        self.assertEqual(incoming.client.chain, (b"192.0.2.7",))
        self.assertEqual(incoming.base, b"http://front")

    def test_socketIsNoTrustedProxy(self) -> None:
        """A peer without an address is in no network of trusted proxies."""
        incoming = read(
            Request(peer=UNIXAddress("/x"), Host=b"a", X_Forwarded_Host=b"front"),
            trusted_proxy=("0.0.0.0/0", "::/0"),
        )
        self.assertIsNone(incoming.client.address)
        self.assertEqual(incoming.base, b"http://a")


class BaseTests(SynchronousTestCase):
    """
    The mirror's URL for the client.
    """

    def test_table(self) -> None:
        for request, base in (
            (Request(Host=b"mirror.example:5000"), b"http://mirror.example:5000"),
            (Request(Host=b"Mirror.Example"), b"http://Mirror.Example"),
            (Request(Host=b"[2001:db8::1]:5000"), b"http://[2001:db8::1]:5000"),
            (Request(Host=b"a", secure=True), b"https://a"),
            (Request(), b"http://192.0.2.1:5000"),
            (Request(Host=b""), b"http://192.0.2.1:5000"),
            (Request(here=IPv6Address("TCP", "::1", 80)), b"http://[::1]"),
            (Request(here=IPv4Address("TCP", "192.0.2.1", 443), secure=True), b"https://192.0.2.1"),
            (Request(here=UNIXAddress("/run/mirror.sock")), b"http://localhost"),
        ):
            self.assertEqual(read(request).base, base)

    def test_publicURL(self) -> None:
        """The public URL overrides the request."""
        incoming = read(Request(Host=b"x", secure=True), public_url="http://m:1/p/")
        self.assertEqual(incoming.base, b"http://m:1/p")

    def test_malformedHost(self) -> None:
        for host in (b"a b", b"a/b", b"u@a", b"a:b", b"a:99999", b"[::1", b'a"b', b"a\xff"):
            self.assertRaises(BadRequest, read, Request(Host=host))


class RefusalTests(SynchronousTestCase):
    def test_methods(self) -> None:
        for method in (b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"):
            read(Request(method=method, Host=b"a"))
        for method in (b"CONNECT", b"TRACE", b"get", b"PROPFIND"):
            error = self.assertRaises(NotAllowed, read, Request(method=method, Host=b"a"))
            self.assertEqual(error.fields[0][0], b"Allow")

    def test_loop(self) -> None:
        """Two mirrors that are each other's fallback detect the loop."""
        self.assertRaises(
            LoopDetected, read, Request(Host=b"a", Via=b"1.1 other, 1.1 hubmirror-1, 1.1 third")
        )
        read(Request(Host=b"a", Via=b"1.1 hubmirror-12, 1.1 xhubmirror-1"))

    def test_absolute(self) -> None:
        request = Request(b"http://192.0.2.1:5000/v2/a?b#c", Host=b"other")
        self.assertEqual(read(request).target.raw, b"/v2/a?b")
        for uri in (
            b"http://other/v2/",
            b"http://192.0.2.1:5001/v2/",
            b"http://192.0.2.1:5000@evil/v2/",
            b"mailto:x",
            b"192.0.2.1:5000",
            b"",
        ):
            self.assertRaises(BadRequest, read, Request(uri, Host=b"other"))
