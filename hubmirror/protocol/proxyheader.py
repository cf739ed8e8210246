"""
The header with which a load balancer begins a connection: the PROXY protocol, versions 1 and 2
(U{https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt}, sections 2.1 and 2.2).
"""

from __future__ import annotations

import re
import struct
from ipaddress import ip_address
from typing import NamedTuple

from hubmirror.protocol.forwarded import Address

_BEGINNING_1 = b"PROXY "
_LONGEST_1 = 107
_IP4, _IP6, _PORT = rb"([0-9.]+)", rb"([0-9A-Fa-f.]*:[0-9A-Fa-f:.]+)", rb"(0|[1-9][0-9]{0,4})"
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: .*)?|TCP(?:4 %b %b|6 %b %b) %b %b)"
    % (_IP4, _IP4, _IP6, _IP6, _PORT, _PORT),
    re.DOTALL,
)

_BEGINNING_2 = b"\r\n\r\n\0\r\nQUIT\n"
_HEAD_2 = struct.Struct("!12sBBH")
# The addresses of each family that has an IP address.
_BLOCKS = {1: struct.Struct("!4s4sHH"), 2: struct.Struct("!16s16sHH")}
_LOCAL, _PROXY = 0x20, 0x21
_MAX_FAMILY, _MAX_TRANSPORT = 3, 2


class End(NamedTuple):
    """
    One end of a connection.
    """

    address: Address
    port: int


class ProxyHeader(NamedTuple):
    """
    A whole header.

    @ivar length: its length, in bytes.
    @ivar ends: the client's end and the balancer's end of the client's connection; C{None} when the
        addresses of the balancer's own connection apply, as for a health check.
    """

    length: int
    ends: tuple[End, End] | None


def readHeader(data: bytes | bytearray) -> ProxyHeader | None:
    """
    Parse the header at the beginning of a connection.

    @param data: the bytes that have been received so far.
    @return: C{None} when they are the beginning of a header.
    @raise ValueError: when they begin with no header.
    """
    if _BEGINNING_2.startswith(data[: len(_BEGINNING_2)]):
        return _readBinary(data)
    if _BEGINNING_1.startswith(data[: len(_BEGINNING_1)]):
        return _readLine(data)
    raise ValueError("no header of the PROXY protocol")


def _readLine(data: bytes | bytearray) -> ProxyHeader | None:
    line, end, _rest = data[:_LONGEST_1].partition(b"\r\n")
    if not end:
        if len(data) < _LONGEST_1:
            return None
        raise ValueError("the line of the PROXY protocol has no end")
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("malformed line of the PROXY protocol")
    values = [value.decode("ascii") for value in match.groups() if value is not None]
    return ProxyHeader(len(line) + len(end), _ends(*values) if values else None)


def _readBinary(data: bytes | bytearray) -> ProxyHeader | None:
    if len(data) < _HEAD_2.size:
        return None
    _beginning, command, kind, size = _HEAD_2.unpack_from(data)
    family, transport = divmod(kind, 16)
    if command not in (_LOCAL, _PROXY) or (
        command == _PROXY and (family > _MAX_FAMILY or transport > _MAX_TRANSPORT)
    ):
        raise ValueError("malformed header of the PROXY protocol")
    length = _HEAD_2.size + size
    if len(data) < length:
        return None
    if command == _LOCAL or not transport or family not in _BLOCKS:
        return ProxyHeader(length, None)
    block = _BLOCKS[family]
    if size < block.size:
        raise ValueError("the addresses in the header of the PROXY protocol are cut off")
    return ProxyHeader(length, _ends(*block.unpack_from(data, _HEAD_2.size)))


def _ends(
    source: bytes | str, destination: bytes | str, sourcePort: int | str, port: int | str
) -> tuple[End, End]:
    return _end(source, sourcePort), _end(destination, port)


def _end(host: bytes | str, port: int | str) -> End:
    """
    @raise ValueError: when the address or the port is malformed.
    """
    end = End(ip_address(host), int(port))
    if end.port > 0xFFFF:
        raise ValueError("malformed port in the line of the PROXY protocol")
    return end
