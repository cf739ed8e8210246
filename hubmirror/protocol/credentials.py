"""
Whose credentials are whose.  Clients know one host, the mirror, and send it what they have: a token
of one registry to another, a password for the Hub to any token service that the mirror names.

Tokens of registries other than the default one are marked on their way to the client, so that the
mirror knows them when they come back.  Clients take tokens for opaque; a marked one is still a
C{token68} (RFC 9110 11.2).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

OWN_TOKEN = b"mirror"
"""
What the mirror gives in place of a token to a client that needs none, before it is marked.
"""

OWN_AUTHORIZATION = b"Bearer " + OWN_TOKEN
"""
What comes of it in a request: the mirror gets a token by itself, if one is wanted.
"""

_MARK = b"~"
_TOKENS = ("token", "access_token", "refresh_token")
_SECRETS = (b"password", b"username", b"refresh_token")


def mark(name: bytes, token: bytes) -> bytes:
    """
    Mark a token with the name of the registry that issued it.
    """
    return name.replace(b":", b"+") + _MARK + token


def unmark(name: bytes, token: bytes) -> bytes | None:
    """
    The token as its registry issued it, or C{None} when another one did.
    """
    prefix = name.replace(b":", b"+") + _MARK
    return token[len(prefix) :] if token.startswith(prefix) else None


def authorizationFor(
    name: bytes, authorization: bytes, *, isDefault: bool, passCredentials: bool
) -> bytes | None:
    """
    What of a client's C{Authorization} a registry and its token service may see.

    @param name: the registry's.
    @param isDefault: it is the one whose tokens are not marked, and whose passwords clients send.
    @param passCredentials: the operator lets passwords through to this one as well.
    @return: C{None} when nothing.
    """
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        return authorization if isDefault or passCredentials else None
    credentials = credentials.strip(b" ")
    if isDefault:
        # A mark is the name of another registry, and no token of the Hub has a tilde.
        return None if _MARK in credentials else authorization
    token = unmark(name, credentials)
    if token == OWN_TOKEN:
        return OWN_AUTHORIZATION
    return None if token is None else scheme + b" " + token


def formFor(name: bytes, form: bytes, *, isDefault: bool, passCredentials: bool) -> bytes | None:
    """
    The form of a token request (OAuth 2, RFC 6749 4.3, 6) as a registry's token service may see it.

    @return: C{None} when it has credentials that are not for this one.
    """
    pairs: list[bytes] = []
    for pair in form.split(b"&"):
        key, equals, value = pair.partition(b"=")
        if key == b"refresh_token" and not isDefault:
            token = unmark(name, unquote_to_bytes(value.replace(b"+", b"%2B")))
            if token is not None:
                pairs.append(key + equals + quote_from_bytes(token, safe="~").encode("ascii"))
                continue
        if key in _SECRETS and not (isDefault or passCredentials):
            return None
        pairs.append(pair)
    return b"&".join(pairs)


def markAnswer(name: bytes, body: bytes) -> bytes:
    """
    Mark the tokens in the JSON of a token service's response.

    @raise ValueError: when it is no JSON object.
    """
    members: Any = json.loads(body)
    if not isinstance(members, dict):
        raise ValueError("no JSON object")
    for member in _TOKENS:
        token = members.get(member)
        if isinstance(token, str):
            members[member] = mark(name, token.encode()).decode()
    return json.dumps(members).encode("ascii")
