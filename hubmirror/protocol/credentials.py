"""
Keeps the credentials of one registry from another.

To its clients the mirror is a single host, so they may send it any credentials that they have for
that host: the token of one registry in a request to another, or a password for Docker Hub to the
token service of any registry.

The mirror therefore marks every token of a registry other than the default one with that registry's
name before it sends it to the client, and recognizes it in later requests.  Tokens are opaque to
clients, and a marked token is still a valid C{token68} (RFC 9110 11.2).
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

OWN_TOKEN = b"mirror"
"""
The token, before it is marked, that the mirror issues itself to a client that needs no token of the
registry's.
"""

OWN_AUTHORIZATION = b"Bearer " + OWN_TOKEN
"""
The C{Authorization} of a request with L{OWN_TOKEN}: the mirror then gets a token from the registry
by itself, if one is required.
"""

_MARK = b"~"
_TOKENS = ("token", "access_token", "refresh_token")
_PASSWORD = (b"password", b"username")


def mark(name: bytes, token: bytes) -> bytes:
    """
    Mark a token with the name of the registry that issued it.
    """
    return name.replace(b":", b"+") + _MARK + token


def unmark(name: bytes, token: bytes) -> bytes | None:
    """
    A token as its registry issued it; C{None} when it is not marked with C{name}.
    """
    prefix = name.replace(b":", b"+") + _MARK
    return token[len(prefix) :] if token.startswith(prefix) else None


def _ownToken(name: bytes, token: bytes, isDefault: bool) -> bytes | None:
    """
    A token from a client, as the registry C{name} issued it; C{None} when it is another registry's.
    """
    if isDefault:
        # A marked token is another registry's; the Hub's own tokens contain no tilde.
        return None if _MARK in token else token
    return unmark(name, token)


def authorizationFor(
    name: bytes, authorization: bytes, *, isDefault: bool, passCredentials: bool
) -> bytes | None:
    """
    The C{Authorization} that a registry or its token service may be sent for a client's.

    @param name: the registry's name.
    @param authorization: the value that the client sent.
    @param isDefault: whether it is the default registry, whose tokens are not marked, and which the
        passwords that clients send are for.
    @param passCredentials: whether the operator lets passwords through to this registry as well.
    @return: C{None} when nothing of it may be sent.
    """
    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        return authorization if isDefault or passCredentials else None
    token = _ownToken(name, credentials.strip(b" "), isDefault)
    if isDefault:
        return None if token is None else authorization
    if token == OWN_TOKEN:
        return OWN_AUTHORIZATION
    return None if token is None else scheme + b" " + token


def formFor(name: bytes, form: bytes, *, isDefault: bool, passCredentials: bool) -> bytes | None:
    """
    The form of a token request (OAuth 2, RFC 6749 4.3, 6) that a registry's token service may be
    sent for a client's.  The parameters are those of L{authorizationFor}.

    @return: C{None} when the form has credentials that are not for this registry.
    """
    pairs: list[bytes] = []
    for pair in form.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == b"refresh_token":
            written = unquote_to_bytes(value.replace(b"+", b"%2B"))
            token = _ownToken(name, written, isDefault)
            if token is None:
                return None
            if token != written:
                pair = key + b"=" + quote_from_bytes(token, safe="~").encode("ascii")
        elif key in _PASSWORD and not (isDefault or passCredentials):
            return None
        pairs.append(pair)
    return b"&".join(pairs)


def markAnswer(name: bytes, body: bytes) -> bytes:
    """
    Mark the tokens in the JSON of a token service's response.

    @raise ValueError: when the body is no JSON object.
    """
    try:
        members: Any = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(members, dict):
        raise ValueError("no JSON object")
    for member in _TOKENS:
        token = members.get(member)
        if isinstance(token, str):
            members[member] = mark(name, token.encode()).decode()
    return json.dumps(members).encode("ascii")
