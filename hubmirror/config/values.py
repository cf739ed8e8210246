"""
Converts the text that an operator writes to the values of options.

Each function takes text or a value that has already been converted, and raises C{ValueError} with
one line that states what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import NamedTuple

import attrs

from hubmirror.protocol.forwarded import Network
from hubmirror.protocol.url import Origin, splitURL


def endpoint(value: str) -> str:
    """
    A Twisted endpoint description.
    """
    if ":" not in value:
        raise ValueError(
            f"{value!r} is no endpoint description; write for example tcp:5000 or ssl:443"
        )
    return value


def baseURL(value: str) -> str:
    """
    An absolute http or https URL without query, fragment or trailing slash.
    """
    _origin, target = _split(value, "https://mirror.example")
    if b"?" in target or "#" in value or not re.match(rb"[\x21-\x7e]+\Z", target):
        raise ValueError(f"{value!r} must have no query, no fragment and no white space")
    return value.rstrip("/")


def fallbackURL(value: str) -> str:
    """
    The base URL of another mirror, as for L{baseURL}.  It may end with C{?ns}, which makes requests
    to that mirror name the registry with C{ns}.
    """
    return baseURL(value.removesuffix("?ns")) + ("/?ns" if value.endswith("?ns") else "")


def path(value: str) -> str:
    """
    The name of a file.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is no file's name")
    return value


def secretPath(value: str) -> str:
    """
    A path without its first and last slash.  Only characters of repository names are allowed,
    because podman writes the path as part of a repository's name.
    """
    if not re.match(r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*\Z", value):
        raise ValueError(
            "that is no path for all clients; write small letters, digits and single . _ - in it,"
            " without a slash at the beginning or end"
        )
    if len(value) < 8:
        raise ValueError("that can be guessed; write 8 characters or more")
    if value.split("/")[0] in ("v1", "v2", "token"):
        raise ValueError("it must not begin with v1, v2 or token")
    return value


def flag(value: object) -> bool:
    """
    True or false.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def switch(value: object) -> bool:
    """
    True or false, or one of these words on the command line.
    """
    words = {"true": True, "false": False}
    return flag(words.get(value, value) if isinstance(value, str) else value)


def _split(url: str, example: str) -> tuple[Origin, bytes]:
    """
    L{splitURL} with an error message for operators.  The message does not repeat the URL, which may
    contain a password.
    """
    try:
        return splitURL(url.encode())
    except ValueError as error:
        raise ValueError(f"{error}; write for example {example}") from None


def statuses(value: str | Iterable[int]) -> frozenset[int]:
    """
    HTTP error statuses, as a list or as text with commas.
    """
    parts = value.split(",") if isinstance(value, str) else value
    try:
        found = frozenset(int(part) for part in parts if str(part).strip())
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r} is no list of statuses such as 429,503") from None
    wrong = sorted(status for status in found if not 400 <= status <= 599)
    if wrong:
        raise ValueError(f"{wrong[0]} is no error status; they lie between 400 and 599")
    if found & {401, 403, 404}:
        raise ValueError("401, 403 and 404 are answers, not failures: they can't be named here")
    return found


def network(value: str | Network) -> Network:
    """
    An address or a network in CIDR notation.
    """
    try:
        # A number would be taken for an address.
        return ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is no address or network; write for example 10.0.0.0/8"
        ) from None


def originOrNetwork(value: str | Origin | Network) -> Origin | Network:
    """
    An origin such as C{https://host:port}, or a network.
    """
    if isinstance(value, Origin):
        return value
    if not isinstance(value, str) or "://" not in value:
        return network(value)
    origin, target = _split(value, "https://cdn.example")
    if target != b"/":
        raise ValueError(f"{value!r} is more than an origin; leave off what follows the host")
    return origin


class Server(NamedTuple):
    """
    A DNS server.

    @ivar address: its address; an IPv6 address has no brackets.
    @ivar port: its port.
    """

    address: str
    port: int

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"


def server(value: str | tuple[str, int]) -> Server:
    """
    The address and port of a DNS server.
    """
    if isinstance(value, tuple):
        return Server(*value)
    match = re.match(r"(?:\[(.+)\]|([^:]+))(?::([0-9]{1,5}))?\Z", value)
    host, port = (match[1] or match[2], int(match[3] or 53)) if match else (value, 53)
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(
            f"{value!r} is no address of a DNS server; write 1.1.1.1 or 1.1.1.1:53"
        ) from None
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is out of range")
    return Server(str(address), port)


def proxyURL(value: str) -> str:
    """
    The URL of an outgoing proxy.
    """
    scheme, mark, rest = value.partition("://")
    if scheme not in ("http", "socks5"):
        raise ValueError("that is no proxy; write http://host:port or socks5://host:port")
    _origin, target = _split(
        "http" + mark + rest, f"{scheme}://host:port; user information is not supported"
    )
    if target != b"/":
        raise ValueError(f"{value!r} must end with the port")
    return value.rstrip("/")


def logFormat(value: str) -> str:
    """
    One of C{text}, C{json}, C{combined}, C{off}.
    """
    if value not in ("text", "json", "combined", "off"):
        raise ValueError(f"{value!r} is none of text, json, combined, off")
    return value


def repositories(value: str) -> str:
    """
    A glob over C{REGISTRY/REPOSITORY}.
    """
    if not re.match(r"[a-z0-9._*?:-]+(?:/[a-z0-9._*?-]+)*\Z", value):
        raise ValueError(
            f"{value!r} matches no repository; write for example docker.io/library/* or ghcr.io/**"
        )
    return value


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@attrs.frozen
class Rate:
    """
    A limit on the number of events in a time.

    @ivar most: the number.
    @ivar seconds: the time, in seconds.
    """

    most: int
    seconds: float

    def __str__(self) -> str:
        unit = next((each for each, size in _UNITS.items() if not self.seconds % size), "s")
        return f"{self.most}/{self.seconds / _UNITS[unit]:g}{unit}"


def rate(value: str | Rate) -> Rate:
    """
    A rate, such as C{600/1m} or C{100/6h}.
    """
    if isinstance(value, Rate):
        return value
    match = re.match(r"([0-9]{1,9})/([0-9]{0,6})([smhd])\Z", value)
    if match is None or not int(match[1]) or not int(match[2] or 1):
        raise ValueError(f"{value!r} is no rate; write for example 600/1m or 100/6h")
    return Rate(int(match[1]), float(int(match[2] or 1) * _UNITS[match[3]]))


def bandwidth(value: str | int) -> int:
    """
    Bytes each second, at least 1024, with an optional unit: C{500k}, C{20M}.
    """
    found = size(value)
    if found < 1024:
        raise ValueError(f"{value} is out of range; write 1k or more")
    return found


def whenToVerify(value: str) -> str:
    """
    One of C{never}, C{fallback}, C{always}.
    """
    if value not in ("never", "fallback", "always"):
        raise ValueError(f"{value!r} is none of never, fallback, always")
    return value


def count(value: str | int) -> int:
    """
    A number from 0 to 1000.
    """
    number = _whole(value)
    if not 0 <= number <= 1000:
        raise ValueError(f"{value} is out of range; write a number from 0 to 1000")
    return number


def _whole(value: str | int) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no whole number") from None


def size(value: str | int) -> int:
    """
    A size in bytes, with an optional unit: C{64k}, C{10G}.
    """
    match = re.match(r"([0-9]{1,18})([kMGT]?)i?B?\Z", str(value))
    if match is None:
        raise ValueError(f"{value!r} is no size; write bytes, or for example 64k, 10G")
    found: int = int(match[1]) << 10 * " kMGT".index(match[2] or " ")
    return found


def workerCount(value: str | int) -> int:
    """
    A number of processes; 0 stands for C{auto}.
    """
    return 0 if value in ("auto", 0) else limit(value)


def limit(value: str | int) -> int:
    """
    A number of at least 1.
    """
    most = _whole(value)
    if most < 1:
        raise ValueError(f"{value} is out of range; write 1 or more")
    return most


def headSize(value: str | int) -> int:
    """
    The size of a head in bytes, from 8 KiB to 1 MiB.
    """
    found = size(value)
    if not 8 * 1024 <= found <= 1024 * 1024:
        raise ValueError(f"{value} is out of range; write a size from 8k to 1M")
    return found


def speed(value: str | float) -> float:
    """
    Bytes each second; 0 for no lower limit.
    """
    try:
        found = float(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no number of bytes each second") from None
    if not 0 <= found < 1e9:
        raise ValueError(f"{value} is out of range; write bytes each second, or 0 for no floor")
    return found


def seconds(value: str | float) -> float:
    """
    A time in seconds, more than 0 and less than a day.
    """
    try:
        found = float(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is no number of seconds") from None
    if not 0 < found < 86400:
        raise ValueError(f"{value} is out of range; write seconds between 0 and 86400")
    return found
