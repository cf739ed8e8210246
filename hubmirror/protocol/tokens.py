"""
Requests to a token service and its responses (Docker's token authentication specification).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from urllib.parse import urlencode

from hubmirror.protocol.errors import NoCredentials

# The shortest lifetime of a token, in seconds.
_LEAST_LIFE = 60.0


def tokenURL(service: bytes, parameters: Mapping[bytes, bytes], account: bytes = b"") -> bytes:
    """
    The URL at which a challenge tells clients to request a token.

    @param service: the URL of the token service.
    @param parameters: the parameters of the challenge.
    @param account: the name of the account; empty for an anonymous request.
    """
    query = [(name, parameters[name]) for name in (b"service", b"scope") if name in parameters]
    if account:
        query.append((b"account", account))
    if not query:
        return service
    mark = b"&" if b"?" in service else b"?"
    return service + mark + urlencode(query).encode("ascii")


def readToken(body: bytes) -> tuple[bytes, float]:
    """
    Parse a token service's response.  A lifetime of less than a minute counts as a minute ("Token
    Response Fields").

    @return: the value of C{Authorization}, and its lifetime in seconds.
    @raise NoCredentials: when the response has no token, or its lifetime is no finite number.
    """
    try:
        members = json.loads(body)
        token: str = members.get("token") or members["access_token"]
        life = float(members.get("expires_in") or 0)
        if not math.isfinite(life):
            raise ValueError("no lifetime")
        return b"Bearer " + token.encode("ascii"), max(_LEAST_LIFE, life)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise NoCredentials("its token service gave no token") from None
