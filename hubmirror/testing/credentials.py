"""
The credentials that a request bears, wherever it bears them.
"""

import binascii
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from hubmirror.testing.wire import HubRequest

_FORM = "application/x-www-form-urlencoded"
# Bytes of a body up to which it may be a form; those of token services are much shorter.
_LONGEST_FORM = 64 * 1024


@dataclass(frozen=True)
class Credential:
    """
    Something that says who asks.

    @ivar kind: the scheme of an C{Authorization} field in small letters, such as C{basic} and
        C{bearer}; C{cookie}; or the field of a posted form: C{password}, C{refresh_token}.
    @ivar value: C{NAME:PASSWORD} for C{basic} and C{password}; else the token, or the field.
    """

    kind: str
    value: str = field(repr=False)


def credentialsOf(request: HubRequest) -> tuple[Credential, ...]:
    """
    All credentials of a request: those in its fields, and those in a form that it posts.
    """
    fields = request.requestHeaders
    found = [_authorization(value) for value in fields.getRawHeaders("Authorization", [])]
    found += [Credential("cookie", value) for value in fields.getRawHeaders("Cookie", [])]
    if request.method == b"POST" and request.fieldOf("Content-Type").partition(";")[0] in (
        "",
        _FORM,
    ):
        found += _ofForm(request)
    return tuple(found)


def _authorization(value: str) -> Credential:
    scheme, _, rest = value.partition(" ")
    kind, rest = scheme.lower(), rest.strip()
    if kind == "basic":
        # What can't be decoded names nobody, and is kept as it is.
        with suppress(binascii.Error, UnicodeDecodeError):
            rest = b64decode(rest, validate=True).decode()
    return Credential(kind, rest)


def _ofForm(request: HubRequest) -> Iterator[Credential]:
    body = request.content.read(_LONGEST_FORM + 1)
    request.content.seek(0)
    if len(body) > _LONGEST_FORM:
        return
    form = parse_qs(body.decode("latin-1"))
    for password in form.get("password", []):
        yield Credential("password", f"{form.get('username', [''])[0]}:{password}")
    for token in form.get("refresh_token", []):
        yield Credential("refresh_token", token)
