"""
Tests of malformed requests: the response is a registry's error, and the log has only one line.
"""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent

import hubmirror
from hubmirror.downstream import proxy
from hubmirror.exchange import Outcome
from hubmirror.operations.accesslog import logExchange
from tests.wire.support import MemoryCase, Message, answer, read

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: a\r\n"

#: Malformed or ambiguous requests, and their results.
MALFORMED = (
    (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    (b"GET /v2/ HTTP/1.1\nHost: a\n\n", 400),
    (b"GET\r\n\r\n", 400),
    (b"GET /v2/\r\n\r\n", 400),
    (b"GET  /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/ HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/\x00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"G(T /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/ HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"GET /v2/ HTTQ/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),
    (HEAD + b"Host: b\r\n\r\n", 400),
    (HEAD + b"No colon\r\n\r\n", 400),
    (HEAD + b"Space : x\r\n\r\n", 400),
    (HEAD + b"X: y\r\n folded\r\n\r\n", 400),
    (HEAD + b"X: a\nY: b\r\n\r\n", 400),
    (HEAD + b"X: a\rY: b\r\n\r\n", 400),
    (HEAD + b"X: a\x00b\r\n\r\n", 400),
    (HEAD + b": x\r\n\r\n", 400),
    (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (HEAD + b"Content-Length: 1, 1\r\n\r\n", 400),
    (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    (HEAD + b"Content-Length: +1\r\n\r\n", 400),
    (HEAD + b"Content-Length: 0x1\r\n\r\n", 400),
    (HEAD + b"Content-Length: 1_0\r\n\r\n", 400),
    (HEAD + b"Content-Length: 9999999999999999999\r\n\r\n", 400),
    (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n", 501),
    (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    (b"GET /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    (HEAD + b"X: y\r\n" * 600 + b"\r\n", 431),
)

#: Well-formed requests with harmful content.
MEANINGLESS = (
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET *?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/%2500 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /v2/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET /v2/ HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
    (b"GET http://b/v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"CONNECT hub.example:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    (b"TRACE /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    (b"PRI /v2/ HTTP/1.1\r\nHost: a\r\n\r\n", 405),
)


class MalformedTests(MemoryCase):
    def test_table(self) -> None:
        for raw, status in MALFORMED + MEANINGLESS:
            client = self.connect()
            client.says(raw)
            got = self.answered(client)
            self.assertEqual(got.status, status, raw[:100])
            self.assertIsInstance(got.error, str)
            self.assertEqual(got.values(b"Content-Type"), [b"application/json"], raw[:100])
            self.assertEqual(got.values(b"Server"), [b"hubmirror"])
            self.assertEqual(len(got.values(b"Date")), 1)
            if not raw.startswith(b"\x16"):
                self.assertEqual(self.exchanges[-1].sent, len(got.body), raw[:100])
            folder = os.path.dirname(hubmirror.__file__).encode()
            for word in (b"Traceback", folder, b".py", b"twisted", b"Twisted"):
                self.assertNotIn(word, got.body)
        self.assertEqual(self.network.lines, [])

    def test_inPieces(self) -> None:
        """The results do not depend on how the requests are split."""
        for raw, status in MALFORMED + MEANINGLESS:
            if len(raw) < 1000:
                client = self.connect()
                for byte in raw:
                    client.says(bytes((byte,)))
                self.assertEqual(self.answered(client).status, status, raw)

    def test_smuggled(self) -> None:
        """
        After a refused request nothing is read, because the beginning of the next one is unknown.
        """
        for raw, _status in MALFORMED:
            client = self.connect()
            client.says(raw + b"GET /v2/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            self.answered(client)
            client.says(b"GET /v2/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(client.hears(), b"")
            self.assertEqual(client.ended, "closed", raw[:100])
        self.assertEqual(self.network.lines, [])

    @given(st.binary(max_size=200), st.binary(max_size=200))
    def test_anything(self, first: bytes, second: bytes) -> None:
        """No input causes an unhandled error: trial checks the log."""
        self.setUp()
        for raw in (first + second, b"GET /" + first + b" HTTP/1.1\r\nHost: a\r\n" + second):
            client = self.connect()
            client.says(raw)
            client.says(b"\r\n\r\n")
            heard = client.hears()
            if heard:
                self.assertIn(read(heard).status, (200, 400, 404, 405, 414, 431, 501, 505))
            client.leaves()
            self.clock.advance(0)
        self.clock.pump([10] * 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SecretTests(MemoryCase):
    """
    No line of the log contains a secret.
    """

    def setUp(self) -> None:
        super().setUp()
        self.configure(fallback=("https://second.example",))
        self.listeners = self.mirror.service._mirror.listeners = (logExchange,)

    def test_secrets(self) -> None:
        secret = (
            (b"Authorization", b"Basic c2VjcmV0"),
            (b"Proxy-Authorization", b"Basic c2VjcmV0"),
            (b"Cookie", b"session=c2VjcmV0"),
        )
        redirect = (b"Location", b"https://cdn.example/x?Signature=c2VjcmV0")
        with capturedLogs() as events:
            for reply in (
                answer(200, b"c2VjcmV0"),
                answer(401, b"", ((b"WWW-Authenticate", b'Bearer realm="c2VjcmV0"'),)),
                answer(307, b"", (redirect,)),
                answer(302, b"", ((b"Location", b"http://cdn.example/?c2VjcmV0"),)),
                answer(302, b"", ((b"Location", b"https://user:c2VjcmV0@cdn.example/"),)),
                answer(200, b"", ((b"Content-Encoding", b"c2VjcmV0"),)),
                b"HTTP/1.1 c2VjcmV0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nX c2VjcmV0\r\n\r\n",
            ):
                client = self.send(b"/v2/a?_state=c2VjcmV0&token=c2VjcmV0", fields=secret)
                self.network.lines[-1].says(reply)
                client.leaves()
                self.clock.advance(0)
                for line in self.network.lines:
                    line.leaves()
                self.clock.advance(0)
            self.local(b"/token?password=c2VjcmV0", method=b"PUT", fields=secret)
            self.local(b"http://user:c2VjcmV0@x/v2/", fields=secret)
        lines = [formatEvent(event) for event in events]
        self.assertGreaterEqual(len(lines), 10, lines)
        for line in lines:
            self.assertNotIn("c2VjcmV0", line)
            self.assertNotIn("Traceback", line)


class DefectTests(MemoryCase):
    """
    Defects of the mirror are responded to with 500, without details.
    """

    def test_beforeTheHead(self) -> None:
        self.patch(self.mirror.service._mirror.settings.registries[b"docker.io"], "_config", None)
        got = self.local(b"/v2/")
        self.assertEqual((got.status, got.error), (500, "UNKNOWN"))
        self.assertNotIn(b"Error", got.body)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(len(self.exchanges), 1)

    def test_afterTheHead(self) -> None:
        """A response that can't be completed is aborted."""

        class Broken:
            def __init__(self, *args: object) -> None:
                raise ZeroDivisionError

        self.patch(proxy, "Relay", Broken)
        client = self.send(b"/v2/")
        self.network.lines[0].says(answer(200, b"body"))
        self.assertEqual(client.ended, "aborted")
        self.clock.advance(0)
        self.assertEqual([exchange.outcome for exchange in self.exchanges], [Outcome.BROKEN])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ShortErrorTests(MemoryCase):
    def test_shorterThanItSays(self) -> None:
        """An error whose body is cut is still sent to the client as that error."""
        for status in (401, 403, 404, 500):
            client = self.send(b"/v2/o/a/manifests/1")
            line = self.network.lines[-1]
            line.says(b"HTTP/1.1 %d X\r\nContent-Length: 100\r\n\r\nshort" % status)
            line.leaves()
            self.clock.advance(0)
            got = self.answered(client)
            self.assertEqual((got.status, got.error), (status, "UNAVAILABLE"))
            self.assertEqual(got.values(b"Content-Length"), [b"%d" % len(got.body)])
            self.assertEqual(client.ended, "")


class InterimTests(MemoryCase):
    def ask(self, interim: bytes) -> Message:
        client = self.send(b"/v2/o/a/manifests/1")
        self.asked()
        self.network.lines[-1].says(interim + answer(200, b"{}"))
        return self.answered(client)

    def test_some(self) -> None:
        """Interim responses are skipped."""
        self.assertEqual(self.ask(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 8).status, 200)

    def test_many(self) -> None:
        """An endless series of interim responses is a failure of the upstream."""
        got = self.ask(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9)
        self.assertEqual((got.status, got.error), (502, "UNAVAILABLE"))
        self.assertIn(b"too many interim responses", got.body)

    def test_eachRequest(self) -> None:
        """They are counted for each response of a connection."""
        for _ in range(3):
            self.assertEqual(self.ask(b"HTTP/1.1 100 Continue\r\n\r\n" * 8).status, 200)
        self.assertEqual(len(self.network.lines), 1)


class ServerWideTests(MemoryCase):
    def test_options(self) -> None:
        """The mirror itself responds to C{OPTIONS *}, which is logged like other requests."""
        got = self.local(b"*", method=b"OPTIONS")
        self.assertEqual((got.status, got.body), (204, b""))
        self.assertIn(b"GET, HEAD", got.values(b"Allow")[0])
        self.assertEqual(
            [(each.method, each.target, each.status) for each in self.exchanges],
            [(b"OPTIONS", b"*", 204)],
        )

    def test_other(self) -> None:
        got = self.local(b"*")
        self.assertEqual((got.status, got.error), (400, "BAD_REQUEST"))
