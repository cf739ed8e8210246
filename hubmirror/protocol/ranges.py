"""
Byte ranges (RFC 9110 14): the part of an entity that a response holds, and the C{Range} for its
rest.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from twisted.web.http_headers import Headers

_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)\Z")


class Part(NamedTuple):
    """
    @ivar first: position of the first byte in the entity.
    @ivar length: bytes in the part.
    @ivar total: bytes in the entity; C{None} where the answer does not tell.
    @ivar tag: the entity's strong C{ETag}, where there is one.
    """

    first: int
    length: int
    total: int | None
    tag: bytes | None


def partOf(status: int, length: int | None, headers: Headers) -> Part | None:
    """
    The one part that a response holds; C{None} when it holds several parts or its length is not
    known.

    @param length: of the answer's body in bytes, where it is known.
    """
    tag = (headers.getRawHeaders(b"ETag") or [b"W/"])[0]
    strong = None if tag.startswith(b"W/") else tag
    if status == 206:
        match = _CONTENT_RANGE.match((headers.getRawHeaders(b"Content-Range") or [b""])[0])
        if match is None:
            return None
        first, last = int(match[1]), int(match[2])
        total = None if match[3] is None else int(match[3])
        size = last - first + 1
        if size < 1 or (total is not None and last >= total) or length not in (None, size):
            return None
        return Part(first, size, total, strong)
    return None if status != 200 or length is None else Part(0, length, length, strong)


def rangeFrom(part: Part, position: int) -> bytes:
    """
    The C{Range} that requests the rest of a part.

    @param position: bytes of the part that have come.
    """
    first = part.first + position
    end = part.first + part.length
    if end == part.total:
        return b"bytes=%d-" % first
    return b"bytes=%d-%d" % (first, end - 1)
