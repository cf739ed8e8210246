"""
Cross-origin requests from browsers (CORS; Fetch standard, "HTTP extensions"), for web pages that
read a registry.
"""

from __future__ import annotations

import re

from twisted.web.http_headers import Headers

CORS_FIELDS = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Expose-Headers", b"*"),
)
"""
Response fields that let a page of any origin read a response and its fields.
"""

_MAX_AGE = b"86400"
_DEFAULT_HEADERS = b"Authorization, Accept, Content-Type, Range, If-None-Match, If-Range"
_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]+\Z")


def preflightFields(
    method: bytes, headers: Headers, allowed: tuple[bytes, ...]
) -> list[tuple[bytes, bytes]] | None:
    """
    The fields of the response to a preflight request; C{None} when the request is no preflight.

    @param allowed: the methods that the mirror accepts.
    """
    if (
        method != b"OPTIONS"
        or not headers.hasHeader(b"Origin")
        or not headers.hasHeader(b"Access-Control-Request-Method")
    ):
        return None
    asked = b", ".join(headers.getRawHeaders(b"Access-Control-Request-Headers") or ())
    return [
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Access-Control-Allow-Methods", b", ".join(allowed)),
        # A wildcard would not cover Authorization, so the names from the request are repeated.
        (
            b"Access-Control-Allow-Headers",
            asked if _NAMES.match(asked) else _DEFAULT_HEADERS,
        ),
        (b"Access-Control-Max-Age", _MAX_AGE),
    ]
