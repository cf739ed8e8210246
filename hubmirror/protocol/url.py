"""
Splits and resolves URLs and references without re-encoding their bytes, because the query of a
redirect is often signed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DEFAULT_PORTS = {b"http": 80, b"https": 443}
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY = re.compile(
    rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=-]{1,255})(?::([0-9]{0,5}))?\Z"
)
_UNSAFE = re.compile(rb"[^\x21-\x7e]")


class Origin(NamedTuple):
    """
    The origin of a URL (RFC 6454).

    @ivar scheme: the scheme, in lower case.
    @ivar host: the host, in lower case; an IPv6 address has no brackets.
    @ivar port: the port.
    """

    scheme: bytes
    host: bytes
    port: int

    @property
    def authority(self) -> bytes:
        """
        The value of the C{Host} field: the port is left out when it is the scheme's default.
        """
        host = b"[%b]" % self.host if b":" in self.host else self.host
        if self.port == _DEFAULT_PORTS.get(self.scheme):
            return host
        return b"%b:%d" % (host, self.port)

    def __str__(self) -> str:
        return (b"%b://%b" % (self.scheme, self.authority)).decode("ascii")


def parseAuthority(authority: bytes, scheme: bytes) -> Origin:
    """
    Read C{host[:port]}.

    @raise ValueError: for anything else, such as user information.
    """
    match = _AUTHORITY.match(authority)
    if match is None:
        raise ValueError("not a host and port")
    host, digits = match.groups()
    port = int(digits) if digits else _DEFAULT_PORTS.get(scheme, 0)
    if not 0 < port < 65536:
        raise ValueError("port out of range")
    return Origin(scheme, host.strip(b"[]").lower(), port)


def splitURL(url: bytes) -> tuple[Origin, bytes]:
    """
    Split an absolute C{http} or C{https} URL into its origin and the request target (RFC 9112
    3.2.1), which is the rest of the URL, byte for byte, without the fragment.

    @raise ValueError: when C{url} is no such URL.
    """
    match = _ABSOLUTE.match(url)
    if match is None:
        raise ValueError("not an absolute URL")
    scheme = match[1].lower()
    if scheme not in _DEFAULT_PORTS:
        raise ValueError("neither http nor https")
    target = match[3]
    if not target.startswith(b"/"):
        target = b"/" + target
    return parseAuthority(match[2], scheme), target


def resolve(base: bytes, reference: bytes) -> bytes:
    """
    Resolve a reference relative to a base URL (RFC 3986 5.2).  The fragment is removed.  Bytes that
    a request line must not contain are percent-encoded, as browsers do; all others stay.

    @return: the absolute URL.
    @raise ValueError: when the result is no absolute C{http} or C{https} URL.
    """
    reference = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], reference.partition(b"#")[0])
    origin, target = splitURL(base)
    if not _SCHEME.match(reference):
        root = b"%b://%b" % (origin.scheme, origin.authority)
        path, mark, _query = target.partition(b"?")
        if reference.startswith(b"//"):
            reference = origin.scheme + b":" + reference
        elif reference.startswith(b"/"):
            reference = root + reference
        elif reference.startswith(b"?"):
            reference = root + path + reference
        elif not reference:
            reference = root + target
        else:
            relative, mark, query = reference.partition(b"?")
            directory = path[: path.rfind(b"/") + 1]
            reference = root + removeDotSegments(directory + relative) + mark + query
    splitURL(reference)
    return reference


def removeDotSegments(path: bytes) -> bytes:
    """
    Remove the segments C{.} and C{..} from an absolute path (RFC 3986 5.2.4).
    """
    segments = path.split(b"/")
    kept: list[bytes] = []
    for segment in segments[1:]:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
