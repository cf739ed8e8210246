"""
Tests of the header of the PROXY protocol.
"""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.proxyheader import End, ProxyHeader, readHeader

BEGINNING = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = st.integers(0, 0xFFFF)


def binary(command: int, kind: int, block: bytes) -> bytes:
    return BEGINNING + struct.pack("!BBH", command, kind, len(block)) + block


@st.composite
def valid(draw: st.DrawFn) -> tuple[bytes, object]:
    """
    A header of either version, and the ends that it names.
    """
    version = draw(st.sampled_from([4, 6]))
    addresses = [draw(st.ip_addresses(v=version)) for _ in "12"]
    ports = [draw(PORTS), draw(PORTS)]
    ends = tuple(map(End, addresses, ports))
    further = draw(st.binary(max_size=300))
    packed = b"".join(address.packed for address in addresses) + struct.pack("!HH", *ports)
    line = f"TCP{version} {addresses[0]} {addresses[1]} {ports[0]} {ports[1]}"
    return draw(
        st.sampled_from(
            [
                (f"PROXY {line}\r\n".encode(), ends),
                (f"PROXY UNKNOWN {line[5:]}\r\n".encode(), None),
                (b"PROXY UNKNOWN\r\n", None),
                (binary(0x21, 0x11 if version == 4 else 0x21, packed + further), ends),
                (binary(0x21, 0x12 if version == 4 else 0x22, packed), ends),
                # What is of no IP address, or of an unknown kind.
                (binary(0x21, 0x31, bytes(216)), None),
                (binary(0x21, 0x00, further), None),
                # A health check, whose block is to be ignored.
                (binary(0x20, draw(st.integers(0, 255)), further), None),
            ]
        )
    )


# Bytes that begin as headers do.
SOUP = st.binary(max_size=250) | st.one_of(
    st.tuples(st.just(b"PROXY "), st.text("TCP46UNKOW .:0123456789abf\r\n", max_size=120)).map(
        lambda pair: pair[0] + pair[1].encode()
    ),
    st.tuples(st.just(BEGINNING), st.binary(max_size=250)).map(b"".join),
)


class HeaderTests(SynchronousTestCase):
    @given(valid(), st.binary(max_size=20))
    def test_valid(self, header: tuple[bytes, object], rest: bytes) -> None:
        """A header is recognized when its last byte has been received, and not before."""
        data, ends = header
        for length in range(len(data)):
            self.assertIsNone(readHeader(data[:length]))
        self.assertEqual(readHeader(data + rest), ProxyHeader(len(data), ends))

    def test_malformed(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00",
            b"PROXY\r\n",
            b"PROXY \r\n",
            b"PROXY UNKNOWNX\r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP4 192.0.2.9 192.0.2.1 x 443\r\n",
            b"PROXY TCP4 192.0.2.9 192.0.2.1 1 65536\r\n",
            b"PROXY TCP4 192.0.2.9 192.0.2.1 01 443\r\n",
            b"PROXY TCP4 192.0.2.9 192.0.2.1 1 443 \r\n",
            b"PROXY TCP4 192.0.2.9 192.0.2.1 1\r\n",
            b"PROXY TCP4 abc 192.0.2.1 1 443\r\n",
            b"PROXY TCP4 192.0.2.256 192.0.2.1 1 443\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 443\r\n",
            b"PROXY TCP6 192.0.2.9 192.0.2.1 1 443\r\n",
            b"PROXY TCP6 fe80::1%eth0 2001:db8::2 1 443\r\n",
            b"PROXY TCP4 \xff 192.0.2.1 1 443\r\n",
            b"PROXY TCP4 192.0.2.9 192.0.2.1 1 443\n\r\n",
            b"PROXY UNKNOWN " + b"x" * 93,
            BEGINNING + b"\x11\x11\0\0",
            BEGINNING + b"\x22\x11\0\0",
            BEGINNING + b"\x21\x41\0\0",
            BEGINNING + b"\x21\x13\0\0",
            binary(0x21, 0x11, bytes(11)),
            binary(0x21, 0x21, bytes(35)),
        ):
            self.assertRaises(ValueError, readHeader, data)

    @given(SOUP)
    def test_foreign(self, data: bytes) -> None:
        """Any bytes are a header, the beginning of one, or refused."""
        try:
            header = readHeader(data)
        except ValueError:
            return
        if header is not None:
            self.assertLessEqual(header.length, len(data))
