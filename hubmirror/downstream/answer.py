"""
The head of a response to a client: the adapted head of an upstream's response, or the mirror's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from twisted.web.server import Request

from hubmirror.downstream.incoming import Incoming
from hubmirror.exchange import Exchange
from hubmirror.protocol import challenge
from hubmirror.protocol.errors import SERVER, MirrorError, reasonOf
from hubmirror.protocol.fields import forClient
from hubmirror.protocol.spelling import Spelling
from hubmirror.protocol.url import splitURL

API_VERSION = (b"Docker-Distribution-API-Version", b"registry/2.0")
"""
The header field by which clients recognize a registry (OCI distribution spec, "Legacy Docker
support HTTP headers").
"""

# Without "<" in the class, a row of them would take quadratic time.
_LINK = re.compile(rb"<([^<>]*)>")


def onMirror(reference: bytes, base: bytes, source: Spelling, client: Spelling) -> bytes:
    """
    Convert a URL reference of an upstream into one that leads to the mirror.  A relative path
    already does, because the client resolves it against the mirror's URL, and is only given C{ns}.

    @param base: the mirror's URL, without a trailing slash.
    @param source: how the upstream writes the registry's targets.
    @param client: how the client writes the registry's targets.
    """
    if reference.startswith(b"//"):
        reference = b"https:" + reference
    try:
        target = splitURL(reference)[1]
    except ValueError:
        if not reference.startswith(b"/"):
            return client.withNamespace(reference) if reference else reference
        target = source.read(reference)
        if target == reference:
            return splitURL(base)[1].rstrip(b"/") + client.write(target)
        return base + client.write(target)
    return base + client.write(source.read(target))


def writeHead(
    request: Request,
    response: IResponse,
    *,
    via: bytes,
    incoming: Incoming,
    source: Spelling,
    extra: Iterable[tuple[bytes, bytes]],
    challenged: bool,
) -> int | None:
    """
    Set the response head of a request from the head of an upstream's response.

    @param via: the mirror's name in C{Via}.
    @param incoming: the client's request.
    @param source: how the upstream writes the registry's targets.
    @param extra: further fields to set.
    @param challenged: whether to pass on the challenge of a 401, with the mirror's token service as
        its realm.
    @return: the length of the body in bytes; C{None} when it is not known.
    """
    request.setResponseCode(response.code, response.phrase)
    # Twisted would add a Content-Type to a response that has none.
    request.defaultContentType = None
    fields = forClient(response.headers, via, response.version[2])
    challenges = fields.getRawHeaders(b"WWW-Authenticate")
    if challenges is not None:
        fields.removeHeader(b"WWW-Authenticate")
        if challenged and response.code == 401:
            realm = incoming.base + incoming.tokenPath

            def change(name: bytes) -> bytes:
                return incoming.spelling.writeName(source.readName(name))

            fields.setRawHeaders(
                b"WWW-Authenticate",
                [challenge.onMirror(value, realm, change) for value in challenges],
            )
    for name in (b"Location", b"Content-Location", b"Link"):
        values = fields.getRawHeaders(name)
        if values is not None:
            fields.setRawHeaders(name, [_moved(name, value, incoming, source) for value in values])
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
    # Fields of the upstream take precedence over those that the site has set, such as Date.
    for name, own in request.responseHeaders.getAllRawHeaders():
        if not fields.hasHeader(name):
            fields.setRawHeaders(name, own)
    request.responseHeaders = fields
    return length


def _moved(name: bytes, value: bytes, incoming: Incoming, source: Spelling) -> bytes:
    def moved(reference: bytes) -> bytes:
        return onMirror(reference, incoming.base, source, incoming.spelling)

    if name == b"Link":
        return _LINK.sub(lambda match: b"<" + moved(match[1]) + b">", value)
    return moved(value)


def writeOwn(
    request: Request,
    exchange: Exchange,
    status: int,
    fields: Iterable[tuple[bytes, bytes]],
    body: bytes = b"",
) -> None:
    """
    Send a response of the mirror's own.

    @param fields: further header fields.  Without a C{Content-Type} among them, that is JSON's.
    """
    exchange.sent = 0 if request.method == b"HEAD" else len(body)
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


def writeError(
    request: Request, exchange: Exchange, error: MirrorError, extra: Iterable[tuple[bytes, bytes]]
) -> None:
    """
    Send an error as the response, in the format of a registry.

    @param extra: further header fields.
    """
    fields = [API_VERSION, *error.fields, *extra]
    writeOwn(request, exchange, error.status, fields, error.body())
