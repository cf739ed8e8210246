"""
Reading a request: which registry it means, what it asks for, who sent it, and how the client
reached the mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.web.server import Request

from hubmirror.config import MirrorConfig
from hubmirror.downstream.access import Access
from hubmirror.protocol.addressing import Addressing
from hubmirror.protocol.errors import BadRequest, LoopDetected, NotAllowed
from hubmirror.protocol.fields import hasPassed
from hubmirror.protocol.forwarded import Address, Client, findClient
from hubmirror.protocol.spelling import Spelling
from hubmirror.protocol.target import Target, readTarget
from hubmirror.protocol.url import Origin, parseAuthority, splitURL
from hubmirror.upstream.registry import Registry

READING = (b"GET", b"HEAD", b"OPTIONS")
WRITING = (b"POST", b"PUT", b"PATCH", b"DELETE")


class Registries(dict[bytes, Registry]):
    """
    The registries that are mirrored, by their names.

    @ivar addressing: finds the one that a request means.
    """

    def __init__(self, registries: Sequence[Registry], secretPath: bytes = b"") -> None:
        """
        @param registries: the default one first.
        """
        super().__init__((each.names.name, each) for each in registries)
        self.addressing = Addressing([each.names for each in registries], secretPath)


@attrs.frozen(eq=False)
class Settings:
    """
    What a request is served by.  A request keeps those that it began with.

    @ivar registries: those that are mirrored.
    @ivar access: who is served, and what.
    """

    config: MirrorConfig
    registries: Registries
    access: Access = attrs.field(init=False)

    @access.default
    def _makeAccess(self) -> Access:
        return Access(self.config)


@attrs.frozen
class Incoming:
    """
    @ivar config: the settings that it is served by.
    @ivar registries: those that are mirrored.
    @ivar target: what is asked for, as its registry is asked for it.
    @ivar registry: the registry that is meant.
    @ivar isExplicit: the request itself names that registry.
    @ivar spelling: how this client writes that registry's targets.
    @ivar tokenPath: the path of that registry's token service at the mirror.
    @ivar client: who asks.
    @ivar scheme: by which the client reached the mirror.
    @ivar base: the mirror's URL as this client knows it, without a trailing slash.
    """

    config: MirrorConfig
    registries: Registries
    target: Target
    registry: Registry
    isExplicit: bool
    spelling: Spelling
    tokenPath: bytes
    client: Client
    scheme: bytes
    base: bytes


def addressOf(peer: Any) -> Address | None:
    """
    The IP address of a peer, or C{None} when it has none.
    """
    return _parsed(getattr(peer, "host", None))


@lru_cache(maxsize=4096)
def _parsed(host: str | None) -> Address | None:
    try:
        return ip_address((host or "").partition("%")[0])
    except ValueError:
        return None


def methodsAllowed(config: MirrorConfig) -> tuple[bytes, ...]:
    """
    The methods that are allowed at the registry.
    """
    return READING if config.read_only else READING + WRITING


def readIncoming(request: Request, settings: Settings, via: bytes) -> Incoming:
    """
    Read a request.

    @param settings: what it is served by.
    @param via: the mirror's name in C{Via}.
    @raise RequestRefused: when the request can't be served.
    """
    if request.method not in READING + WRITING:
        raise refusedMethod(request.method, methodsAllowed(settings.config))
    config, registries = settings.config, settings.registries
    headers = request.requestHeaders
    if hasPassed(headers, via):
        raise LoopDetected("this request has passed here before: the mirrors ask each other")
    client = findClient(addressOf(request.getClientAddress()), headers, config.trusted_proxy)
    scheme = client.scheme or (b"https" if request.isSecure() else b"http")
    host = _host(request, client, scheme)
    base = (
        scheme + b"://" + host if config.public_url is None else config.public_url.encode("ascii")
    )
    target = readTarget(_originForm(request, config, scheme))
    addressed = registries.addressing.find(target, host.lower())
    return Incoming(
        config,
        registries,
        addressed.target,
        registries[addressed.registry.name],
        addressed.isExplicit,
        addressed.spelling,
        addressed.tokenPath,
        client,
        scheme,
        base,
    )


def refusedMethod(method: bytes, allowed: tuple[bytes, ...]) -> NotAllowed:
    """
    The error for a method that is not among those allowed.
    """
    return NotAllowed(
        f"{method.decode('ascii', 'backslashreplace')} is not allowed here",
        fields=[(b"Allow", b", ".join(allowed))],
    )


def _host(request: Request, client: Client, scheme: bytes) -> bytes:
    """
    The authority that the client used, including its port.
    """
    host = client.host or request.getHeader(b"Host") or _local(request, scheme)
    try:
        parseAuthority(host, scheme)
    except ValueError:
        raise BadRequest("malformed Host") from None
    return host


def _local(request: Request, scheme: bytes) -> bytes:
    """
    The address that the client connected to, for HTTP/1.0 requests without a C{Host}.
    """
    here = request.getHost()
    try:
        return Origin(scheme, here.host.encode("ascii"), here.port).authority
    except AttributeError:
        return b"localhost"


def _originForm(request: Request, config: MirrorConfig, scheme: bytes) -> bytes:
    """
    The request target in origin form.  The absolute form is accepted when it names this mirror, by
    its public URL or by the address that the client connected to.  The C{Host} field is no proof of
    that: a client that takes the mirror for an open proxy sends the same name there.
    """
    uri: bytes = request.uri
    if uri.startswith(b"/"):
        return uri
    try:
        origin, target = splitURL(uri)
    except ValueError:
        raise BadRequest("malformed request target") from None
    own = [_local(request, scheme)]
    if config.public_url is not None:
        own.append(splitURL(config.public_url.encode("ascii"))[0].authority)
    if origin.authority not in own:
        raise BadRequest("this is a mirror, not a proxy: it serves no other host")
    return target
