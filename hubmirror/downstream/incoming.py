"""
Interprets a request: the registry that it refers to, its target, the client that sent it, and the
URL by which the client knows the mirror.
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

    @ivar addressing: finds the registry that a request refers to.
    """

    def __init__(self, registries: Sequence[Registry], secretPath: bytes = b"") -> None:
        """
        @param registries: the registries, beginning with the default one.
        @param secretPath: the path below which alone the mirror serves requests, if it is not
            empty.
        """
        super().__init__((each.names.name, each) for each in registries)
        self.addressing = Addressing([each.names for each in registries], secretPath)


@attrs.frozen(eq=False)
class Settings:
    """
    The configuration and what is made from it.  A reload replaces it; a request that is in progress
    keeps the settings with which it began.

    @ivar registries: the registries that are mirrored.
    @ivar access: the rules about the clients and repositories that are served.
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
    A request, as the mirror understands it.

    @ivar config: the configuration with which the request is served.
    @ivar registries: the registries that are mirrored.
    @ivar target: the target, as the registry writes it.
    @ivar registry: the registry that the request refers to.
    @ivar hosted: the registry that the request's host stands for; else the default registry.
    @ivar isExplicit: whether the request itself names that registry.
    @ivar spelling: how the client writes the registry's targets.
    @ivar tokenPath: the path of the registry's token service at the mirror.
    @ivar client: the client that sent the request.
    @ivar scheme: the scheme by which the client reached the mirror, C{http} or C{https}.
    @ivar base: the mirror's URL as the client knows it, without a trailing slash.
    """

    config: MirrorConfig
    registries: Registries
    target: Target
    registry: Registry
    hosted: Registry
    isExplicit: bool
    spelling: Spelling
    tokenPath: bytes
    client: Client
    scheme: bytes
    base: bytes

    @property
    def offered(self) -> Sequence[Registry]:
        """
        The registries that clients can use under the host of this request.  Under a host that
        stands for another registry than the default one, it is this registry alone: many clients
        can't name the default registry in their requests.
        """
        return [*self.registries.values()] if self.hosted.isDefault else [self.hosted]


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
    Interpret a request.

    @param settings: the settings with which the request is served.
    @param via: the mirror's name in C{Via}.
    @raise RequestRefused: when the request can't be served.
    """
    if request.method not in READING + WRITING:
        raise refusedMethod(request.method, methodsAllowed(settings.config))
    config, registries = settings.config, settings.registries
    headers = request.requestHeaders
    if hasPassed(headers, via):
        raise LoopDetected(
            "this request has passed through this mirror before: two mirrors send requests to each"
            " other"
        )
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
        registries[addressed.hosted.name],
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
    The request target in origin form (RFC 9112 section 3.2.1).  The absolute form is accepted if it
    names this mirror by its public URL or by the address to which the client connected.  The
    C{Host} field proves nothing here: a client that takes the mirror for a forward proxy sends the
    same name there.

    @raise BadRequest: when the target is malformed, or names another host.
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
