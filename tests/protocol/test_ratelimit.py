"""
Tests of the fields of rate limits.
"""

from __future__ import annotations

from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.ratelimit import Quota, quotaOf, readQuota, retryAfter

NOW = datetime(2026, 10, 1, 12, 0, 0, tzinfo=timezone.utc)
DAY = 86400


def quota(value: bytes) -> Quota | None:
    return quotaOf(Headers({b"ratelimit-remaining": [value]}))


def after(value: bytes) -> float | None:
    return retryAfter(Headers({b"Retry-After": [value]}), NOW)


class QuotaTests(SynchronousTestCase):
    def test_none(self) -> None:
        self.assertIsNone(quotaOf(Headers({b"ratelimit-limit": [b"100;w=21600"]})))

    def test_hub(self) -> None:
        self.assertEqual(quota(b"98;w=21600"), Quota(98, 21600))
        self.assertEqual(quota(b"0;w=21600"), Quota(0, 21600))

    def test_withoutWindow(self) -> None:
        self.assertEqual(quota(b"7"), Quota(7, 60))

    def test_longWindow(self) -> None:
        """A window is never longer than a day."""
        self.assertEqual(quota(b"0;w=999999999"), Quota(0, DAY))

    def test_stated(self) -> None:
        """A window is also available as the response states it: missing, zero or long."""
        headers = Headers({b"ratelimit-limit": [b"100"], b"ratelimit-remaining": [b"0;w=0"]})
        self.assertEqual(readQuota(headers, b"RateLimit-Limit"), (100, None))
        self.assertEqual(readQuota(headers, b"RateLimit-Remaining"), (0, 0))
        self.assertEqual(quotaOf(headers), Quota(0, 0, 100))
        headers = Headers({b"ratelimit-limit": [b"100;w=999999999"]})
        self.assertEqual(readQuota(headers, b"RateLimit-Limit"), (100, 999999999))

    def test_nonsense(self) -> None:
        for value in (b"", b"many", b"-1;w=60", b";w=60"):
            self.assertIsNone(quota(value), value)


class RetryAfterTests(SynchronousTestCase):
    def test_none(self) -> None:
        self.assertIsNone(retryAfter(Headers()))

    def test_seconds(self) -> None:
        self.assertEqual(after(b"30"), 30)
        self.assertEqual(after(b" 30 "), 30)
        self.assertEqual(after(b"0"), 0)
        self.assertEqual(after(b"999999999"), DAY)

    def test_date(self) -> None:
        for value in (
            b"Thu, 01 Oct 2026 12:00:30 GMT",
            b"Thursday, 01-Oct-26 12:00:30 GMT",
            b"Thu Oct  1 12:00:30 2026",
        ):
            self.assertEqual(after(value), 30, value)

    def test_past(self) -> None:
        self.assertEqual(after(b"Thu, 01 Oct 2026 11:00:00 GMT"), 0)

    def test_farAway(self) -> None:
        self.assertEqual(after(b"Thu, 01 Oct 2099 12:00:00 GMT"), DAY)

    def test_presentTime(self) -> None:
        self.assertEqual(
            retryAfter(Headers({b"Retry-After": [b"Thu, 01 Jan 1970 00:00:00 GMT"]})), 0
        )

    def test_nonsense(self) -> None:
        for value in (
            b"",
            b"soon",
            b"-1",
            b"1.5",
            b"1e3",
            b"\xff",
            b"Thu, 01 Oct 9" + b"9" * 30 + b" 12:00:30 GMT",
            b"Thu, 01 Oct 2026 9" + b"9" * 30 + b":00:30 GMT",
            b"Thu, 01 Oct 2026 12:00:30 +9" + b"9" * 30,
            b"Thu, 99 Oct 2026 12:00:30 GMT",
        ):
            self.assertIsNone(after(value), value)

    @given(
        st.binary(max_size=40)
        | st.from_regex(rb"[A-Za-z]{3}, [0-9]{1,4} Oct [0-9]{1,30} [0-9:]{1,30} [+-][0-9]{1,30}")
    )
    def test_anything(self, value: bytes) -> None:
        """For any value, the result is a number of seconds within a day, or nothing."""
        seconds = after(value.replace(b"\r", b"").replace(b"\n", b""))
        if seconds is not None:
            self.assertTrue(0 <= seconds <= DAY)
