"""
Decisions about upstreams, as pure functions.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

import attrs
from twisted.web.http_headers import Headers

from hubmirror.config import RegistryConfig
from hubmirror.protocol.addresses import isGlobal
from hubmirror.protocol.errors import RedirectRefused
from hubmirror.protocol.fields import acrossOrigins, hasPassword
from hubmirror.protocol.forwarded import Address, Network, unmapped
from hubmirror.protocol.ratelimit import retryAfter
from hubmirror.protocol.scopes import changeForm, namesIn
from hubmirror.protocol.spelling import Spelling
from hubmirror.protocol.target import Kind
from hubmirror.protocol.url import Origin, resolve, splitURL

MAX_REDIRECTS = 10
REDIRECTS = frozenset((301, 302, 303, 307, 308))
PAUSE = 0.5
"""
The time, in seconds, after which a registry that responded with a temporary error is asked again.
"""

TRIES = 4
"""
How many times a registry that responds with temporary errors is asked for one client's request.
"""

_REPEATABLE = (b"GET", b"HEAD")
PUSHING = (b"POST", b"PUT", b"PATCH")
"""
The methods whose response comes only after the body has been uploaded and the registry has hashed
it.
"""


class Service(enum.Enum):
    """
    The services of a registry that the mirror offers to its clients.
    """

    REGISTRY = "registry"
    TOKEN = "token"
    SEARCH = "search"


@attrs.frozen
class Upstream:
    """
    A registry, or a fallback for it.

    @ivar name: the name in log messages and errors.
    @ivar bases: for each service, the URL to which targets are appended, without a trailing slash.
        A service is missing if the upstream does not have it, or its URL is not known yet.
    @ivar spelling: how the registry's targets are written in requests to this upstream.
    """

    name: str
    bases: dict[Service, bytes] = attrs.field(eq=False)
    spelling: Spelling = attrs.field(factory=Spelling)

    def url(self, service: Service, target: bytes) -> bytes:
        """
        The absolute URL of a target.

        @param target: the part after the service's base URL.
        @raise KeyError: when the service's base URL is not known.
        """
        if service is Service.REGISTRY:
            target = self.spelling.write(target)
            return self.bases[service].removesuffix(self.spelling.before) + target
        if service is Service.TOKEN and self.spelling.after:
            path, mark, form = target.partition(b"?")
            target = path + mark + changeForm(form, self.spelling.writeName)
        base = self.bases[service]
        if b"?" in base:
            # A registry may name a token service with a query.
            target = target.replace(b"?", b"&", 1)
        return self.spelling.withNamespace(base + target)


def upstreamsOf(registry: RegistryConfig) -> tuple[Upstream, ...]:
    """
    The registry itself, then its fallbacks, in the order in which they are asked.
    """
    base = registry.registryURL.encode("ascii")
    bases = {Service.REGISTRY: base}
    for service, url in (
        (Service.TOKEN, registry.tokenURL),
        (Service.SEARCH, registry.search_url or (registry.known and registry.known.search_url)),
    ):
        if url is not None:
            bases[service] = url.encode("ascii")
    return (
        Upstream(_nameOf(base), bases, Spelling(before=_pathOf(base))),
        *(_fallback(url.encode("ascii"), registry) for url in registry.fallback),
    )


def _fallback(url: bytes, registry: RegistryConfig) -> Upstream:
    """
    A fallback, which is another mirror.

    If its URL ends in C{/v2/} and the registry's name, all targets go below that path.  Otherwise
    the registry is named in the query parameter C{ns}, as containerd does, if the URL ends in
    C{/?ns}, or if the registry is not the default one and is not named at the end of the path.  A
    mirror that does not know C{ns} ignores it; a mirror that knows it never confuses two
    registries.
    """
    base, name = url.removesuffix(b"/?ns"), registry.name.encode("ascii")
    path = _pathOf(base)
    suffix = b"/v2/" + name
    if path.endswith(suffix):
        # Services without /v2/, such as the token service, are not below that path.
        base = base.removesuffix(suffix)
        spelling = Spelling(before=_pathOf(base), after=name + b"/")
        tokens = base + b"/token/" + name
    else:
        named = url != base or not (registry.isDefault or path.endswith(b"/" + name))
        spelling = Spelling(before=path, namespace=name if named else b"")
        tokens = base + b"/token"
    bases = {Service.REGISTRY: base, Service.TOKEN: tokens, Service.SEARCH: base}
    return Upstream(_nameOf(url.removesuffix(b"/?ns")), bases, spelling)


def _nameOf(base: bytes) -> str:
    return (splitURL(base)[0].authority + _pathOf(base)).decode("ascii")


def _pathOf(base: bytes) -> bytes:
    return splitURL(base)[1].rstrip(b"/")


def mayRepeat(method: bytes, hasBody: bool) -> bool:
    """
    Whether a request can be sent again, or to another upstream, when an upstream fails.
    """
    return method in _REPEATABLE and not hasBody


def inTurn(
    upstreams: Sequence[Upstream],
    service: Service,
    kind: Kind | None,
    target: bytes,
    headers: Headers,
) -> Sequence[Upstream]:
    """
    The upstreams that may be asked in turn.  A login is sent to the registry alone: a fallback
    would serve it without the password, and a wrong password would seem to be right.  A login names
    no repository; a client with a password also sends it when it requests a token for a pull.

    @param upstreams: the registry itself, then its fallbacks.
    @param target: the target after the service's base URL.
    @param headers: the header fields of the request.
    """
    isLogin = hasPassword(headers) and (
        kind is Kind.PING or (service is Service.TOKEN and not namesIn(target.partition(b"?")[2]))
    )
    return upstreams[:1] if isLogin else upstreams


def effectiveStatus(status: int, fromCDN: bool) -> int:
    """
    The status by which a response is judged.  An object store's 500 is temporary, like a gateway's
    502, and the client is expected to retry; a registry's 500 is final.
    """
    return 502 if fromCDN and status == 500 else status


def mayPass(status: int, headers: Headers) -> bool:
    """
    Whether an error may be temporary, so that the request is worth repeating.  Most clients request
    a token or a manifest only once, and a single 503 would end a pull.
    """
    return status in (502, 503, 504) and (retryAfter(headers) or 0.0) <= PAUSE


def fallbackServes(status: int) -> bool:
    """
    Whether a fallback's response is final.  A fallback that refuses a request or does not have an
    image says nothing about the registry: many mirrors hold only a part of it.
    """
    return 200 <= status < 300 or status in (304, 416)


def limitsPulls(status: int, headers: Headers) -> bool:
    """
    Whether a response reports that the limit on pulls is used up.  The Hub sends that 429 with a
    JSON body.  Its other 429, in plain text, applies to every request from an address.
    """
    return status == 429 and b"json" in (headers.getRawHeaders(b"Content-Type") or [b""])[0].lower()


def fallbackChallenges(status: int, headers: Headers) -> bool:
    """
    Whether a fallback's 401 goes to the client when the upstreams before it gave no usable
    response.  A client without a token needs a challenge to request one; otherwise no pull could
    begin while the registry is down.

    @param headers: the header fields of the request.
    """
    return status == 401 and not headers.hasHeader(b"Authorization")


def follow(uri: bytes, headers: Headers, location: Sequence[bytes]) -> tuple[bytes, Headers]:
    """
    The target of a redirect, and the header fields to send there.  Credentials are removed when the
    redirect leads to another origin.

    @param uri: the URL that responded with the redirect.
    @param headers: the header fields that were sent to C{uri}.
    @param location: the values of C{Location}.
    @raise RedirectRefused: when the redirect must not be followed.
    """
    if len(location) != 1:
        raise RedirectRefused("a redirect without exactly one Location")
    try:
        target = resolve(uri, location[0])
        before, after = splitURL(uri)[0], splitURL(target)[0]
    except ValueError as error:
        raise RedirectRefused(f"a redirect to what is {error}") from None
    if before.scheme == b"https" and after.scheme != b"https":
        raise RedirectRefused(f"a redirect from https to http ({after})")
    return target, headers if before == after else acrossOrigins(headers)


def namesElsewhere(base: bytes, references: Sequence[bytes]) -> bool:
    """
    Whether a URL in a response has another origin than the request.

    @param base: the URL of the request.
    @param references: absolute or relative URLs.
    """
    origin = splitURL(base)[0]
    try:
        return any(splitURL(resolve(base, reference))[0] != origin for reference in references)
    except ValueError:
        return True


class AddressPolicy:
    """
    The IP addresses at which the mirror may connect to an origin.  A configured origin may have any
    address.  An origin that is known only from a redirect must have a public address, unless the
    origin or its network is allowed explicitly.
    """

    def __init__(
        self, configured: Collection[Origin], allowed: Collection[Origin | Network]
    ) -> None:
        self._origins = frozenset(configured) | {
            item for item in allowed if isinstance(item, Origin)
        }
        self._networks = [item for item in allowed if not isinstance(item, Origin)]

    def add(self, origin: Origin) -> None:
        """
        Treat an origin as configured: that of the token service that a registry has named.
        """
        self._origins |= {origin}

    def permits(self, origin: Origin, address: Address) -> bool:
        """
        Whether the mirror may connect to an origin at an address.
        """
        return (
            origin in self._origins
            or isGlobal(address)
            or any(unmapped(address) in network for network in self._networks)
        )


def addressPolicy(registry: RegistryConfig, allowed: Collection[Origin | Network]) -> AddressPolicy:
    """
    The policy for connections on behalf of a registry.

    @param allowed: further origins and networks to which redirects may lead.
    """
    configured = {
        splitURL(base)[0] for upstream in upstreamsOf(registry) for base in upstream.bases.values()
    }
    return AddressPolicy(configured, allowed)
