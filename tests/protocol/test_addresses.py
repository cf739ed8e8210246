"""
Tests of which addresses are public, and which hosts stand for an address.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.addresses import RESERVED, hostAddress, isGlobal

GLOBAL = [
    "1.1.1.1",
    "104.16.99.215",
    "168.63.129.15",
    "168.63.129.17",
    "192.88.98.1",
    "192.88.100.1",
    "2606:4700::6810:63d7",
    "2a01:4f8::1",
    "2001:200::1",
    "3fff:1000::1",
    # IPv6 addresses that carry a public IPv4 address.
    "::ffff:1.1.1.1",
    "64:ff9b::1.1.1.1",
    "2002:101:101::1",
]

#: Addresses that are not public, and what they are.
NOT_GLOBAL = {
    "0.0.0.0": "RFC 791",
    "0.255.255.255": "RFC 791",
    "10.0.0.1": "RFC 1918",
    "100.64.0.1": "RFC 6598",
    "100.127.255.255": "RFC 6598",
    "127.0.0.1": "RFC 1122",
    "127.255.255.254": "RFC 1122",
    "169.254.0.1": "RFC 3927",
    "172.16.0.1": "RFC 1918",
    "172.31.255.255": "RFC 1918",
    "192.0.0.1": "RFC 6890",
    "192.0.0.8": "RFC 7600, IPv4 dummy address",
    "192.0.0.9": "RFC 7723, Port Control Protocol anycast",
    "192.0.0.10": "RFC 8155, TURN anycast",
    "192.0.0.170": "RFC 7050, NAT64 discovery",
    "192.0.2.1": "RFC 5737",
    "192.31.196.1": "RFC 7535",
    "192.52.193.1": "RFC 7450",
    "192.88.99.1": "RFC 7526",
    "192.88.99.2": "RFC 6751",
    "192.168.0.1": "RFC 1918",
    "192.175.48.1": "RFC 7534",
    "198.18.0.1": "RFC 2544",
    "198.19.255.255": "RFC 2544",
    "198.51.100.1": "RFC 5737",
    "203.0.113.1": "RFC 5737",
    "224.0.0.1": "RFC 5771",
    "239.255.255.250": "RFC 5771",
    "240.0.0.1": "RFC 1112",
    "255.255.255.255": "RFC 8190",
    "::": "RFC 4291",
    "::1": "RFC 4291",
    "100::1": "RFC 6666",
    "100:0:0:1::1": "RFC 9780",
    "2001:1::1": "RFC 7723",
    "2001:2::1": "RFC 5180",
    "2001:3::1": "RFC 7450",
    "2001:4:112::1": "RFC 7535",
    "2001:10::1": "RFC 4843",
    "2001:20::1": "RFC 7343",
    "2001:30::1": "RFC 9374",
    "2001:db8::1": "RFC 3849",
    "2620:4f:8000::1": "RFC 7534",
    "3ffe::1": "RFC 3701",
    "3fff::1": "RFC 9637",
    "3fff:fff:ffff::1": "RFC 9637",
    "4000::1": "RFC 4291: not yet given to anybody",
    "5f00::1": "RFC 9602",
    "fc00::1": "RFC 4193",
    "fd12:3456::1": "RFC 4193",
    "fe80::1": "RFC 4291",
    "fec0::1": "RFC 3879",
    "ff02::1": "RFC 4291",
    "ff0e::1": "RFC 4291",
    # The metadata services of clouds, which may contain credentials.
    "169.254.169.254": "AWS, Azure, Google Cloud, DigitalOcean and many more: metadata",
    "169.254.170.2": "AWS: credentials of ECS tasks",
    "169.254.169.253": "AWS: DNS",
    "169.254.0.23": "Tencent Cloud: metadata",
    "100.100.100.200": "Alibaba Cloud: metadata",
    "168.63.129.16": "Azure: platform services",
    "192.0.0.192": "Oracle Cloud Classic: metadata",
    "fd00:ec2::254": "AWS: metadata",
    "fd00:ec2::253": "AWS: DNS",
    "fd20:ce::254": "Google Cloud: metadata",
    "fd00:42::42": "Scaleway: metadata",
    # IPv6 addresses that carry one of the IPv4 addresses above.
    "::127.0.0.1": "RFC 4291, IPv4-compatible",
    "::ffff:127.0.0.1": "RFC 4291, IPv4-mapped",
    "::ffff:168.63.129.16": "RFC 4291, IPv4-mapped",
    "::ffff:0:127.0.0.1": "RFC 2765, IPv4-translated",
    "64:ff9b::10.0.0.1": "RFC 6052, NAT64",
    "64:ff9b::169.254.169.254": "RFC 6052, NAT64",
    "64:ff9b:1::10.0.0.1": "RFC 8215, NAT64 of a network's own",
    "64:ff9b:1::1.1.1.1": "RFC 8215, NAT64 of a network's own",
    "2002:7f00:1::1": "RFC 3056, 6to4",
    "2002:a9fe:a9fe::1": "RFC 3056, 6to4",
    "2001:0:7f00:1::1": "RFC 4380, Teredo",
    "2001:0:101:101::1": "RFC 4380, Teredo",
}


class AddressTests(SynchronousTestCase):
    def test_global(self) -> None:
        """Addresses that a registry or a CDN can have are public."""
        for address in GLOBAL:
            self.assertTrue(isGlobal(ip_address(address)), address)

    def test_notGlobal(self) -> None:
        """Addresses in the mirror's own network, and unusable ones, are not public."""
        for address, whose in NOT_GLOBAL.items():
            self.assertFalse(isGlobal(ip_address(address)), (address, whose))

    def test_everyRow(self) -> None:
        """Each reserved network is refused from its first to its last address, and has a source."""
        for row in RESERVED:
            self.assertTrue(row.purpose and row.source, row)
            for address in (row.network[0], row.network[-1]):
                self.assertFalse(isGlobal(address), address)

    @given(st.ip_addresses(v=4))
    def test_carried(self, address: IPv4Address) -> None:
        """An IPv6 address that carries an IPv4 address is judged by that."""
        number = int(address)
        for wrapped in (
            f"::ffff:{address}",
            f"64:ff9b::{address}",
            f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        ):
            self.assertEqual(isGlobal(ip_address(wrapped)), isGlobal(address))


class HostTests(SynchronousTestCase):
    def test_literal(self) -> None:
        """An address in its usual spelling stands for that address."""
        for host, address in (
            (b"1.1.1.1", "1.1.1.1"),
            (b"1.1.1.1.", "1.1.1.1"),
            (b"127.0.0.1", "127.0.0.1"),
            (b"::1", "::1"),
            (b"::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ):
            self.assertEqual(hostAddress(host), ip_address(address))

    def test_notPublic(self) -> None:
        """Some hosts that look like names stand for an address that is not public."""
        for host in (
            b"127.1",
            b"127.0.1",
            b"0x7f000001",
            b"0X7F.1",
            b"0x7f.0.0.1",
            b"2130706433",
            b"017700000001",
            b"0177.0.0.1",
            b"0127.0.0.1",
            b"127.0.0.0x1",
            b"127.0.0.0x",
            b"127.0.0.1.",
            b"127.1.",
            b"127.1..",
            b"16843009",
            b"1.2.3.4.5",
            b"256.256.256.256",
            b"99999999999999999999",
            b"name.0",
            b"name.0x9",
            b"localhost",
            b"LOCALHOST",
            b"localhost.",
            b"a.b.localhost",
        ):
            address = hostAddress(host)
            assert address is not None, host
            self.assertFalse(isGlobal(address), host)

    def test_names(self) -> None:
        """Names are not judged before they are resolved."""
        for host in (
            b"registry-1.docker.io",
            b"1.1.1.1.example",
            b"127.0.0.1x",
            b"0xg",
            b"x7f",
            b"7f000001",
            b"localhost.example",
            b"mylocalhost",
            b"1-1",
            b"",
            b".",
        ):
            self.assertIsNone(hostAddress(host), host)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2**33), st.sampled_from(["%d", "0%o", "0x%x", "0X%X", "000%o"])
            ),
            min_size=1,
            max_size=5,
        ),
        st.sampled_from(["", "."]),
    )
    def test_systems(self, parts: list[tuple[int, str]], dot: str) -> None:
        """A host that the system's C library interprets as an address is never taken for a name."""
        host = ".".join(form % number for number, form in parts)
        address = hostAddress((host + dot).encode())
        self.assertIsNotNone(address)
        try:
            packed = socket.inet_aton(host)
        except OSError:
            return
        if not isGlobal(IPv4Address(packed)):
            assert address is not None
            self.assertFalse(isGlobal(address))
