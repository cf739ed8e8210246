"""
A strict parser for the message heads and body framing of HTTP/1.1 (RFC 9112), for both sides of the
mirror.

If a proxy parses a message differently from its neighbour, one request can be smuggled inside
another.  Therefore ambiguous messages are not repaired: bare CR or LF, obs-fold, white space before
a colon, two lengths, and a length together with a transfer coding are errors.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from twisted.web.http_headers import Headers

from hubmirror.protocol.buffers import MAX_HEAD, ReceiveBuffer
from hubmirror.protocol.errors import (
    BadRequest,
    BodyFailed,
    FieldsTooLarge,
    HeadFailed,
    TransferCodingUnknown,
    VersionNotSupported,
)

MAX_FIELDS = 500
_MAX_CHUNK_LINE = 4096

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_METHOD = re.compile(_TOKEN + rb"\Z")
_REQUEST_TARGET = re.compile(rb"[\x21-\x7e]+\Z")
_FIELD_LINE = re.compile(rb"(" + _TOKEN + rb"):([^\x00\r\n]*)\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9]{2})(?: ([^\x00\r\n]*))?\Z")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00\r\n]*)?\Z")


class RequestHead(NamedTuple):
    """
    A request line and its fields.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: Headers


class ResponseHead(NamedTuple):
    """
    A status line and its fields.  The version has the form of C{IResponse.version}.
    """

    version: tuple[bytes, int, int]
    status: int
    phrase: bytes
    headers: Headers


def parseRequestHead(head: bytes) -> RequestHead:
    """
    Read a request line and its fields (RFC 9112 3, 5).

    @param head: everything before the empty line.
    @raise RequestRefused: when the head is not a valid request of HTTP/1.0 or 1.1.
    """
    start, _, rest = head.partition(b"\r\n")
    parts = start.split(b" ")
    if len(parts) != 3 or not _METHOD.match(parts[0]):
        raise BadRequest("malformed request line")
    method, target, version = parts
    if not _REQUEST_TARGET.match(target):
        raise BadRequest("the request target contains characters that must be percent-encoded")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        if re.match(rb"HTTP/[0-9]\.[0-9]\Z", version):
            raise VersionNotSupported("only HTTP/1.1 and HTTP/1.0 are spoken here")
        raise BadRequest("malformed request line")
    headers = _parseFields(rest)
    hosts = headers.getRawHeaders(b"Host") or ()
    if len(hosts) > 1 or (not hosts and version == b"HTTP/1.1"):
        raise BadRequest("a request must have exactly one Host field")
    return RequestHead(method, target, version, headers)


def parseResponseHead(head: bytes) -> ResponseHead:
    """
    Read a status line and its fields (RFC 9112 4, 5).

    @param head: everything before the empty line.
    @raise HeadFailed: when the head is not a valid response of HTTP/1.x, or its status is outside
        of 100 to 599 (RFC 9110 15).
    """
    start, _, rest = head.partition(b"\r\n")
    match = _STATUS_LINE.match(start)
    if match is None:
        raise HeadFailed("malformed status line")
    minor, status, phrase = match.groups()
    try:
        headers = _parseFields(rest)
    except (BadRequest, FieldsTooLarge) as error:
        raise HeadFailed(error.message) from None
    return ResponseHead((b"HTTP", 1, int(minor)), int(status), phrase or b"", headers)


def _parseFields(lines: bytes) -> Headers:
    headers = Headers()
    if not lines:
        return headers
    split = lines.split(b"\r\n")
    if len(split) > MAX_FIELDS:
        raise FieldsTooLarge(f"more than {MAX_FIELDS} fields")
    for line in split:
        match = _FIELD_LINE.match(line)
        if match is None:
            raise BadRequest("malformed field line")
        headers.addRawHeader(match[1], match[2].strip(b" \t"))
    return headers


def listMembers(headers: Headers, name: bytes) -> list[bytes]:
    """
    The members of a list field (RFC 9110 5.6.1) from all of its lines, in lower case.
    """
    values = headers.getRawHeaders(name)
    if not values:
        return []
    joined = b",".join(values)
    return [member for part in joined.split(b",") if (member := part.strip(b" \t").lower())]


def unquoted(value: bytes) -> bytes:
    """
    The content of a quoted string (RFC 9110 5.6.4); a token stays as it is.
    """
    if not value.startswith(b'"'):
        return value
    return re.sub(rb"\\(.)", rb"\1", value[1:-1], flags=re.DOTALL)


def contentLength(headers: Headers) -> int | None:
    """
    The C{Content-Length}, in bytes; C{None} when the field is absent.

    @raise BadRequest: when there are several, or it is no number.
    """
    values = headers.getRawHeaders(b"Content-Length")
    if values is None:
        return None
    if len(values) > 1 or not re.match(rb"[0-9]{1,18}\Z", values[0]):
        raise BadRequest("malformed Content-Length")
    return int(values[0])


def requestBody(head: RequestHead) -> Decoder | None:
    """
    The decoder for the body of a request (RFC 9112 6.3), or C{None} when it has no body.

    @raise RequestRefused: when the framing is ambiguous or unknown.
    """
    length = contentLength(head.headers)
    if head.headers.hasHeader(b"Transfer-Encoding"):
        if length is not None:
            raise BadRequest("both Content-Length and Transfer-Encoding")
        if head.version != b"HTTP/1.1":
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        if listMembers(head.headers, b"Transfer-Encoding") != [b"chunked"]:
            raise TransferCodingUnknown("the only transfer coding known here is chunked")
        return ChunkedDecoder()
    return IdentityDecoder(length) if length else None


def responseBody(method: bytes, head: ResponseHead) -> Decoder | None:
    """
    The decoder for the body of a response (RFC 9112 6.3), or C{None} when it has no body.

    @raise HeadFailed: when the framing is ambiguous or unknown.
    """
    if method == b"HEAD" or head.status in (204, 304):
        return None
    try:
        length = contentLength(head.headers)
    except BadRequest as error:
        raise HeadFailed(error.message) from None
    if head.headers.hasHeader(b"Transfer-Encoding"):
        codings = listMembers(head.headers, b"Transfer-Encoding")
        if length is not None or codings != [b"chunked"] or head.version[2] == 0:
            raise HeadFailed("unusable Transfer-Encoding")
        return ChunkedDecoder()
    if length is None:
        return UntilCloseDecoder()
    return IdentityDecoder(length) if length else None


class Decoder:
    """
    Extracts the bytes of one body from the bytes of a connection.

    @ivar length: the body's length in bytes; C{None} when it is not known beforehand.
    @ivar done: whether the body is complete.
    """

    length: int | None = None
    done = False

    def feed(self, buffer: ReceiveBuffer) -> list[bytes]:
        """
        Take the bytes of the body from the front of a buffer.  The bytes after the body stay there.

        @return: the decoded pieces of the body.
        @raise BodyFailed: when the framing is malformed.
        """
        raise NotImplementedError


class IdentityDecoder(Decoder):
    """
    A body of known length.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._left = length

    def feed(self, buffer: ReceiveBuffer) -> list[bytes]:
        piece = buffer.take(self._left)
        self._left -= len(piece)
        self.done = not self._left
        return [piece]


class UntilCloseDecoder(Decoder):
    """
    A body that ends when its connection is closed.
    """

    def feed(self, buffer: ReceiveBuffer) -> list[bytes]:
        return [buffer.takeAll()]


class ChunkedDecoder(Decoder):
    """
    The chunked coding (RFC 9112 7.1).  Extensions and trailers are checked and discarded.
    """

    def __init__(self) -> None:
        self._left = 0
        self._read = self._size
        self._trailers = 0

    def feed(self, buffer: ReceiveBuffer) -> list[bytes]:
        pieces: list[bytes] = []
        while not self.done and self._read(buffer, pieces):
            pass
        return pieces

    def _line(self, buffer: ReceiveBuffer) -> bytes | None:
        try:
            return buffer.takeLine(_MAX_CHUNK_LINE)
        except ValueError:
            raise BodyFailed("a chunk's line is too long") from None

    def _size(self, buffer: ReceiveBuffer, pieces: list[bytes]) -> bool:
        line = self._line(buffer)
        if line is None:
            return False
        match = _CHUNK_LINE.match(line)
        if match is None:
            raise BodyFailed("malformed chunk")
        self._left = int(match[1], 16)
        self._read = self._data if self._left else self._trailer
        return True

    def _data(self, buffer: ReceiveBuffer, pieces: list[bytes]) -> bool:
        piece = buffer.take(self._left)
        if piece:
            pieces.append(piece)
        self._left -= len(piece)
        if self._left:
            return False
        self._read = self._end
        return True

    def _end(self, buffer: ReceiveBuffer, pieces: list[bytes]) -> bool:
        """
        The CR LF after a chunk's data.
        """
        if len(buffer) < 2:
            if len(buffer) and not buffer.startswith(b"\r"):
                raise BodyFailed("malformed chunk")
            return False
        if buffer.take(2) != b"\r\n":
            raise BodyFailed("malformed chunk")
        self._read = self._size
        return True

    def _trailer(self, buffer: ReceiveBuffer, pieces: list[bytes]) -> bool:
        line = self._line(buffer)
        if line is None:
            return False
        self._trailers += len(line)
        if self._trailers > MAX_HEAD or (line and not _FIELD_LINE.match(line)):
            raise BodyFailed("malformed trailers")
        self.done = not line
        return True
