"""
The C{scope} of a token request and of a challenge: C{type:name:actions}, several of them separated
by spaces (distribution spec, "Token Scope Documentation"; RFC 6749 3.3).
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote_from_bytes, unquote_to_bytes

ChangeName = Callable[[bytes], "bytes | None"]
"""
A function that returns the new name for a repository's name, or C{None} to remove its scope.
"""


def changeScopes(scopes: bytes, change: ChangeName) -> bytes:
    """
    Change the names of the repositories in a list of scopes.  Duplicate scopes are removed.
    """
    changed = dict.fromkeys(_changed(scope, change) for scope in scopes.split(b" "))
    return b" ".join(scope for scope in changed if scope)


def _changed(scope: bytes, change: ChangeName) -> bytes:
    kind, _, rest = scope.partition(b":")
    name, _, actions = rest.rpartition(b":")
    if not name or not (kind == b"repository" or kind.startswith(b"repository(")):
        return scope
    other = change(name)
    return b"" if other is None else b"%b:%b:%b" % (kind, other, actions)


def namesIn(form: bytes) -> list[bytes]:
    """
    The names of the repositories in all scopes of a query or form.
    """
    names: list[bytes] = []

    def collect(name: bytes) -> bytes:
        names.append(name)
        return name

    for pair in form.split(b"&"):
        if pair.startswith(b"scope="):
            changeScopes(_decoded(pair), collect)
    return names


def changeForm(form: bytes, change: ChangeName) -> bytes:
    """
    Change the names of the repositories in every C{scope} of a query or form.  Duplicate scopes are
    removed; everything that does not change stays byte for byte.
    """
    seen: set[bytes] = set()
    kept: list[bytes] = []
    for pair in form.split(b"&"):
        if not pair.startswith(b"scope="):
            kept.append(pair)
            continue
        scopes = _decoded(pair)
        changed = changeScopes(scopes, change)
        wanted = [scope for scope in changed.split(b" ") if scope not in seen]
        seen.update(wanted)
        changed = b" ".join(wanted)
        if changed == scopes:
            kept.append(pair)
        elif changed:
            kept.append(b"scope=" + quote_from_bytes(changed, safe=":/,*").encode("ascii"))
    return b"&".join(kept)


def _decoded(pair: bytes) -> bytes:
    return unquote_to_bytes(pair.partition(b"=")[2].replace(b"+", b" "))
