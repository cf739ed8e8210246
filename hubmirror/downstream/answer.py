"""
The head of an answer: an upstream's, made fit for a client of the mirror, or the mirror's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from twisted.web.server import Request

from hubmirror.protocol.challenge import withRealm
from hubmirror.protocol.errors import SERVER, MirrorError, reasonOf
from hubmirror.protocol.fields import forClient
from hubmirror.protocol.url import splitURL

_LINK = re.compile(rb"<([^>]*)>")


def onMirror(reference: bytes, base: bytes, path: bytes) -> bytes:
    """
    A reference that an upstream gave, on the mirror.  One that names no host already means the
    mirror to whoever got it from there.

    @param base: the mirror's URL, without a trailing slash.
    @param path: below which the upstream's registry lies.
    """
    if reference.startswith(b"//"):
        reference = b"https:" + reference
    try:
        target = splitURL(reference)[1]
    except ValueError:
        if not reference.startswith(b"/"):
            return reference
        if not path or not reference.startswith(path + b"/"):
            return splitURL(base)[1].rstrip(b"/") + reference
        target = reference
    if path and target.startswith(path + b"/"):
        target = target[len(path) :]
    return base + target


def writeHead(
    request: Request,
    response: IResponse,
    *,
    via: bytes,
    base: bytes,
    path: bytes,
    extra: Iterable[tuple[bytes, bytes]],
    challenged: bool,
) -> int | None:
    """
    Set the head of a request's answer from an upstream's.

    @param via: the mirror's name in C{Via}.
    @param base: the mirror's URL, without a trailing slash.
    @param path: below which the upstream's registry lies.
    @param extra: fields to set besides.
    @param challenged: whether a challenge may be handed on; it then names the mirror's C{/token}.
    @return: the length of the body to come in bytes, C{None} where it is not known.
    """
    request.setResponseCode(response.code, response.phrase)
    # Nothing is to be guessed: an answer without a Content-Type stays without.
    request.defaultContentType = None
    fields = forClient(response.headers, via, response.version[2])
    challenges = fields.getRawHeaders(b"WWW-Authenticate")
    if challenges is not None:
        fields.removeHeader(b"WWW-Authenticate")
        if challenged and response.code == 401:
            realm = base + b"/token"
            fields.setRawHeaders(
                b"WWW-Authenticate", [withRealm(value, realm) for value in challenges]
            )
    for name in (b"Location", b"Content-Location", b"Link"):
        values = fields.getRawHeaders(name)
        if values is not None:
            fields.setRawHeaders(name, [_moved(name, value, base, path) for value in values])
    for name, value in extra:
        fields.setRawHeaders(name, [value])
    if not fields.hasHeader(b"Server"):
        fields.setRawHeaders(b"Server", [SERVER])
    length: int | None = None if response.length is UNKNOWN_LENGTH else response.length
    if (
        length is not None
        and not fields.hasHeader(b"Content-Length")
        and request.method != b"HEAD"
        and response.code not in (204, 304)
    ):
        fields.setRawHeaders(b"Content-Length", [b"%d" % length])
    # What the site has set already, such as its own Date, gives way to the upstream's.
    for name, own in request.responseHeaders.getAllRawHeaders():
        if not fields.hasHeader(name):
            fields.setRawHeaders(name, own)
    request.responseHeaders = fields
    return length


def _moved(name: bytes, value: bytes, base: bytes, path: bytes) -> bytes:
    if name == b"Link":
        return _LINK.sub(lambda match: b"<" + onMirror(match[1], base, path) + b">", value)
    return onMirror(value, base, path)


def writeOwn(
    request: Request,
    status: int,
    fields: Iterable[tuple[bytes, bytes]],
    body: bytes = b"",
) -> None:
    """
    Answer a request with what the mirror itself has to say, as JSON.
    """
    request.setResponseCode(status, reasonOf(status))
    request.defaultContentType = None
    request.setHeader(b"Server", SERVER)
    if status != 204:
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"Content-Length", b"%d" % len(body))
    for name, value in fields:
        request.setHeader(name, value)
    request.write(body)
    request.finish()


def writeError(request: Request, error: MirrorError, extra: Iterable[tuple[bytes, bytes]]) -> None:
    """
    Answer a request with a registry error.
    """
    fields = [(b"Docker-Distribution-API-Version", b"registry/2.0"), *error.fields, *extra]
    writeOwn(request, error.status, fields, error.body())
