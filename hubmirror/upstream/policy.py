"""
Decisions about upstreams, as pure functions, so that tests are tables of cases.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

import attrs
from twisted.web.http_headers import Headers

from hubmirror.config import RegistryConfig
from hubmirror.protocol.addresses import isGlobal
from hubmirror.protocol.errors import RedirectRefused
from hubmirror.protocol.fields import acrossOrigins
from hubmirror.protocol.forwarded import Address, Network, unmapped
from hubmirror.protocol.ratelimit import retryAfter
from hubmirror.protocol.scopes import changeForm
from hubmirror.protocol.spelling import Spelling
from hubmirror.protocol.url import Origin, resolve, splitURL

MAX_REDIRECTS = 10
REDIRECTS = frozenset((301, 302, 303, 307, 308))
PAUSE = 0.5
"""
The time, in seconds, after which an upstream that failed for the moment is asked again.
"""

TRIES = 4
"""
How many times such an upstream is asked at most.
"""

_REPEATABLE = (b"GET", b"HEAD")
PUSHING = (b"POST", b"PUT", b"PATCH")
"""
The methods whose response takes as long as the upload of the body, and the registry's hashing of
it.
"""


class Service(enum.Enum):
    """
    The three services of a registry that the mirror stands for.
    """

    REGISTRY = "registry"
    TOKEN = "token"
    SEARCH = "search"


@attrs.frozen
class Upstream:
    """
    One place to ask.

    @ivar name: what logs and errors call it.
    @ivar bases: the URL below which each service lies, without a trailing slash.  A service that
        is missing is not known, or there is none.
    @ivar spelling: how the registry's targets are written there.
    """

    name: str
    bases: dict[Service, bytes] = attrs.field(eq=False)
    spelling: Spelling = attrs.field(factory=Spelling)

    def url(self, service: Service, target: bytes) -> bytes:
        """
        Where a target of a service is to be had.

        @param target: what follows the service's URL.
        """
        if service is Service.REGISTRY:
            target = self.spelling.write(target)
            return self.bases[service].removesuffix(self.spelling.before) + target
        if service is Service.TOKEN and self.spelling.after:
            path, mark, form = target.partition(b"?")
            target = path + mark + changeForm(form, self.spelling.writeName)
        return self.bases[service] + self.spelling.withNamespace(target)


def upstreamsOf(registry: RegistryConfig) -> tuple[Upstream, ...]:
    """
    A registry itself, then its fallbacks, in the order in which they are asked.
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
    Another mirror.  The path of its URL says how it is told which registry is meant; without one, a
    registry that is not the default is named in C{ns}.  A mirror that knows no C{ns} ignores it,
    and one that does never takes another registry's image for the one that is meant.
    """
    base, name = url.removesuffix(b"/?ns"), registry.name.encode("ascii")
    path = _pathOf(base)
    suffix = b"/v2/" + name
    if path.endswith(suffix):
        # Its tokens, and whatever else has no /v2/, lie beside that.
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
    Whether a request can be sent to another upstream when the first one fails.
    """
    return method in _REPEATABLE and not hasBody


def effectiveStatus(status: int, fromCDN: bool) -> int:
    """
    The status that an answer is judged by.  An object store says 500 for a moment and expects to be
    asked again, as a gateway does that says 502; a registry's 500 is its answer.
    """
    return 502 if fromCDN and status == 500 else status


def mayPass(status: int, headers: Headers) -> bool:
    """
    Whether an error may be temporary and worth another request.  Most clients request a token or a
    manifest only once, so that a single 503 would end a pull.
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
    Whether a response says that the limit on pulls is used up, which the Hub says in JSON.  Its
    other 429, in plain text, applies to every request from an address.
    """
    return status == 429 and b"json" in (headers.getRawHeaders(b"Content-Type") or [b""])[0].lower()


def fallbackChallenges(status: int, headers: Headers) -> bool:
    """
    Whether a fallback's 401 goes to the client when the upstreams before it gave no usable
    response. A client without a token needs a challenge to get one; without it no pull could begin
    while the registry is down.

    @param headers: of the request.
    """
    return status == 401 and not headers.hasHeader(b"Authorization")


def follow(uri: bytes, headers: Headers, location: Sequence[bytes]) -> tuple[bytes, Headers]:
    """
    The target of a redirect, and the fields that are sent there.

    @param uri: what was asked.
    @param location: the values of C{Location}.
    @raise RedirectRefused: when it must not be followed.
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
    Whether a reference in an answer names another origin than the one that was asked.

    @param base: the URL that was asked.
    """
    origin = splitURL(base)[0]
    try:
        return any(splitURL(resolve(base, reference))[0] != origin for reference in references)
    except ValueError:
        return True


class AddressPolicy:
    """
    Which addresses an origin may be connected to.  An origin that was configured may have any
    address; one that only a redirect has named must be in the public Internet or be allowed
    explicitly.
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
        Take an origin for configured: the token service that a configured registry has named.
        """
        self._origins |= {origin}

    def permits(self, origin: Origin, address: Address) -> bool:
        """
        Whether this origin may be connected to at this address.
        """
        return (
            origin in self._origins
            or isGlobal(address)
            or any(unmapped(address) in network for network in self._networks)
        )


def addressPolicy(registry: RegistryConfig, allowed: Collection[Origin | Network]) -> AddressPolicy:
    """
    The policy for what is asked on behalf of a registry.

    @param allowed: the origins and networks that redirects may lead to besides.
    """
    configured = {
        splitURL(base)[0] for upstream in upstreamsOf(registry) for base in upstream.bases.values()
    }
    return AddressPolicy(configured, allowed)
