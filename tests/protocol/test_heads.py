"""Tests of the strict parsing of heads: ambiguous ones are refused."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import (
    BadRequest,
    FieldsTooLarge,
    HeadFailed,
    RequestRefused,
    TransferCodingUnknown,
    VersionNotSupported,
)
from hubmirror.protocol.heads import (
    MAX_FIELDS,
    ChunkedDecoder,
    Decoder,
    IdentityDecoder,
    RequestHead,
    ResponseHead,
    UntilCloseDecoder,
    contentLength,
    listMembers,
    parseRequestHead,
    parseResponseHead,
    requestBody,
    responseBody,
)

LINE = b"POST /v2/ HTTP/1.1\r\nHost: a"

REFUSED_REQUESTS = [
    # The first line.
    (b"", BadRequest),
    (b"GET /", BadRequest),
    (b"GET / ", BadRequest),
    (b"GET  / HTTP/1.1\r\nHost: a", BadRequest),
    (b" GET / HTTP/1.1\r\nHost: a", BadRequest),
    (b"GET / HTTP/1.1 \r\nHost: a", BadRequest),
    (b"GET\t/\tHTTP/1.1\r\nHost: a", BadRequest),
    (b"GET / x HTTP/1.1\r\nHost: a", BadRequest),
    (b"G(T / HTTP/1.1\r\nHost: a", BadRequest),
    (b"GET: / HTTP/1.1\r\nHost: a", BadRequest),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a", BadRequest),
    (b"GET /\0 HTTP/1.1\r\nHost: a", BadRequest),
    (b"GET /\t HTTP/1.1\r\nHost: a", BadRequest),
    (b"GET / http/1.1\r\nHost: a", BadRequest),
    (b"GET / HTTP/1.10\r\nHost: a", BadRequest),
    (b"GET / HTTP/1.1\nHost: a", BadRequest),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BadRequest),
    # Versions.
    (b"GET / HTTP/0.9\r\nHost: a", VersionNotSupported),
    (b"GET / HTTP/1.2\r\nHost: a", VersionNotSupported),
    (b"PRI * HTTP/2.0", VersionNotSupported),
    # Host.
    (b"GET / HTTP/1.1", BadRequest),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a", BadRequest),
    (b"GET / HTTP/1.0\r\nHost: a\r\nHost: b", BadRequest),
    # Field lines.
    (LINE + b"\r\nX: a\nY: b", BadRequest),
    (LINE + b"\r\nX: a\rY: b", BadRequest),
    (LINE + b"\r\nX: a\0", BadRequest),
    (LINE + b"\r\nX: a\r\n b", BadRequest),
    (LINE + b"\r\n X: a", BadRequest),
    (LINE + b"\r\nX : a", BadRequest),
    (LINE + b"\r\nX\t: a", BadRequest),
    (LINE + b"\r\n: a", BadRequest),
    (LINE + b"\r\nX", BadRequest),
    (LINE + b"\r\nX\xe4: a", BadRequest),
    (LINE + b"\r\n(X): a", BadRequest),
    (LINE + b"\r\nX: a\r\n" * MAX_FIELDS, FieldsTooLarge),
    # Framing.
    (LINE + b"\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", BadRequest),
    (LINE + b"\r\nTransfer-Encoding: chunked\r\nContent-Length: 0", BadRequest),
    (LINE + b"\r\nContent-Length: 3\r\nContent-Length: 3", BadRequest),
    (LINE + b"\r\nContent-Length: 3\r\ncontent-length: 4", BadRequest),
    (LINE + b"\r\nContent-Length: 3, 3", BadRequest),
    (LINE + b"\r\nContent-Length:", BadRequest),
    (LINE + b"\r\nContent-Length: +3", BadRequest),
    (LINE + b"\r\nContent-Length: -3", BadRequest),
    (LINE + b"\r\nContent-Length: 0x3", BadRequest),
    (LINE + b"\r\nContent-Length: 3 3", BadRequest),
    (LINE + b"\r\nContent-Length: 1_0", BadRequest),
    (LINE + b"\r\nContent-Length: \xb2", BadRequest),
    (LINE + b"\r\nContent-Length: 9999999999999999999", BadRequest),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked", BadRequest),
    (LINE + b"\r\nTransfer-Encoding: gzip, chunked", TransferCodingUnknown),
    (LINE + b"\r\nTransfer-Encoding: chunked, identity", TransferCodingUnknown),
    (LINE + b"\r\nTransfer-Encoding: chunked, chunked", TransferCodingUnknown),
    (LINE + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x", TransferCodingUnknown),
    (LINE + b"\r\nTransfer-Encoding: identity", TransferCodingUnknown),
    (LINE + b"\r\nTransfer-Encoding: \x0bchunked", TransferCodingUnknown),
    (LINE + b"\r\nTransfer-Encoding:", TransferCodingUnknown),
]

REFUSED_RESPONSES = [
    b"",
    b"HTTP/1.1",
    b"HTTP/1.1 ",
    b"HTTP/1.1 20",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1 600 OK",
    b"HTTP/1.1 999 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 200\tOK",
    b"HTTP/2 200",
    b"HTTP/1.x 200 OK",
    b"ICY 200 OK",
    b"http/1.1 200 OK",
    b"HTTP/1.1 200 O\rK",
    b"HTTP/1.1 200 OK\nX: a",
    b"HTTP/1.1 200 OK\r\nX : a",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b",
    b"HTTP/1.1 200 OK\r\nX: a\nY: b",
    b"HTTP/1.1 200 OK\r\nX: a\0b",
    b"HTTP/1.1 200 OK" + b"\r\nX: a" * (MAX_FIELDS + 1),
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3",
    b"HTTP/1.1 200 OK\r\nContent-Length: x",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked",
]

token = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
content = st.binary(max_size=30).map(lambda raw: raw.translate(None, b"\0\r\n").strip(b" \t"))
blank = st.text(" \t", max_size=3).map(str.encode)
fields = st.lists(st.tuples(token, blank, content, blank), max_size=6)


def readRequest(head: bytes) -> tuple[RequestHead, Decoder | None]:
    parsed = parseRequestHead(head)
    return parsed, requestBody(parsed)


def readResponse(head: bytes, method: bytes = b"GET") -> tuple[ResponseHead, Decoder | None]:
    parsed = parseResponseHead(head)
    return parsed, responseBody(method, parsed)


def headersOf(name: bytes, *values: bytes) -> Headers:
    return Headers({name: list(values)})


class RequestTests(SynchronousTestCase):
    def test_refused(self) -> None:
        for head, expected in REFUSED_REQUESTS:
            error = self.assertRaises(RequestRefused, readRequest, head)
            self.assertIs(type(error), expected, head[:80])

    def test_taken(self) -> None:
        for line, expected in (
            (b"GET /v2/ HTTP/1.1", (b"GET", b"/v2/", b"HTTP/1.1")),
            (b"M-SEARCH * HTTP/1.0", (b"M-SEARCH", b"*", b"HTTP/1.0")),
            (b"CONNECT a:443 HTTP/1.1", (b"CONNECT", b"a:443", b"HTTP/1.1")),
            (b"GET http://a/?# HTTP/1.1", (b"GET", b"http://a/?#", b"HTTP/1.1")),
            (b'get /"<>\\^`{|}%zz; HTTP/1.1', (b"get", b'/"<>\\^`{|}%zz;', b"HTTP/1.1")),
        ):
            self.assertEqual(parseRequestHead(line + b"\r\nHost: a")[:3], expected)

    def test_host(self) -> None:
        self.assertFalse(parseRequestHead(b"GET / HTTP/1.0").headers.hasHeader(b"Host"))
        self.assertTrue(parseRequestHead(b"GET / HTTP/1.1\r\nHost:").headers.hasHeader(b"Host"))

    def test_values(self) -> None:
        for line, value in (
            (b"X:a", b"a"),
            (b"X:  \t a b \t ", b"a b"),
            (b"X:", b""),
            (b"X: \t", b""),
            (b"X: \xe4\x7f\x01", b"\xe4\x7f\x01"),
            (b"X: a: b", b"a: b"),
        ):
            headers = parseRequestHead(LINE + b"\r\n" + line).headers
            self.assertEqual(headers.getRawHeaders(b"X"), [value], line)

    def test_manyFields(self) -> None:
        head = LINE + b"\r\nX: a" * (MAX_FIELDS - 1)
        self.assertEqual(len(parseRequestHead(head).headers.getRawHeaders(b"X") or ()), 499)

    def test_body(self) -> None:
        for lines, kind, length in (
            (b"", type(None), None),
            (b"\r\nContent-Length: 0", type(None), None),
            (b"\r\nContent-Length: 00012", IdentityDecoder, 12),
            (b"\r\nTransfer-Encoding: chunked", ChunkedDecoder, None),
            (b"\r\nTransfer-Encoding: Chunked ,", ChunkedDecoder, None),
        ):
            _, body = readRequest(LINE + lines)
            self.assertIs(type(body), kind, lines)
            self.assertEqual(getattr(body, "length", None), length)

    @given(token, st.text("/?#%ab;&=", min_size=1).map(str.encode), fields)
    def test_whole(
        self, method: bytes, target: bytes, lines: list[tuple[bytes, bytes, bytes, bytes]]
    ) -> None:
        """Every well-formed head is read as it was written."""
        head = b"%b %b HTTP/1.0" % (method, target)
        expected = Headers()
        for name, before, value, after in lines:
            head += b"\r\n%b:%b%b%b" % (name, before, value, after)
            expected.addRawHeader(name, value)
        self.assertEqual(parseRequestHead(head), (method, target, b"HTTP/1.0", expected))

    @given(st.one_of(st.binary(), st.binary().map(lambda tail: LINE + b"\r\n" + tail)))
    def test_anything(self, head: bytes) -> None:
        """Any head is read, or refused with an error for the client."""
        try:
            readRequest(head)
        except RequestRefused as error:
            self.assertTrue(400 <= error.status <= 505)

    def test_blanks(self) -> None:
        """White space in a value is read only once, not again from each of its bytes."""
        value = b"a" + b" " * 1_000_000 + b"b"
        headers = parseRequestHead(LINE + b"\r\nX: " + value).headers
        self.assertEqual(headers.getRawHeaders(b"X"), [value])


class ResponseTests(SynchronousTestCase):
    def test_refused(self) -> None:
        for head in REFUSED_RESPONSES:
            self.assertRaises(HeadFailed, readResponse, head)

    def test_taken(self) -> None:
        for line, minor, status, phrase in (
            (b"HTTP/1.1 200 OK", 1, 200, b"OK"),
            (b"HTTP/1.0 404 Not Found", 0, 404, b"Not Found"),
            (b"HTTP/1.1 429 ", 1, 429, b""),
            (b"HTTP/1.1 599", 1, 599, b""),
            (b"HTTP/1.1 200 \xc3\xa4 ", 1, 200, b"\xc3\xa4 "),
        ):
            head = parseResponseHead(line)
            self.assertEqual(head[:3], ((b"HTTP", 1, minor), status, phrase), line)

    def test_body(self) -> None:
        length, chunked = b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked"
        for method, status, lines, kind in (
            (b"GET", 200, length, IdentityDecoder),
            (b"GET", 206, length, IdentityDecoder),
            (b"POST", 201, length, IdentityDecoder),
            (b"GET", 200, chunked, ChunkedDecoder),
            (b"GET", 200, b"", UntilCloseDecoder),
            (b"GET", 200, b"\r\nContent-Length: 0", type(None)),
            (b"HEAD", 200, length, type(None)),
            (b"HEAD", 200, chunked, type(None)),
            (b"HEAD", 404, b"", type(None)),
            (b"GET", 204, length, type(None)),
            (b"GET", 304, length, type(None)),
        ):
            _, body = readResponse(b"HTTP/1.1 %d X%b" % (status, lines), method)
            self.assertIs(type(body), kind, (method, status, lines))

    @given(st.one_of(st.binary(), st.binary().map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)))
    def test_anything(self, head: bytes) -> None:
        with contextlib.suppress(HeadFailed):
            readResponse(head)


class ListTests(SynchronousTestCase):
    def test_members(self) -> None:
        for values, members in (
            ((), []),
            ((b"",), []),
            ((b"close",), [b"close"]),
            ((b" Keep-Alive ,\tUpgrade,, ", b"X"), [b"keep-alive", b"upgrade", b"x"]),
        ):
            self.assertEqual(listMembers(headersOf(b"Connection", *values), b"connection"), members)

    def test_length(self) -> None:
        self.assertIsNone(contentLength(Headers()))
        self.assertEqual(contentLength(headersOf(b"Content-Length", b"9" * 18)), 10**18 - 1)
