"""
Byte ranges (RFC 9110 14): the part of an entity that a response contains, and the C{Range} that
requests the rest of it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from twisted.web.http_headers import Headers

_CONTENT_RANGE = re.compile(rb"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)\Z")


class Part(NamedTuple):
    """
    A contiguous part of an entity.

    @ivar first: the position of the part's first byte in the entity.
    @ivar length: the part's length in bytes.
    @ivar total: the entity's length in bytes; C{None} when the response does not state it.
    @ivar tag: the entity's strong C{ETag}; C{None} when there is none.
    """

    first: int
    length: int
    total: int | None
    tag: bytes | None


def partOf(status: int, length: int | None, headers: Headers) -> Part | None:
    """
    The part of an entity that a response contains; C{None} when it contains several parts, or its
    length is not known.

    @param length: the length of the response's body in bytes; C{None} when it is not known.
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

    @param position: how many bytes of the part have been received.
    """
    first = part.first + position
    end = part.first + part.length
    if end == part.total:
        return b"bytes=%d-" % first
    return b"bytes=%d-%d" % (first, end - 1)
