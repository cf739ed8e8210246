"""
Which header fields are forwarded in each direction, and which are not.
"""

from __future__ import annotations

from twisted.web.http_headers import Headers

from hubmirror.protocol.forwarded import Client
from hubmirror.protocol.heads import listMembers

_HOP_BY_HOP = frozenset(
    b"connection keep-alive te trailer transfer-encoding upgrade http2-settings".split()
)
_NOT_FORWARDED = frozenset(
    # The mirror sets these fields of a request itself: framing, host, coding and the client's
    # address.  It also processes Expect itself.
    b"host content-length expect accept-encoding via forwarded x-real-ip".split()
)
_NOT_ACROSS_ORIGINS = frozenset(
    b"authorization cookie forwarded via x-real-ip x-request-id".split()
)
_OF_THE_ORIGIN = frozenset(
    # These apply to the origin that sends them.  If they were passed on, an upstream could set
    # policies for the mirror's origin: send its clients elsewhere, force TLS on it, collect its
    # reports.
    b"refresh alt-svc strict-transport-security clear-site-data nel report-to reporting-endpoints "
    b"expect-ct public-key-pins public-key-pins-report-only".split()
)
_COOKIES = (b"Set-Cookie", b"Set-Cookie2")
_ONE_ONLY = frozenset(b"content-type content-length date server".split())


def _stopsHere(name: bytes, named: list[bytes]) -> bool:
    return name in _HOP_BY_HOP or name in named or name.startswith(b"proxy-")


def forUpstream(
    headers: Headers, client: Client | None, scheme: bytes, via: bytes, version: bytes
) -> Headers:
    """
    The fields of a request that are sent to a registry, token service or index.

    C{Accept-Encoding} is always identity: containerd counts decoded bytes when it resumes.

    @param headers: the fields that the client sent.
    @param client: the client; C{None} to leave the client's address out.
    @param scheme: the scheme with which the client reached the mirror.
    @param via: this mirror's name in C{Via} (RFC 9110 7.6.3).
    @param version: the client's version of HTTP, such as C{b"1.1"}.
    """
    named = listMembers(headers, b"Connection")
    passed = Headers()
    for name, values in headers.getAllRawHeaders():
        lower = name.lower()
        if not (
            _stopsHere(lower, named) or lower in _NOT_FORWARDED or lower.startswith(b"x-forwarded-")
        ):
            passed.setRawHeaders(name, values)
    passed.setRawHeaders(b"Accept-Encoding", [b"identity"])
    passed.setRawHeaders(b"Via", [_appendVia(headers, version, via)])
    if client is not None and client.address is not None:
        passed.setRawHeaders(b"X-Forwarded-For", [b", ".join(client.chain)])
        passed.setRawHeaders(b"X-Forwarded-Proto", [scheme])
        passed.setRawHeaders(b"X-Real-IP", [str(client.address).encode("ascii")])
    return passed


def acrossOrigins(headers: Headers) -> Headers:
    """
    The fields of a request that follows a redirect to another origin: without credentials (object
    stores respond with 400 to a second credential) and without the client's address.
    """
    passed = Headers()
    for name, values in headers.getAllRawHeaders():
        lower = name.lower()
        if lower not in _NOT_ACROSS_ORIGINS and not lower.startswith(b"x-forwarded-"):
            passed.setRawHeaders(name, values)
    return passed


def hasPassword(headers: Headers) -> bool:
    """
    Whether a request has credentials other than a token.
    """
    values = headers.getRawHeaders(b"Authorization") or ()
    return any(value.partition(b" ")[0].lower() != b"bearer" for value in values)


def forFallback(headers: Headers) -> Headers:
    """
    The fields of a request that a fallback may be sent: without a password, which is for the
    registry and its token service alone, and without the registry's cookies.

    @param headers: the fields that the registry is sent.
    """
    passed = headers.copy()
    passed.removeHeader(b"Cookie")
    if hasPassword(headers):
        passed.removeHeader(b"Authorization")
    return passed


def dropCookies(headers: Headers) -> None:
    """
    Remove the cookies that a response sets.  This is for responses of a fallback, which the client
    does not know; for those to the mirror's own account; and for those that are sent to more than
    one client.
    """
    for name in _COOKIES:
        headers.removeHeader(name)


def dropClaims(headers: Headers) -> None:
    """
    Remove the fields that only a registry may send to the client from the response of another host,
    such as a CDN, to which the registry redirected the request.  They are the challenge (no other
    host may ask for the registry's credentials), cookies, and C{Content-Location}.
    """
    dropCookies(headers)
    headers.removeHeader(b"WWW-Authenticate")
    headers.removeHeader(b"Content-Location")


def forClient(headers: Headers, via: bytes, minor: int) -> Headers:
    """
    The fields of an upstream's response that are sent to the client.  C{WWW-Authenticate},
    C{Location}, C{Content-Location} and C{Link} are kept as they are; the caller converts them.

    @param via: this mirror's name in C{Via}.
    @param minor: the upstream's minor version of HTTP/1.
    """
    named = listMembers(headers, b"Connection")
    passed = Headers()
    for name, values in headers.getAllRawHeaders():
        lower = name.lower()
        if (
            _stopsHere(lower, named)
            or lower in _OF_THE_ORIGIN
            or lower.startswith(b"access-control-")
        ):
            continue
        passed.setRawHeaders(name, values[:1] if lower in _ONE_ONLY else values)
    passed.setRawHeaders(b"Via", [_appendVia(headers, b"1.%d" % minor, via)])
    return passed


def _appendVia(headers: Headers, version: bytes, via: bytes) -> bytes:
    return b", ".join([*(headers.getRawHeaders(b"Via") or ()), version + b" " + via])


def hasPassed(headers: Headers, via: bytes) -> bool:
    """
    Whether a request has already passed through this mirror.
    """
    return any(member.endswith(b" " + via.lower()) for member in listMembers(headers, b"Via"))
