"""
Tests of the access log: one line for each request, without secrets.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import ConfigError, MirrorConfig
from hubmirror.exchange import Exchange, Outcome
from hubmirror.operations.accesslog import AccessLog, checkAccessLog, logExchange, shownTarget
from hubmirror.protocol.target import Kind


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
            # Parameters with encoded names are not known to be harmless.
            (b"/?%6Es=secret", "/?%6Es=..."),
            (b"/?N=secret", "/?N=..."),
            # The target of a client that uses the mirror as an open proxy.
            (b"http://user:secret@host/v2/?a=b", "...@host/v2/?a=..."),
            (b"http://user:se/cr?@et@host/v2/", "...@host/v2/"),
            (b"user:secret@host:443", "...@host:443"),
            (b"http://host/v2/", "http://host/v2/"),
            (b"/v2/a@sha256:00", "/v2/a@sha256:00"),
        ):
            self.assertEqual(shownTarget(target), shown)

    def test_unprintable(self) -> None:
        """A log contains only printable ASCII: no line breaks, and no escape sequences."""
        self.assertEqual(shownTarget(b"/a\x1b[2J\r\n\xe9"), "/a\\x1b[2J\\x0d\\x0a\\xe9")

    @given(st.binary())
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
        """Events that an operator should notice are warnings."""
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
        """Braces in what a client sends are not interpreted as a format."""
        line, _ = self.log(Outcome.COMPLETE, target=b"/{client}{0}", method=b"{x}")
        self.assertIn(" {x} /{client}{0} ", line)


class FormatTests(SynchronousTestCase):
    """
    The formats, and the separate file.
    """

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def configured(self, form: str, file: str | None = None) -> AccessLog:
        config = MirrorConfig(access_log=form, access_log_file=file or str(self.path))
        return AccessLog(config, lambda: datetime(2026, 11, 27, 12, 30, 15, 250_000, timezone.utc))

    def end(self, log: AccessLog, outcome: Outcome = Outcome.COMPLETE, **attributes: Any) -> None:
        exchange = Exchange(b"GET", b"/v2/a?_state=x", ip_address("192.0.2.7"), 100.0, (log,))
        for name, value in attributes.items():
            setattr(exchange, name, value)
        exchange.end(outcome, 100.25)

    def test_json(self) -> None:
        self.end(
            self.configured("json"),
            kind=Kind.BLOB,
            registry="ghcr.io",
            status=200,
            sent=7,
            headAfter=0.125,
            upstream="ghcr.io",
            redirects=1,
            resumes=2,
            requestID="abc",
            failures=[("hub", "closed\nearly")],
        )
        self.assertEqual(
            json.loads(self.path.read_text()),
            {
                "time": "2026-11-27T12:30:15.250+00:00",
                "client": "192.0.2.7",
                "method": "GET",
                "target": "/v2/a?_state=...",
                "registry": "ghcr.io",
                "kind": "blob",
                "status": 200,
                "sent": 7,
                "received": 0,
                "head_seconds": 0.125,
                "seconds": 0.25,
                "upstream": "ghcr.io",
                "redirects": 1,
                "resumes": 2,
                "outcome": "complete",
                "failures": ["hub: closed\nearly"],
                "rule": None,
                "request_id": "abc",
            },
        )
        self.assertEqual(self.path.read_text().count("\n"), 1)

    def test_combined(self) -> None:
        """
        The format is that of the documentation of nginx's ngx_http_log_module.
        """
        log = self.configured("combined")
        self.end(log, status=200, sent=7, version=b"HTTP/1.1", userAgent=b'a "b\\c\x1b')
        self.end(log, Outcome.CLIENT_LEFT, client=None, version=b"HTTP/2")
        first, second = self.path.read_text().splitlines()
        self.assertRegex(
            first,
            r"\A192\.0\.2\.7 - - \[\d\d/\w{3}/2026:\d\d:\d\d:15 [+-]\d{4}\] "
            r'"GET /v2/a\?_state=\.\.\. HTTP/1\.1" 200 7 "-" "a \\x22b\\x5Cc\\x1B"\Z',
        )
        self.assertTrue(second.startswith("- - - ["), second)
        self.assertTrue(second.endswith(' HTTP/2" 499 0 "-" "-"'), second)

    def test_text(self) -> None:
        self.end(self.configured("text"), status=200, requestID="abc")
        self.assertEqual(
            self.path.read_text(),
            "2026-11-27T12:30:15+00:00"
            " 192.0.2.7 GET /v2/a?_state=... 200 0B 250ms complete [abc]\n",
        )

    def test_redirected(self) -> None:
        """
        Lines go to the standard output that the process has at the first of them: twistd redirects
        it once, after the options are parsed.  When it is /dev/null, they go to the process's log.
        """
        standard = os.dup(1)
        self.addCleanup(os.close, standard)
        self.addCleanup(os.dup2, standard, 1)
        config = MirrorConfig(access_log="json")
        log, background = AccessLog(config), AccessLog(config)
        self.redirect(str(self.path))
        with capturedLogs() as events:
            self.end(log)
            self.redirect(os.devnull)
            # This is not found out again, which would take two system calls for each line.
            self.end(log)
        self.assertEqual(events, [])
        self.assertEqual(json.loads(self.path.read_text())["target"], "/v2/a?_state=...")
        with capturedLogs() as events:
            self.end(background)
        [event] = events
        self.assertEqual(json.loads(str(formatEvent(event)))["target"], "/v2/a?_state=...")

    def redirect(self, name: str) -> None:
        with open(name, "ab") as file:
            os.dup2(file.fileno(), 1)

    def test_off(self) -> None:
        with capturedLogs() as events:
            self.end(self.configured("off"))
        self.assertEqual(events, [])
        self.assertFalse(self.path.exists())

    def test_moved(self) -> None:
        """
        If the file is renamed or removed, a new one is created.
        """
        log = self.configured("combined")
        self.end(log)
        moved = Path(self.mktemp())
        self.path.rename(moved)
        self.end(log)
        self.end(log)
        self.path.unlink()
        self.end(log)
        self.assertEqual(len(moved.read_text().splitlines()), 1)
        self.assertEqual(len(self.path.read_text().splitlines()), 1)

    def test_unwritable(self) -> None:
        error = self.assertRaises(ConfigError, self.configured, "json", "/dev/null/access.log")
        self.assertIn("/dev/null/access.log can't be written", str(error))

    def test_checked(self) -> None:
        """
        A check finds what opening the file would find, and leaves no file.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "access.log"
        checkAccessLog(MirrorConfig())
        checkAccessLog(MirrorConfig(access_log="json", access_log_file="-"))
        checkAccessLog(MirrorConfig(access_log_file=str(path)))
        self.assertFalse(path.exists())
        for wrong in (folder, path / "below", folder / "missing" / "access.log"):
            error = self.assertRaises(
                ConfigError, checkAccessLog, MirrorConfig(access_log_file=str(wrong))
            )
            self.assertIn(f"{wrong} can't be written", str(error))
        checkAccessLog(MirrorConfig(access_log="off", access_log_file=str(folder)))

    def test_checkedRights(self) -> None:
        """
        It asks for the rights to the file, or to the folder when there is none yet.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "access.log"
        asked: list[object] = []
        self.patch(os, "access", lambda name, mode: asked.append(name))
        config = MirrorConfig(access_log_file=str(path))
        self.assertRaises(ConfigError, checkAccessLog, config)
        path.touch()
        self.assertRaises(ConfigError, checkAccessLog, config)
        self.assertEqual(asked, [str(folder), str(path)])

    def test_full(self) -> None:
        """
        A full disk is reported once, and affects no exchange.
        """
        log = self.configured("json", "/dev/full")
        with capturedLogs() as events:
            self.end(log)
            self.end(log)
        [event] = events
        self.assertIn("No space left", formatEvent(event))

    def test_configured(self) -> None:
        """
        New settings apply from then on; if they are invalid, nothing is changed.
        """
        log = self.configured("text")
        other = self.mktemp()
        self.assertRaises(
            ConfigError, log.configure, MirrorConfig(access_log_file="/dev/null/access.log")
        )
        self.end(log)
        log.configure(MirrorConfig(access_log="json", access_log_file=other))
        self.end(log)
        self.assertEqual(len(self.path.read_text().splitlines()), 1)
        self.assertEqual(json.loads(Path(other).read_text())["status"], 0)
