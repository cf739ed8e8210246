"""
Which IP addresses belong to the public Internet, and which hosts of URLs stand for an address.

A redirect may name any host.  If the mirror followed one into its own network, an upstream could
make it fetch what only that network may read, such as a cloud's metadata service or an intranet
page.  The tables are written out here because those of Python's L{ipaddress} differ between
versions.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple

from hubmirror.protocol.forwarded import Address, Network, unmapped


class Reserved(NamedTuple):
    """
    A block of addresses that does not belong to the public Internet.

    @ivar network: the block.
    @ivar purpose: what its addresses are used for.
    @ivar source: the document that reserves it.
    """

    network: Network
    purpose: str
    source: str


RESERVED: tuple[Reserved, ...] = tuple(
    Reserved(ip_network(network), purpose, source)
    for network, purpose, source in (
        # The whole IANA IPv4 Special-Purpose Address Registry.  The blocks that it calls globally
        # reachable (anycast services for DNS and multicast) hold no registry or CDN either.
        ("0.0.0.0/8", "this network", "RFC 791, 3.2"),
        ("10.0.0.0/8", "private use", "RFC 1918"),
        ("100.64.0.0/10", "shared address space; Alibaba Cloud's metadata", "RFC 6598"),
        ("127.0.0.0/8", "loopback", "RFC 1122, 3.2.1.3"),
        ("169.254.0.0/16", "link-local; most clouds' metadata", "RFC 3927"),
        ("172.16.0.0/12", "private use", "RFC 1918"),
        ("192.0.0.0/24", "IETF protocol assignments; Oracle Cloud's metadata", "RFC 6890, 2.1"),
        ("192.0.2.0/24", "documentation", "RFC 5737"),
        ("192.31.196.0/24", "AS112", "RFC 7535"),
        ("192.52.193.0/24", "AMT", "RFC 7450"),
        ("192.88.99.0/24", "6to4 relay anycast, deprecated", "RFC 7526"),
        ("192.168.0.0/16", "private use", "RFC 1918"),
        ("192.175.48.0/24", "AS112", "RFC 7534"),
        ("198.18.0.0/15", "benchmarking", "RFC 2544"),
        ("198.51.100.0/24", "documentation", "RFC 5737"),
        ("203.0.113.0/24", "documentation", "RFC 5737"),
        ("240.0.0.0/4", "reserved; limited broadcast", "RFC 1112, 4; RFC 8190"),
        # The IANA IPv4 Multicast Address Space Registry.
        ("224.0.0.0/4", "multicast", "RFC 5771"),
        # The part of the IANA IPv6 Special-Purpose Address Registry that lies in 2000::/3.  All
        # other IPv6 addresses are not public (RFC 4291, 2.4), unless they carry an IPv4 address.
        ("2001::/23", "IETF protocol assignments; Teredo", "RFC 2928; RFC 4380"),
        ("2001:db8::/32", "documentation", "RFC 3849"),
        ("2620:4f:8000::/48", "AS112", "RFC 7534"),
        ("3fff::/20", "documentation", "RFC 9637"),
        ("3ffe::/16", "6bone, returned", "RFC 3701"),
        # Ordinary public addresses that a cloud routes to an internal service of its own.
        (
            "168.63.129.16/32",
            "Azure's platform services",
            "learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16",
        ),
    )
)
"""
The blocks that are not public.
"""

_RESERVED_4 = [row.network for row in RESERVED if isinstance(row.network, IPv4Network)]
_RESERVED_6 = [row.network for row in RESERVED if isinstance(row.network, IPv6Network)]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_UNSPECIFIED = IPv4Address("0.0.0.0")
_LOOPBACK = IPv4Address("127.0.0.1")
_NUMBER = re.compile(rb"(?:[0-9]+|0[xX][0-9A-Fa-f]*)\Z")


def isGlobal(address: Address) -> bool:
    """
    Whether an address belongs to the public Internet.  An IPv6 address that carries an IPv4 address
    (mapped, RFC 4291 2.5.5.2; 6to4, RFC 3056; NAT64, RFC 6052) is judged by the IPv4 address.
    """
    address = unmapped(address)
    if isinstance(address, IPv6Address):
        carried = IPv4Address(address.packed[-4:]) if address in _NAT64 else address.sixtofour
        if carried is None:
            return address in _GLOBAL_UNICAST and not any(
                address in network for network in _RESERVED_6
            )
        address = carried
    return not any(address in network for network in _RESERVED_4)


def hostAddress(host: bytes) -> Address | None:
    """
    The address that a host stands for without a DNS lookup, or C{None} for a name.

    C{localhost} and the names below it stand for the loopback address (RFC 6761 6.3).  C{inet_aton}
    takes every host whose last label is a number (WHATWG URL, "ends in a number") for an address,
    even C{127.1}, C{0x7f000001} or C{0177.0.0.1}, and programs disagree on which address these
    are.  Such a host is therefore read as C{0.0.0.0}, which is never public.

    @param host: as in L{Origin.host <hubmirror.protocol.url.Origin>}.
    """
    name = host.rstrip(b".").lower()
    try:
        return ip_address(name.decode("ascii"))
    except ValueError:
        pass
    last = name.rpartition(b".")[2]
    if last == b"localhost":
        return _LOOPBACK
    return _UNSPECIFIED if _NUMBER.match(last) else None
