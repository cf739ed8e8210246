"""
The C{X-Request-ID} of an exchange, by which it is found in the logs of client, mirror and upstream.
"""

from __future__ import annotations

import re
import secrets

from twisted.web.http_headers import Headers

REQUEST_ID = b"X-Request-ID"

_SANE = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")


def requestIDOf(headers: Headers) -> bytes:
    """
    The request's own identifier, if it has one that can stand in a log; else a new one.
    """
    values = headers.getRawHeaders(REQUEST_ID) or ()
    if len(values) == 1 and _SANE.fullmatch(values[0]):
        return values[0]
    return secrets.token_hex(8).encode("ascii")
