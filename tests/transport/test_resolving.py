"""Tests of the resolution of names, with a filter for addresses."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostnameResolver
from twisted.names import common, dns
from twisted.names.authority import FileAuthority
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hubmirror.protocol.forwarded import Address
from hubmirror.transport.resolving import CheckedResolver, ServerResolver
from tests.transport.support import Names


class Resolved:
    """
    Receives the addresses of a name.

    @ivar complete: fires with the addresses, in order.
    """

    def __init__(self) -> None:
        self.complete: Deferred[list[tuple[str, int]]] = Deferred()
        self._found: list[tuple[str, int]] = []
        self.began: list[Any] = []

    def resolutionBegan(self, resolution: Any) -> None:
        self.began.append(resolution)

    def addressResolved(self, address: IAddress) -> None:
        self._found.append((address.host, address.port))  # type: ignore[attr-defined]

    def resolutionComplete(self) -> None:
        self.complete.callback(self._found)


def resolve(resolver: IHostnameResolver, name: str) -> Resolved:
    resolved = Resolved()
    resolver.resolveHostName(resolved, name, 443)
    return resolved


class Zone(FileAuthority):
    """
    The records of a DNS server, without a file.
    """

    def __init__(self, records: dict[bytes, list[Any]]) -> None:
        common.ResolverBase.__init__(self)
        start = dns.Record_SOA(b"ns.example", b"root.example")
        self.soa = (b"example", start)
        self.records = {b"example": [start], **records}


class CheckedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.names = Names(
            cdn_example=["127.0.0.1", "198.51.100.1", "::ffff:127.0.0.1", "2001:db8::1"],
            evil_example=["::ffff:127.0.0.1"],
        )
        self.checked: list[Address] = []
        self.resolver = CheckedResolver(self.names, self.permits)

    def permits(self, address: Address) -> bool:
        self.checked.append(address)
        return address.version == 6 or address not in IPv4Network("127.0.0.0/8")

    def addresses(self, name: str) -> list[str]:
        found = self.successResultOf(resolve(self.resolver, name).complete)
        return [host for host, _ in found]

    def test_leftOut(self) -> None:
        self.assertEqual(self.addresses("cdn.example"), ["198.51.100.1", "2001:db8::1"])
        self.assertEqual(self.resolver.refused, ip_address("127.0.0.1"))

    def test_mapped(self) -> None:
        """A mapped address is checked as the IPv4 address in it."""
        self.assertEqual(self.addresses("evil.example"), [])
        self.assertEqual(self.checked, [ip_address("127.0.0.1")])

    def test_refusedAnew(self) -> None:
        """An address that was refused once does not change the error of a later failure."""
        self.addresses("evil.example")
        self.addresses("unknown.example")
        self.assertIsNone(self.resolver.refused)


class ServerTests(TestCase):
    """Tests with a DNS server on a real port of 127.0.0.1."""

    async def setUp(self) -> None:
        zone = Zone(
            {
                b"both.example": [
                    dns.Record_A("192.0.2.1", 60),
                    dns.Record_A("192.0.2.2", 60),
                    dns.Record_AAAA("2001:db8::1", 60),
                ],
                b"four.example": [dns.Record_A("192.0.2.1", 60)],
                b"six.example": [dns.Record_AAAA("2001:db8::1", 60)],
                b"alias.example": [dns.Record_CNAME(b"four.example", 60)],
                b"text.example": [dns.Record_TXT(b"192.0.2.1")],
            },
        )
        factory = DNSServerFactory(authorities=[zone])
        factory.noisy = False
        port = reactor.listenUDP(  # type: ignore[attr-defined]
            0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        self.resolver = ServerResolver(reactor, "127.0.0.1", port.getHost().port)

    async def test_table(self) -> None:
        """IPv6 addresses come first, all with the requested port."""
        for name, expected in (
            ("both.example", ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
            ("four.example", ["192.0.2.1"]),
            ("six.example", ["2001:db8::1"]),
            ("alias.example", ["192.0.2.1"]),
            ("text.example", []),
            ("unknown.example", []),
        ):
            found = await resolve(self.resolver, name).complete
            # This server returns an alias's address twice.
            self.assertEqual(list(dict.fromkeys(found)), [(host, 443) for host in expected], name)

    def test_literal(self) -> None:
        """No query is sent for an address."""
        for host in ("192.0.2.1", "2001:db8::1"):
            resolved = resolve(self.resolver, host)
            self.assertEqual(self.successResultOf(resolved.complete), [(host, 443)])
            [resolution] = resolved.began
            self.assertEqual(resolution.name, host)
