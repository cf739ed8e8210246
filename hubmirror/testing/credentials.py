"""
Finds the credentials of a request, in its fields and its form.
"""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from hubmirror.testing.wire import HubRequest, fieldValues

_FORM = "application/x-www-form-urlencoded"
# The longest body, in bytes, that is read as a form.  Those of token services are much shorter.
_LONGEST_FORM = 64 * 1024


@dataclass(frozen=True)
class Credential:
    """
    A credential of a request.

    @ivar kind: the scheme of an C{Authorization} field in lower case, such as C{basic} and
        C{bearer}; C{cookie}; or the parameter of a form: C{password}, C{refresh_token}.
    @ivar value: C{NAME:PASSWORD} for C{basic} and C{password}; otherwise the token, or the value of
        the field.
    """

    kind: str
    value: str = field(repr=False)


def credentialsOf(request: HubRequest) -> tuple[Credential, ...]:
    """
    All credentials of a request: those in its fields, and those in a form in its body.
    """
    fields = request.requestHeaders
    found = [_authorization(value) for value in fieldValues(fields, "Authorization")]
    found += [Credential("cookie", value) for value in fieldValues(fields, "Cookie")]
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
        # Malformed credentials are kept as they are.
        with suppress(ValueError):
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
