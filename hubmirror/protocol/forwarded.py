"""
The address of a client, and the scheme and host that it used, when there are proxies between it and
the mirror (C{Forwarded}, RFC 7239, and the older C{X-Forwarded-*}).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from twisted.web.http_headers import Headers

from hubmirror.protocol.heads import unquoted

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PAIR = re.compile(rb"\b([A-Za-z]+)=(\"(?:[^\"\\]|\\.)*\"|[^;,\"\s]+)")


class Client(NamedTuple):
    """
    The client of a request.

    @ivar address: the client's address; C{None} where the connection has none (a UNIX socket).
    @ivar chain: the addresses for C{X-Forwarded-For} in the request to the upstream, that of the
        mirror's peer last.
    @ivar scheme: the client's scheme according to a trusted proxy, C{b"http"} or C{b"https"}; or
        C{None}.
    @ivar host: the C{Host} that the client used according to a trusted proxy; or C{None}.
    """

    address: Address | None
    chain: tuple[bytes, ...] = ()
    scheme: bytes | None = None
    host: bytes | None = None


def isIn(address: Address | None, networks: Sequence[Network]) -> bool:
    """
    Whether an address is in one of the networks; false when there is no address.
    """
    return address is not None and any(address in network for network in networks)


def unmapped(address: Address) -> Address:
    """
    The IPv4 address in an IPv4-mapped IPv6 address, which is how a dual-stack socket reports an
    IPv4 peer; any other address stays as it is.
    """
    mapped = getattr(address, "ipv4_mapped", None)
    return address if mapped is None else mapped


def findClient(peer: Address | None, headers: Headers, trusted: Sequence[Network]) -> Client:
    """
    Find the client of a request.  The forwarding fields count only when C{peer} is a trusted proxy,
    and only those of their addresses that trusted proxies have appended.  C{Forwarded} counts only
    without any of the older fields: most proxies set those, and pass on what a client writes into
    C{Forwarded}.

    @param peer: the address of the connection's peer; C{None} for a UNIX socket.
    @param headers: the request's fields.
    @param trusted: the networks of the trusted proxies.
    """
    if peer is not None:
        peer = unmapped(peer)
    chain = () if peer is None else (str(peer).encode("ascii"),)
    if not isIn(peer, trusted):
        return Client(peer, chain)
    hops = _members(headers, b"X-Forwarded-For")
    scheme = next(iter(_members(headers, b"X-Forwarded-Proto")), None)
    host = next(iter(_members(headers, b"X-Forwarded-Host")), None)
    if not (hops or scheme or host):
        hops, scheme, host = _fromForwarded(headers)
    if scheme is not None:
        scheme = scheme.lower()
    address = peer
    for hop in reversed(hops):
        found = _address(hop)
        if found is None:
            break
        address = found
        if not isIn(found, trusted):
            break
    return Client(address, (*hops, *chain), scheme if scheme in (b"http", b"https") else None, host)


def _members(headers: Headers, name: bytes) -> list[bytes]:
    joined = b",".join(headers.getRawHeaders(name) or ())
    return [member for part in joined.split(b",") if (member := part.strip())]


def _fromForwarded(headers: Headers) -> tuple[list[bytes], bytes | None, bytes | None]:
    """
    The C{for} of every element, in order, and the first C{proto} and C{host}: those that the client
    used.
    """
    hops: list[bytes] = []
    seen: dict[bytes, bytes] = {}
    for line in headers.getRawHeaders(b"Forwarded") or ():
        for name, value in _PAIR.findall(line):
            if name.lower() == b"for":
                hops.append(unquoted(value))
            else:
                seen.setdefault(name.lower(), unquoted(value))
    return hops, seen.get(b"proto"), seen.get(b"host")


def _address(node: bytes) -> Address | None:
    """
    The address in a node (RFC 7239 6), where an IPv6 address may be in brackets, and a port may
    follow; C{None} when the node has no address.
    """
    match = re.match(rb"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?\Z|([0-9.]+)(?::[0-9]+)?\Z", node)
    text = node if match is None else match[1] or match[2]
    try:
        return unmapped(ip_address(text.decode("latin-1")))
    except ValueError:
        return None
