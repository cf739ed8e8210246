"""
C{WWW-Authenticate} (RFC 9110 11.6.1, RFC 6750 3): reads challenges, and replaces the realm of a
registry's token service with the mirror's.
"""

from __future__ import annotations

import re

from hubmirror.protocol.heads import unquoted
from hubmirror.protocol.scopes import ChangeName, changeScopes

_CHARACTER = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TOKEN = _CHARACTER + rb"+"
_PART = re.compile(
    # Without the lookbehind, a long token would be tried again from each of its characters.
    rb"(?<!" + _CHARACTER + rb")"
    rb"(?:(?P<name>" + _TOKEN + rb")[ \t]*=[ \t]*"
    # A quoted string that does not end is matched too: the realm in it must be replaced as well.
    rb"(?P<value>\"(?:[^\"\\]|\\.)*(?:\"|\\?\Z)|[^\",\s]+)"
    rb"|(?P<scheme>" + _TOKEN + rb")(?=[ \t,]|\Z))",
    re.DOTALL,
)


def bearerParameters(value: bytes) -> dict[bytes, bytes]:
    """
    The parameters of a C{Bearer} challenge, with their names in lower case; empty when the field
    value has no such challenge.
    """
    parameters: dict[bytes, bytes] = {}
    scheme = b""
    for part in _PART.finditer(value):
        if part["scheme"] is not None:
            scheme = part["scheme"].lower()
        elif scheme == b"bearer":
            parameters.setdefault(part["name"].lower(), unquoted(part["value"]))
    return parameters


def onMirror(value: bytes, realm: bytes, change: ChangeName) -> bytes:
    """
    Make every C{Bearer} challenge in a field value name the mirror's token service, and its scopes
    name repositories as the client does.  All else (other schemes, C{service}, C{error}, order,
    spacing) stays byte for byte.

    @param value: the field value.
    @param realm: the absolute URL of the mirror's token service.
    @param change: converts a repository's name to the client's.
    @return: the changed field value.
    """
    scheme = b""
    kept: list[bytes] = []
    copied = 0
    for part in _PART.finditer(value):
        if part["scheme"] is not None:
            scheme = part["scheme"].lower()
            continue
        name, changed = part["name"].lower(), None
        if scheme == b"bearer" and name == b"realm":
            changed = realm
        elif scheme == b"bearer" and name == b"scope":
            scopes = unquoted(part["value"])
            changed = changeScopes(scopes, change)
            if changed == scopes:
                continue
        if changed is not None:
            kept += value[copied : part.start("value")], quoted(changed)
            copied = part.end("value")
    return b"".join(kept) + value[copied:]


def quoted(value: bytes) -> bytes:
    """
    Write a value as a quoted string (RFC 9110 5.6.4).
    """
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def schemes(value: bytes) -> set[bytes]:
    """
    The schemes of the challenges in a field value, in lower case.
    """
    return {part["scheme"].lower() for part in _PART.finditer(value) if part["scheme"] is not None}
