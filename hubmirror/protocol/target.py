"""
The request target, and which operation of a registry it requests.

A target has two forms.  C{raw} is sent upstream byte for byte.  C{path} is the path as a registry
would interpret it: decoded, with slashes merged and dot segments removed.  Only C{path} decides the
route, so that no spelling of C{/v2/_catalog} is forwarded.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from hubmirror.protocol.errors import BadRequest
from hubmirror.protocol.url import removeDotSegments


class Kind(enum.Enum):
    """
    The operation that a target requests, in the terms of the OCI distribution spec.
    """

    PING = "ping"
    CATALOG = "catalog"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOAD = "upload"
    TAGS = "tags"
    REFERRERS = "referrers"
    TOKEN = "token"
    SEARCH = "search"
    SEARCH_PING = "search ping"
    ROOT = "root"
    OTHER = "other"


class Target(NamedTuple):
    """
    A request target that has been read.

    @ivar raw: path and query as the client wrote them, but without C{ns}.
    @ivar path: the path as a registry interprets it.
    @ivar kind: the operation that is requested.
    @ivar repository: the repository's name; C{None} when the target has none.
    @ivar reference: the tag or digest; C{None} when the target has none.
    @ivar namespaces: the values of C{ns}, in lower case.  containerd, buildkit and dockerd 29 name
        the registry that they address there.
    @ivar isPlain: whether all servers find the same segments in the path, however they remove dot
        segments and wherever they end a path or a segment.
    """

    raw: bytes
    path: bytes
    kind: Kind
    repository: bytes | None = None
    reference: bytes | None = None
    namespaces: tuple[bytes, ...] = ()
    isPlain: bool = True


_FIXED = {
    b"/": Kind.ROOT,
    b"/v2": Kind.PING,
    b"/v2/_catalog": Kind.CATALOG,
    b"/token": Kind.TOKEN,
    b"/v1/search": Kind.SEARCH,
    b"/v1/_ping": Kind.SEARCH_PING,
}
_MOST_DECODINGS = 8
_KINDS_IN_REPOSITORY = (Kind.MANIFEST, Kind.UPLOAD, Kind.BLOB, Kind.REFERRERS, Kind.TAGS)
# The locations that GHCR creates for uploads have blobs/upload, which the specification lacks.
_IN_REPOSITORY = re.compile(
    rb"/v2/(?P<repository>.+)/"
    rb"(?:(?P<manifest>manifests)|(?P<upload>blobs/(?:uploads|upload(?=/[^/])))|(?P<blob>blobs)"
    rb"|(?P<referrers>referrers)|(?P<tags>tags/list)(?=/?\Z))"
    rb"(?:/(?P<reference>[^/]+))?/?\Z"
)


@lru_cache(maxsize=64)
def readTarget(raw: bytes) -> Target:
    """
    Read a target in origin form (RFC 9112 3.2.1).

    @param raw: path and query, beginning with a slash.
    @raise BadRequest: when the path contains a NUL, encoded or not.
    """
    rawPath, mark, query = raw.partition(b"?")
    namespaces: list[bytes] = []
    if b"ns=" in query:
        kept = []
        for pair in query.split(b"&"):
            if pair.startswith(b"ns="):
                namespaces.append(unquote_to_bytes(pair[3:]).lower())
            else:
                kept.append(pair)
        query = b"&".join(kept)
        mark = b"?" if query else b""
    decoded = _decode(rawPath)
    if b"\0" in decoded:
        raise BadRequest("the path contains a NUL")
    merged = re.sub(rb"/+", b"/", decoded)
    path = removeDotSegments(merged.partition(b"#")[0])
    isPlain = path == merged and not re.search(rb"[;?\\]", path)
    kind, repository, reference = _classify(path)
    if (path != rawPath or not isPlain) and b"_catalog" in re.split(rb"[/;?#\\]", decoded):
        # Servers differ in how often they decode, in whether they merge slashes before they
        # resolve dot segments, and in where they end a path or a segment.  So an unusual path that
        # contains _catalog anywhere is treated as the catalog; no client writes a repository's name
        # so.
        kind, repository, reference = Kind.CATALOG, None, None
    if path == b"/v2":
        rawPath = b"/v2/"
    raw = rawPath + mark + query
    return Target(raw, path, kind, repository, reference, tuple(namespaces), isPlain)


def _classify(path: bytes) -> tuple[Kind, bytes | None, bytes | None]:
    kind = _FIXED.get(path.rstrip(b"/") or path)
    if kind is not None:
        return kind, None, None
    match = _IN_REPOSITORY.match(path)
    if match is None:
        return Kind.OTHER, None, None
    kind = next(kind for kind in _KINDS_IN_REPOSITORY if match[kind.value])
    return kind, match["repository"], match["reference"]


def _decode(path: bytes) -> bytes:
    """
    Percent-decode a path until it does not change any more: an upstream behind another proxy may
    decode it once more, and no name in a registry contains a percent sign.

    @raise BadRequest: when that takes L{_MOST_DECODINGS} rounds or more.  Each round takes time in
        proportion to the path's length.
    """
    for _ in range(_MOST_DECODINGS):
        if b"%" not in path or (decoded := unquote_to_bytes(path)) == path:
            return path
        path = decoded
    raise BadRequest("the path is percent-encoded too many times over")


def sourcesOf(target: Target) -> list[bytes]:
    """
    The repositories from which a cross-repository mount may take its blob (OCI distribution spec,
    "Mounting a blob from another repository").  Servers differ in which C{from} counts when there
    are several, and some separate parameters at a semicolon, too.
    """
    pairs = re.split(rb"[&;]", target.raw.partition(b"?")[2])
    parameters = [unquote_to_bytes(pair.replace(b"+", b" ")).partition(b"=") for pair in pairs]
    return [value for name, _, value in parameters if name == b"from" and value]


def searchTarget(raw: bytes) -> bytes:
    """
    Convert the target of a search to the form that Docker Hub's index understands: a leading
    C{library/} in C{q} is removed, whether its slash is encoded or not, and C{library/} alone
    becomes C{library}.  All else stays byte for byte.
    """
    path, mark, query = raw.partition(b"?")
    return path + mark + b"&".join(map(_searchParameter, query.split(b"&")))


def _searchParameter(pair: bytes) -> bytes:
    match = re.match(rb"q=library(?:/|%2f)", pair, re.IGNORECASE)
    if match is None:
        return pair
    return b"q=" + (pair[match.end() :] or b"library")
