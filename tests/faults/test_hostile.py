"""
Tests of malformed input from upstreams and clients: it must not be split into other messages, cause
a traceback, or gain credentials.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from hubmirror.upstream.bodies import DISCARD_TIME
from tests import examples
from tests.wire.support import MemoryCase, answer, read

BLOB = b"/v2/library/x/blobs/sha256:" + b"0" * 64
OK = b"HTTP/1.1 200 OK\r\n"
TOKEN = (b"Authorization", b"Bearer c2VjcmV0")


def redirect(location: bytes, status: int = 307) -> bytes:
    return answer(status, b"", ((b"Location", location),))


#: Responses of an upstream, and the status that the client is sent.
ANSWERS = (
    # These are not HTTP.
    (b"\r\n\r\n", 502),
    (b"HTTP/1.1\r\n\r\n", 502),
    (b"HTTP/1.1 OK\r\n\r\n", 502),
    (b"HTTP/1.1 2000 OK\r\n\r\n", 502),
    (b"HTTP/1.1 099 OK\r\n\r\n", 502),
    (b"HTTP/1.1 -20 OK\r\n\r\n", 502),
    (b"HTTP/1.1 600 OK\r\n\r\n", 502),
    (b"HTTP/1.1 999 OK\r\n\r\n", 502),
    (b"HTTP/9.9 200 OK\r\n\r\n", 502),
    (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 502),
    # Malformed heads.
    (OK + b"No colon\r\n\r\n", 502),
    (OK + b"X : y\r\n\r\n", 502),
    (OK + b"X: y\r\n folded\r\n\r\n", 502),
    (OK + b"X: y\nZ: w\r\n\r\n", 502),
    (OK + b"X: y\rZ: w\r\n\r\n", 502),
    (OK + b"X: y\x00\r\n\r\n", 502),
    (OK + b"X: " + b"y" * 70_000, 502),
    (OK + b"X: y\r\n" * 20_000, 502),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + answer(200), 200),
    # Malformed lengths.
    (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n12", 502),
    (OK + b"Content-Length: 1, 1\r\n\r\n1", 502),
    (OK + b"Content-Length: -1\r\n\r\n", 502),
    (OK + b"Content-Length: 1e3\r\n\r\n", 502),
    (OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
    (OK + b"Transfer-Encoding: gzip\r\n\r\n", 502),
    (OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 502),
    # Responses that were not requested.
    (answer(200, b"x", ((b"Content-Encoding", b"gzip"),)), 502),
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 502),
    # Redirects.
    (b"HTTP/1.1 307 Go\r\nContent-Length: 0\r\n\r\n", 502),
    (redirect(b"http://cdn.example/x"), 502),
    (redirect(b"ftp://cdn.example/x"), 502),
    (redirect(b"https://user:c2VjcmV0@cdn.example/x"), 502),
    (redirect(b"https://cdn.example:99999/x"), 502),
    (redirect(b"https://cdn.example\r/x"), 502),
    (redirect(b"https://cdn.example\n/x"), 502),
    (redirect(b"https://cdn example/x"), 502),
)


class UpstreamTests(MemoryCase):
    def test_table(self) -> None:
        for raw, status in ANSWERS:
            self.setUp()
            client = self.send(BLOB, fields=(TOKEN,))
            upstream = self.network.lines[0]
            upstream.says(raw)
            self.clock.advance(0)
            # For some, the error only states that the response is not HTTP.
            upstream.leaves()
            self.clock.advance(0)
            self.assertEqual(client.value()[9:12], b"%d" % status, raw[:100])
            got = self.answered(client)
            self.assertEqual(len(self.network.lines), 1, raw[:100])
            for word in (b"Traceback", b".py", b"c2VjcmV0"):
                self.assertNotIn(word, got.body)

    def test_loop(self) -> None:
        """A redirect loop is followed ten times, without credentials."""
        client = self.send(BLOB, fields=(TOKEN,))
        for number in range(11):
            self.network.lines[-1].says(redirect(b"https://cdn%d.example/x" % number))
            self.clock.advance(0)
        self.assertEqual(self.answered(client).status, 502)
        self.assertEqual(len(self.network.lines), 11)
        for line in self.network.lines[1:]:
            self.assertNotIn(b"c2VjcmV0", line.hears())

    def test_endlessRedirect(self) -> None:
        """
        The target of a redirect is requested at once; the redirect's own body is read for a short
        time and then abandoned.
        """
        client = self.send(BLOB)
        [registry] = self.network.lines
        registry.says(
            b"HTTP/1.1 307 Go\r\nLocation: https://cdn.example/x\r\nContent-Length: 20\r\n\r\n"
        )
        self.network.lines[1].says(answer(200, b"blob"))
        self.assertEqual(self.answered(client).body, b"blob")
        for _ in range(int(DISCARD_TIME)):
            self.assertEqual(registry.ended, "")
            registry.says(b"x")
            self.clock.advance(1)
        self.assertEqual(registry.ended, "aborted")

    def test_endlessHead(self) -> None:
        """A head that arrives byte by byte does not extend the timeout."""
        client = self.send(BLOB)
        [upstream] = self.network.lines
        upstream.says(OK)
        for _ in range(9):
            self.assertEqual(client.value(), b"")
            upstream.says(b"X: y\r\n")
            self.clock.advance(1)
        self.assertEqual(self.answered(client).status, 504)
        self.assertEqual(upstream.ended, "aborted")

    def test_largeLimit(self) -> None:
        """A 429 is passed on with C{Retry-After}, however large its body is."""
        for kind, error in ((b"application/json", b"TOOMANYREQUESTS"), (b"text/html", b"too many")):
            self.setUp()
            client = self.send(b"/v2/library/x/manifests/latest")
            self.network.lines[0].says(
                answer(429, b"x" * 70_000, ((b"Content-Type", kind), (b"Retry-After", b"30")))
            )
            self.clock.advance(0)
            got = self.answered(client)
            self.assertEqual((got.status, got.values(b"Retry-After")), (429, [b"30"]))
            self.assertEqual(got.values(b"Content-Type"), [kind])
            self.assertEqual(got.values(b"Content-Length"), [b"%d" % len(got.body)])
            self.assertIn(error, got.body)

    def test_splitLocation(self) -> None:
        """
        A line break in a C{Location} ends the field; nothing after it gets into a request or
        response.
        """
        self.send(BLOB, fields=(TOKEN,))
        self.network.lines[0].says(redirect(b"https://cdn.example/x\r\nX-Injected: y"))
        self.clock.advance(0)
        self.assertNotIn(b"Injected", self.network.lines[1].hears())
        self.setUp()
        client = self.send(b"/v2/library/x/blobs/uploads/", b"POST", body=b"")
        self.network.lines[0].says(
            answer(202, b"", ((b"Location", b"https://hub.example/x%0d%0aX-Injected:%20y"),))
        )
        got = self.answered(client)
        self.assertEqual(got.values(b"Location"), [b"http://mirror.example/x%0d%0aX-Injected:%20y"])
        self.assertEqual(got.values(b"X-Injected"), [])

    def test_foreignRealm(self) -> None:
        """Whatever realm a registry sends, the client is sent the mirror's."""
        client = self.send(b"/v2/")
        challenge = b'Bearer realm="https://evil.example/token",service="a"'
        self.network.lines[0].says(answer(401, b"", ((b"WWW-Authenticate", challenge),)))
        got = self.answered(client)
        self.assertEqual(
            got.values(b"WWW-Authenticate"),
            [b'Bearer realm="http://mirror.example/token",service="a"'],
        )

    def test_secondAnswer(self) -> None:
        """
        A second response to one request is not used for the next request; neither is its
        connection, and the first response is not trusted.
        """
        client = self.send(b"/v2/a")
        upstream = self.network.lines[0]
        upstream.says(answer(200, b"1") + answer(200, b"2"))
        self.clock.advance(0)
        self.assertEqual(upstream.ended, "aborted")
        self.send(b"/v2/b", line=client)
        self.network.lines[1].says(answer(200, b"3"))
        self.assertEqual(self.answered(client).body, b"3")
        self.network.lines[1].says(answer(200, b"4"))
        self.assertEqual(self.answered(client).body, b"4")

    HEADS = st.sampled_from(
        (
            b"",
            OK,
            OK + b"Content-Length: 20\r\n\r\n",
            OK + b"Transfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-19/40\r\n",
            b"HTTP/1.1 307 Go\r\nLocation: ",
            b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer ",
            b"HTTP/1.1 429 No\r\nRetry-After: ",
        )
    )
    PIECES = st.lists(
        st.binary(max_size=60)
        | st.sampled_from(
            (b"\r\n", b"\r\n\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"Content-Length: 5\r\n", OK)
        ),
        max_size=6,
    )

    @given(HEADS, PIECES, st.booleans())
    @examples(2)
    def test_anything(self, head: bytes, pieces: list[bytes], leaves: bool) -> None:
        """
        For any bytes of the upstream, the client receives one complete response, or an aborted one.
        """
        self.setUp()
        client = self.send(BLOB, fields=(TOKEN,))
        upstream = self.network.lines[0]
        for piece in (head, *pieces):
            if not upstream.ended:
                upstream.says(piece)
                self.clock.advance(0)
        if leaves:
            upstream.leaves()
        # All others say nothing.
        self.clock.pump([1] * 60)
        for line in self.network.lines[1:]:
            if b"cdn" not in line.hears():
                line.leaves()
        self.clock.pump([1] * 200)
        self.assertOneAnswer(client.hears(), client.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assertOneAnswer(self, heard: bytes, ended: str) -> None:
        got = read(heard)
        self.assertTrue(100 <= got.status <= 599)
        lengths = got.values(b"Content-Length")
        if ended == "aborted":
            if lengths:
                self.assertLess(len(got.body), int(lengths[0]))
            else:
                self.assertFalse(got.body.endswith(b"0\r\n\r\n"))
        elif lengths:
            self.assertEqual(len(got.body), int(lengths[0]))
        else:
            self.assertOneBody(got.body)

    def assertOneBody(self, body: bytes) -> None:
        """Check that these are the chunks of one body, and nothing more."""
        while not body.startswith(b"0\r\n"):
            match = re.match(rb"([0-9a-f]+)\r\n", body)
            assert match is not None, body
            body = body[match.end() + int(match[1], 16) :]
            self.assertEqual(body[:2], b"\r\n")
            body = body[2:]
        self.assertEqual(body, b"0\r\n\r\n")


_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[^\x00\r\n]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*\r\n")


def readChunks(raw: bytes) -> tuple[bytes, bool | None]:
    """
    Decode the chunked coding (RFC 9112 7.1).

    @return: the data, and whether the body is complete; C{None} when its end is missing, C{False}
        when it is malformed.
    """
    data = b""
    while match := _CHUNK_LINE.match(raw):
        size, raw = int(match[1], 16), raw[match.end() :]
        if not size:
            while match := _TRAILER.match(raw):
                raw = raw[match.end() :]
            return data, raw.startswith(b"\r\n") or (False if b"\r\n" in raw else None)
        data += raw[:size]
        raw = raw[size:]
        if len(raw) < 2 and b"\r\n".startswith(raw):
            return data, None
        if not raw.startswith(b"\r\n"):
            return data, False
        raw = raw[2:]
    return data, False if b"\r\n" in raw else None


class ClientTests(MemoryCase):
    PIECES = st.lists(
        st.binary(max_size=20)
        | st.sampled_from(
            (
                b"5\r\nabcde\r\n",
                b"5\r\nabcde",
                b"ab",
                b"0\r\n\r\n",
                b"0\r\nX: y\r\n\r\n",
                b"5;x=y\r\nabcde\r\n",
                b"\r\n",
                b"\n",
                b"ffffffffffffffff\r\n",
                b"GET /v2/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            )
        ),
        max_size=6,
    )

    @given(PIECES, st.booleans())
    @examples(2)
    def test_chunks(self, pieces: list[bytes], together: bool) -> None:
        """
        For any chunks that a client sends, the upstream is sent one request with chunks of the
        mirror's own, which ends where the client's does.
        """
        self.setUp()
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in [b"".join(pieces)] if together else pieces:
            client.says(piece)
        head, _, body = self.network.lines[0].hears().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"PUT /v2/a HTTP/1.1\r\n"), head)
        self.assertEqual(head.count(b"Transfer-Encoding"), 1)
        sent, isWhole = readChunks(b"".join(pieces))
        forwarded, isForwardedWhole = readChunks(body)
        self.assertEqual(isForwardedWhole, isWhole or None)
        if isWhole is False:
            self.assertEqual(self.network.lines[0].ended, "aborted")
            # What has arrived together with the malformed part is not forwarded.
            self.assertTrue(sent.startswith(forwarded), (sent, forwarded))
        else:
            self.assertEqual(forwarded, sent)
        # A second request requires that the first one is complete, and has a response of its own.
        self.assertEqual(len(self.network.lines), 1)
        client.leaves()
        self.clock.pump([10] * 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])
