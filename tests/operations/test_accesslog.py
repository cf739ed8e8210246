"""
One line a request, which says everything but secrets.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.exchange import Exchange, Outcome
from hubmirror.operations.accesslog import logExchange, shownTarget


class ShownTargetTests(SynchronousTestCase):
    def test_table(self) -> None:
        for target, shown in (
            (b"/v2/", "/v2/"),
            (b"/v2/a/manifests/1?ns=docker.io", "/v2/a/manifests/1?ns=docker.io"),
            (b"/token?service=a&scope=b&scope=c", "/token?service=a&scope=b&scope=c"),
            (b"/token?account=me&password=x", "/token?account=...&password=..."),
            (b"/v2/a/blobs/uploads/1?_state=secret", "/v2/a/blobs/uploads/1?_state=..."),
            (
                b"/v2/a/blobs/uploads/1?_state=se?cret=x&digest=d",
                "/v2/a/blobs/uploads/1?_state=...&digest=d",
            ),
            (
                b"/blob?Expires=1&Signature=s%2B&Key-Pair-Id=K",
                "/blob?Expires=...&Signature=...&Key-Pair-Id=...",
            ),
            (b"/v1/search?q=a&n=25&page=2", "/v1/search?q=a&n=25&page=2"),
            (b"/?", "/?"),
            (b"/?a", "/?..."),
            (b"/?n", "/?n"),
            (b"/?&&", "/?&&"),
            # Names in another spelling are not known to be harmless.
            (b"/?%6Es=secret", "/?%6Es=..."),
            (b"/?N=secret", "/?N=..."),
            # A client that takes the mirror for an open proxy.
            (b"http://user:secret@host/v2/?a=b", "...@host/v2/?a=..."),
            (b"http://user:se/cr?@et@host/v2/", "...@host/v2/"),
            (b"user:secret@host:443", "...@host:443"),
            (b"http://host/v2/", "http://host/v2/"),
            (b"/v2/a@sha256:00", "/v2/a@sha256:00"),
        ):
            self.assertEqual(shownTarget(target), shown)

    def test_unprintable(self) -> None:
        """No line break, no escape sequence, nothing but ASCII gets into a log."""
        self.assertEqual(shownTarget(b"/a\x1b[2J\r\n\xe9"), "/a\\x1b[2J\\x0d\\x0a\\xe9")

    @given(st.binary())
    @settings(deadline=None)
    def test_anything(self, target: bytes) -> None:
        self.assertTrue(re.fullmatch(r"[\x21-\x7e]*", shownTarget(target)))


class LineTests(SynchronousTestCase):
    def log(self, outcome: Outcome, **attributes: Any) -> tuple[str, LogLevel]:
        """The line of an exchange, and its level."""
        exchange = Exchange(
            b"GET", b"/v2/a?_state=secret", ip_address("192.0.2.7"), 100.0, (logExchange,)
        )
        for name, value in attributes.items():
            setattr(exchange, name, value)
        with capturedLogs() as events:
            exchange.end(outcome, 100.25)
        [event] = events
        return formatEvent(event), event["log_level"]

    def test_complete(self) -> None:
        self.assertEqual(
            self.log(Outcome.COMPLETE, status=200, sent=12345, upstream="hub.example"),
            (
                "192.0.2.7 GET /v2/a?_state=... 200 12345B 250ms from hub.example complete",
                LogLevel.info,
            ),
        )

    def test_upload(self) -> None:
        line, _ = self.log(Outcome.COMPLETE, status=201, received=5, sent=2)
        self.assertIn(" 201 7B ", line)

    def test_noClient(self) -> None:
        line, level = self.log(Outcome.CLIENT_LEFT, client=None)
        self.assertEqual(line, "- GET /v2/a?_state=... - 0B 250ms client left")
        self.assertIs(level, LogLevel.info)

    def test_warnings(self) -> None:
        """What an operator should see is a warning."""
        for outcome, attributes, level in (
            (Outcome.COMPLETE, {}, LogLevel.info),
            (Outcome.REFUSED, {}, LogLevel.info),
            (Outcome.BROKEN, {}, LogLevel.warn),
            (Outcome.FAILED, {}, LogLevel.warn),
            (Outcome.COMPLETE, {"failures": [("hub", "answered 429")]}, LogLevel.warn),
        ):
            self.assertIs(self.log(outcome, **attributes)[1], level)

    def test_failures(self) -> None:
        line, _ = self.log(
            Outcome.COMPLETE,
            status=200,
            upstream="b",
            failures=[("a", "answered 429"), ("{x}", "connection refused")],
        )
        self.assertTrue(
            line.endswith(" from b complete; a: answered 429; {x}: connection refused"), line
        )

    def test_braces(self) -> None:
        """What a client writes is no format."""
        line, _ = self.log(Outcome.COMPLETE, target=b"/{client}{0}", method=b"{x}")
        self.assertIn(" {x} /{client}{0} ", line)
