"""
The C{X-Request-ID} of an exchange, by which it can be found in the logs of the client, the mirror
and the upstream.
"""

from __future__ import annotations

import re
import secrets

from twisted.web.http_headers import Headers

REQUEST_ID = b"X-Request-ID"

# Identifiers that are safe to log.
_SANE = re.compile(rb"[A-Za-z0-9._:=+/@-]{1,128}")


def requestIDOf(headers: Headers) -> bytes:
    """
    The identifier from the request, if there is one and it is safe to log; otherwise a new one.
    """
    values = headers.getRawHeaders(REQUEST_ID) or ()
    if len(values) == 1 and _SANE.fullmatch(values[0]):
        return values[0]
    return secrets.token_hex(8).encode("ascii")
