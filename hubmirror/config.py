"""
What an operator can set: frozen values, their defaults and their validation, nothing else.

Each attribute of L{MirrorConfig} is the one definition of an option: the command line and its
documentation are made from it.  Hence the names with underscores: C{registry_url} is
C{--registry-url}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network
from typing import Any

import attrs

from hubmirror.protocol.forwarded import Network
from hubmirror.protocol.url import Origin, splitURL


class ConfigError(ValueError):
    """
    An option's value can't work.  The text is one line that says what to do.
    """


def _one(coerce: Callable[[Any], object], default: Any, help: str) -> Any:
    return attrs.field(default=default, metadata={"help": help, "coerce": coerce, "repeats": False})


def _many(coerce: Callable[[Any], object], default: tuple[str, ...], help: str) -> Any:
    return attrs.field(default=default, metadata={"help": help, "coerce": coerce, "repeats": True})


def _coerced(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """
    Give every attribute its converter, which names the option in what it raises.
    """
    return [field.evolve(converter=_converter(field)) for field in fields]


def _converter(field: attrs.Attribute[Any]) -> Callable[[Any], Any]:
    coerce = field.metadata["coerce"]
    name = optionName(field)

    def convert(value: Any) -> Any:
        try:
            if not field.metadata["repeats"]:
                return None if value is None else coerce(value)
            if isinstance(value, str):
                value = [value]
            return tuple(coerce(item) for item in value)
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}") from None

    return convert


def optionName(field: attrs.Attribute[Any]) -> str:
    """
    The option's name on the command line, without the dashes.
    """
    return field.name.replace("_", "-")


def describeDefault(field: attrs.Attribute[Any]) -> str:
    """
    An option's default as its user would write it; empty where there is none.
    """
    default: Any = field.default
    if isinstance(default, tuple):
        return " ".join(default)
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default in (None, False) else str(default)


def _endpoint(value: str) -> str:
    if ":" not in value:
        raise ValueError(
            f"{value!r} is no endpoint description; write for example tcp:5000 or ssl:443"
        )
    return value


def _baseURL(value: str) -> str:
    """
    An absolute http or https URL without query, fragment or trailing slash.
    """
    _origin, target = _split(value, "https://mirror.example")
    if b"?" in target or "#" in value or not re.match(rb"[\x21-\x7e]+\Z", target):
        raise ValueError(f"{value!r} must have no query, no fragment and no white space")
    return value.rstrip("/")


def _split(url: str, example: str) -> tuple[Origin, bytes]:
    """
    L{splitURL} for people.  What can't be split is not repeated to them: it may be because of a
    password.
    """
    try:
        return splitURL(url.encode())
    except ValueError as error:
        raise ValueError(f"{error}; write for example {example}") from None


def _statuses(value: str | Iterable[int]) -> frozenset[int]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        statuses = frozenset(int(part) for part in parts if str(part).strip())
    except ValueError:
        raise ValueError(f"{value!r} is no list of statuses such as 429,503") from None
    wrong = sorted(status for status in statuses if not 400 <= status <= 599)
    if wrong:
        raise ValueError(f"{wrong[0]} is no error status; they lie between 400 and 599")
    if statuses & {401, 403, 404}:
        raise ValueError("401, 403 and 404 are answers, not failures: they can't be named here")
    return statuses


def _network(value: str | Network) -> Network:
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f"{value!r} is no address or network; write for example 10.0.0.0/8"
        ) from None


def _originOrNetwork(value: str | Origin | Network) -> Origin | Network:
    if isinstance(value, Origin):
        return value
    if not isinstance(value, str) or "://" not in value:
        return _network(value)
    origin, target = _split(value, "https://cdn.example")
    if target != b"/":
        raise ValueError(f"{value!r} is more than an origin; leave off what follows the host")
    return origin


def _server(value: str | tuple[str, int]) -> tuple[str, int]:
    if not isinstance(value, str):
        return value
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
    return str(address), port


def _proxy(value: str) -> str:
    scheme, mark, rest = value.partition("://")
    if scheme not in ("http", "socks5"):
        raise ValueError("that is no proxy; write http://host:port or socks5://host:port")
    _origin, target = _split(
        "http" + mark + rest, f"{scheme}://host:port; user information is not supported"
    )
    if target != b"/":
        raise ValueError(f"{value!r} must end with the port")
    return value.rstrip("/")


def _verify(value: str) -> str:
    if value not in ("never", "fallback", "always"):
        raise ValueError(f"{value!r} is none of never, fallback, always")
    return value


def _count(value: str | int) -> int:
    try:
        count = int(value)
    except ValueError:
        raise ValueError(f"{value!r} is no whole number") from None
    if not 0 <= count <= 1000:
        raise ValueError(f"{value} is out of range; write a number from 0 to 1000")
    return count


def _size(value: str | int) -> int:
    match = re.match(r"([0-9]{1,18})([kMGT]?)i?B?\Z", str(value))
    if match is None:
        raise ValueError(f"{value!r} is no size; write bytes, or for example 64k, 10G")
    size: int = int(match[1]) << 10 * " kMGT".index(match[2] or " ")
    return size


def _workers(value: str | int) -> int:
    return 0 if value in ("auto", 0) else _most(value)


def _most(value: str | int) -> int:
    try:
        most = int(value)
    except ValueError:
        raise ValueError(f"{value!r} is no whole number") from None
    if most < 1:
        raise ValueError(f"{value} is out of range; write 1 or more")
    return most


def _headSize(value: str | int) -> int:
    size = _size(value)
    if not 8 * 1024 <= size <= 1024 * 1024:
        raise ValueError(f"{value} is out of range; write a size from 8k to 1M")
    return size


def _speed(value: str | float) -> float:
    try:
        speed = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is no number of bytes each second") from None
    if not 0 <= speed < 1e9:
        raise ValueError(f"{value} is out of range; write bytes each second, or 0 for no floor")
    return speed


def _seconds(value: str | float) -> float:
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError(f"{value!r} is no number of seconds") from None
    if not 0 < seconds < 86400:
        raise ValueError(f"{value} is out of range; write seconds between 0 and 86400")
    return seconds


@attrs.frozen(kw_only=True, field_transformer=_coerced)
class MirrorConfig:
    """
    The settings of one mirror; without arguments, those that suit Docker Hub.

    @raise ConfigError: when a value can't work.
    """

    port: tuple[str, ...] = _many(
        _endpoint,
        ("tcp:5000:interface=127.0.0.1",),
        "Twisted endpoint description to listen on, such as ssl:443 or tcp6:5000",
    )
    public_url: str | None = _one(
        _baseURL, None, "where clients reach the mirror; else the scheme and Host of each request"
    )
    registry_url: str = _one(_baseURL, "https://registry-1.docker.io", "the registry")
    auth_url: str = _one(
        _baseURL, "https://auth.docker.io/token", "the token service that /token stands for"
    )
    search_url: str = _one(_baseURL, "https://index.docker.io", "the index that searches")
    fallback: tuple[str, ...] = _many(
        _baseURL, (), "base URL of another mirror, asked in order when the ones before it fail"
    )
    failover_on: frozenset[int] = _one(
        _statuses, "429,502,503,504", "statuses that move a GET or HEAD to the next upstream"
    )
    allow_redirects_to: tuple[Origin | Network, ...] = _many(
        _originOrNetwork,
        (),
        "origin or network (CIDR) that a redirect may lead to although it is not global",
    )
    ca_file: str | None = _one(
        str, None, "PEM bundle that upstream certificates are verified with; else the system's"
    )
    workers: int = _one(
        _workers, 1, "processes that share the work, or auto for one on each processor"
    )
    resolver: tuple[str, int] | None = _one(
        _server, None, "ADDRESS[:PORT] of a DNS server for upstream names; else the system's"
    )
    proxy: str | None = _one(
        _proxy, None, "outgoing proxy for all upstreams: http://host:port or socks5://host:port"
    )
    read_only: bool = _one(bool, False, "refuse pushes")
    no_cors: bool = _one(bool, False, "leave out the fields that let web pages read answers")
    no_forwarded: bool = _one(bool, False, "don't tell upstreams the client's address")
    trusted_proxy: tuple[Network, ...] = _many(
        _network, (), "address or network whose Forwarded and X-Forwarded-* fields count"
    )
    verify: str = _one(
        _verify, "fallback", "when to hash blobs while they pass: never, fallback or always"
    )
    resumes: int = _one(
        _count,
        5,
        "times in a row, without a byte in between, that a broken body is asked for again",
    )
    min_speed: float = _one(
        _speed, 1024.0, "bytes each second below which an upstream's body counts as stalled"
    )
    plain_transport: bool = _one(
        bool,
        False,
        "use Twisted's own TLS and h2's own frames in place of the mirror's, which cost less",
    )
    connect_timeout: float = _one(
        _seconds, 5.0, "seconds for the name, the connection and TLS to an upstream"
    )
    response_timeout: float = _one(
        _seconds, 9.0, "seconds until a response head, all upstreams together"
    )
    stall_timeout: float = _one(
        _seconds, 15.0, "seconds without a byte after which an upstream's body counts as broken"
    )
    client_timeout: float = _one(
        _seconds,
        300.0,
        "seconds that a client may take nothing of its answer, or give nothing of its body",
    )
    head_timeout: float = _one(
        _seconds, 30.0, "seconds that a client has to shake hands, and to send a request's head"
    )
    drain_timeout: float = _one(
        _seconds, 30.0, "seconds that answers under way have to end when the mirror stops"
    )
    max_connections: int = _one(_most, 8192, "connections of clients in all")
    max_connections_per_client: int = _one(
        _most, 1024, "connections of one client address, or one /64 of IPv6"
    )
    max_head: int = _one(_headSize, "64k", "size of a request's head")
    max_upload: int = _one(_size, "0", "size of one request's body; 0 for any")
    idle_timeout: float = _one(
        _seconds, 75.0, "seconds that a connection without a request is kept"
    )


def options() -> Iterable[attrs.Attribute[Any]]:
    """
    Every option, as the attribute that defines it.
    """
    return attrs.fields(MirrorConfig)
