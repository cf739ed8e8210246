"""
Tests of which pulls an upstream counts together, and of how long none are left.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.target import Kind
from hubmirror.upstream.bodies import readShortBody
from hubmirror.upstream.cachedresponse import CachedResponse
from hubmirror.upstream.policy import Upstream
from hubmirror.upstream.quota import Quotas
from tests.upstream.support import Response

HUB, OTHER = Upstream("hub", {}), Upstream("other", {})
JSON, TEXT = b"application/json", b"text/plain"
EVERY_KIND = (*Kind, None)


def token(**claims: object) -> bytes:
    """A JWT like the Hub's tokens."""
    return jwt(json.dumps(claims).encode())


def jwt(claims: bytes) -> bytes:
    head, body = (base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":""}', claims))
    return b"Bearer " + head + b"." + body + b".c2lnbmF0dXJl"


class QuotaCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.quotas = Quotas(self.clock)

    def identity(self, authorization: bytes | None) -> bytes:
        headers = Headers()
        if authorization is not None:
            headers.setRawHeaders(b"Authorization", [authorization])
        return self.quotas.identity(headers)

    def answered(
        self,
        status: int,
        identity: bytes = b"",
        *,
        kind: Kind | None = Kind.MANIFEST,
        method: bytes = b"GET",
        body: bytes = b"",
        **fields: bytes,
    ) -> None:
        answer: Any = Response(status, len(body), **fields)
        if status == 429:
            answer = CachedResponse(answer, body)
        self.quotas.answered(HUB, kind, identity, method, answer)

    def limited(
        self, identity: bytes = b"", kind: Kind | None = Kind.MANIFEST, upstream: Upstream = HUB
    ) -> bool:
        return self.quotas.limited(upstream, kind, identity)

    def limitedFor(self, identity: bytes = b"") -> float:
        """The number of seconds for which a limit still applies."""
        seconds = 0
        while self.limited(identity):
            self.clock.advance(1)
            seconds += 1
        return seconds


class IdentityTests(QuotaCase):
    def test_anonymous(self) -> None:
        """
        The Hub's anonymous tokens have no subject, or an empty one.  A client without a token is
        another identity: it will be challenged, whatever the anonymous quota is.
        """
        anonymous = self.identity(token(sub="", iat=1))
        self.assertEqual(self.identity(token(iat=2)), anonymous)
        self.assertNotEqual(self.identity(None), anonymous)

    def test_subject(self) -> None:
        """All tokens of one user count together, because each pull has a new one."""
        alice = self.identity(token(sub="alice", iat=1))
        self.assertEqual(self.identity(token(sub="alice", iat=2)), alice)
        others = [self.identity(token(sub="bob")), self.identity(None)]
        self.assertNotIn(alice, others)

    def test_key(self) -> None:
        """Processes with the same key give a client the same identity."""
        headers = Headers({b"Authorization": [token(sub="alice")]})
        one, same, another, random = (
            Quotas(Clock(), key).identity(headers) for key in (b"1", b"1", b"2", None)
        )
        self.assertEqual(one, same)
        self.assertEqual(len({one, another, random}), 3)

    def test_opaque(self) -> None:
        """A token that can't be read is an identity, too."""
        for authorization in (
            b"Bearer opaque",
            b"Basic YTpi",
            b"Bearer a.b",
            b"Bearer a.b.c.d",
            b"Bearer a.!!.c",
            jwt(b"[]"),
            jwt(b"7"),
            jwt(b"\xff\xfe"),
            token(sub=7),
            token(sub=None),
            token(sub=["alice"]),
            jwt(b'{"sub":"\\ud800"}'),
            jwt(b"[" * 30_000),
            jwt(b'{"sub":' * 5_000),
        ):
            identity = self.identity(authorization)
            self.assertEqual(self.identity(authorization), identity)
            self.assertNotIn(identity, (self.identity(None), self.identity(authorization + b"x")))

    @given(st.binary(max_size=60) | st.binary(max_size=60).map(jwt))
    def test_anything(self, authorization: bytes) -> None:
        quotas = Quotas(Clock())
        identity = quotas.identity(Headers({b"Authorization": [authorization]}))
        self.assertIn(len(identity), (0, 1, 16))


class RemainingTests(QuotaCase):
    def test_left(self) -> None:
        self.answered(200, ratelimit_remaining=b"1;w=21600")
        self.assertFalse(self.limited())

    def test_none(self) -> None:
        """If no pulls are left, the limit applies until the window ends."""
        self.answered(200, ratelimit_remaining=b"0;w=600")
        self.assertEqual(self.limitedFor(), 600)

    def test_windowEnds(self) -> None:
        """After its window, an identity has all of its pulls again, however few were left."""
        for left in (b"0", b"3"):
            self.answered(200, ratelimit_remaining=left + b";w=600")
            self.clock.advance(599)
            self.assertEqual(self.quotas.remaining(HUB, b""), int(left))
            self.clock.advance(1)
            self.assertEqual(self.quotas.remaining(HUB, b""), math.inf)

    def test_moreAgain(self) -> None:
        self.answered(200, ratelimit_remaining=b"0;w=600")
        self.answered(200, ratelimit_remaining=b"7;w=600")
        self.assertFalse(self.limited())

    def test_identities(self) -> None:
        alice = self.identity(token(sub="alice"))
        self.answered(200, alice, ratelimit_remaining=b"0;w=600")
        self.assertTrue(self.limited(alice))
        self.assertFalse(self.limited())
        self.assertFalse(self.limited(self.identity(token(sub="bob"))))

    def test_others(self) -> None:
        """Only manifests of this upstream are limited."""
        self.answered(200, ratelimit_remaining=b"0;w=600")
        for kind in EVERY_KIND:
            self.assertEqual(self.limited(kind=kind), kind is Kind.MANIFEST, kind)
        self.assertFalse(self.limited(upstream=OTHER))

    def test_ofOtherThings(self) -> None:
        """Limits in the response to a blob do not concern pulls."""
        self.answered(200, kind=Kind.BLOB, ratelimit_remaining=b"0;w=600")
        self.assertFalse(self.limited())

    def test_isAnswered(self) -> None:
        """
        There is no 429 to repeat: the upstream may still respond to free requests such as HEAD.
        """
        self.answered(200, ratelimit_remaining=b"0;w=600")
        self.assertIsNone(self.quotas.remembered(HUB, Kind.MANIFEST, b"", b"HEAD"))


class PullLimitTests(QuotaCase):
    """
    Tests of the 429 in JSON.
    """

    def test_manifestsOfThatIdentity(self) -> None:
        alice = self.identity(token(sub="alice"))
        self.answered(429, alice, Content_Type=JSON, Retry_After=b"30")
        for kind in EVERY_KIND:
            self.assertEqual(self.limited(alice, kind), kind is Kind.MANIFEST, kind)
        self.assertFalse(self.limited())
        self.assertFalse(self.limited(alice, upstream=OTHER))
        self.assertEqual(self.limitedFor(alice), 30)

    def test_window(self) -> None:
        """Without Retry-After, the limit lasts for the window of the quota."""
        self.answered(429, Content_Type=JSON, ratelimit_remaining=b"0;w=100")
        self.assertEqual(self.limitedFor(), 100)

    def test_neither(self) -> None:
        self.answered(429, Content_Type=JSON)
        self.assertEqual(self.limitedFor(), 60)

    def test_noTime(self) -> None:
        self.answered(429, Content_Type=JSON, Retry_After=b"0")
        self.assertFalse(self.limited())

    def test_ofOtherThings(self) -> None:
        """A token service that limits logins does not limit pulls."""
        for kind in EVERY_KIND:
            if kind is not Kind.MANIFEST:
                self.answered(429, kind=kind, Content_Type=JSON, Retry_After=b"30")
                self.assertFalse(self.limited(), kind)
                self.assertFalse(self.limited(kind=kind), kind)


class AbuseLimitTests(QuotaCase):
    """
    Tests of the 429 in plain text.
    """

    def test_everything(self) -> None:
        for kind in EVERY_KIND:
            self.setUp()
            self.answered(429, b"somebody", kind=kind, Content_Type=TEXT, Retry_After=b"30")
            for other in EVERY_KIND:
                self.assertTrue(self.limited(kind=other))
            self.assertFalse(self.limited(upstream=OTHER))
            self.assertEqual(self.limitedFor(), 30)

    def test_withoutType(self) -> None:
        self.answered(429)
        self.assertTrue(self.limited(kind=Kind.TOKEN))

    def test_both(self) -> None:
        """The two limits end independently."""
        self.answered(429, Content_Type=JSON, Retry_After=b"60")
        self.answered(429, Content_Type=TEXT, Retry_After=b"30")
        self.clock.advance(30)
        self.assertFalse(self.limited(kind=Kind.BLOB))
        self.assertTrue(self.limited())


class MemoryTests(QuotaCase):
    """
    A 429 of the last seconds is repeated without asking the upstream.
    """

    def remembered(
        self, method: bytes = b"GET", kind: Kind | None = Kind.MANIFEST
    ) -> CachedResponse | None:
        return self.quotas.remembered(HUB, kind, b"", method)

    def test_seconds(self) -> None:
        self.answered(429, Content_Type=JSON, Retry_After=b"60", body=b"{}")
        self.clock.advance(3)
        self.assertIsNotNone(self.remembered())
        self.clock.advance(0.1)
        self.assertIsNone(self.remembered())
        self.assertTrue(self.limited())

    def test_answer(self) -> None:
        """Status, fields and body are those of the upstream, except the time that is left."""
        self.answered(429, Content_Type=JSON, Retry_After=b"60", X_Own=b"1", body=b"{}")
        for seconds, left in ((0, b"60"), (0.5, b"60"), (1.5, b"58"), (1, b"57")):
            self.clock.advance(seconds)
            answer = self.remembered()
            self.assertEqual((answer.code, answer.body, answer.length), (429, b"{}", 2))
            self.assertEqual(answer.headers.getRawHeaders(b"Retry-After"), [left])
            self.assertEqual(answer.headers.getRawHeaders(b"X-Own"), [b"1"])

    def test_date(self) -> None:
        """A date in Retry-After is replaced with the seconds that are left."""
        self.answered(429, Content_Type=JSON, Retry_After=b"Thu, 01 Jan 2099 00:00:00 GMT")
        self.assertEqual(self.remembered().headers.getRawHeaders(b"Retry-After"), [b"86400"])

    def test_withoutTime(self) -> None:
        """A client is sent Retry-After even if the upstream did not send it."""
        self.answered(429, Content_Type=JSON)
        self.assertEqual(self.remembered().headers.getRawHeaders(b"Retry-After"), [b"60"])

    def test_methods(self) -> None:
        """The response to a HEAD has no body for a GET; that to a GET can be used for a HEAD."""
        self.answered(429, Content_Type=JSON, method=b"HEAD")
        self.assertIsNone(self.remembered(b"GET"))
        self.assertEqual(self.remembered(b"HEAD").length, 0)
        self.answered(429, Content_Type=JSON, method=b"GET", body=b"{}")
        self.assertEqual(self.remembered(b"HEAD").length, 0)
        self.assertEqual(self.remembered(b"GET").length, 2)

    def test_abuse(self) -> None:
        """The response to one kind of request is repeated for others."""
        self.answered(429, kind=Kind.BLOB, Content_Type=TEXT, body=b"Too Many Requests")
        for kind in EVERY_KIND:
            self.assertEqual(self.remembered(kind=kind).body, b"Too Many Requests")

    def test_repeated(self) -> None:
        """The time in the response depends on the clock, not on when it was last repeated."""
        self.answered(429, Content_Type=JSON, Retry_After=b"60")
        for _ in range(3):
            self.remembered()
            self.clock.advance(1)
        self.assertEqual(self.limitedFor(), 57)


class BoundTests(QuotaCase):
    def test_identities(self) -> None:
        """A client that invents identities does not fill the memory."""
        for number in range(10_050):
            self.answered(429, b"%d" % number, Content_Type=JSON)
        self.assertEqual(len(self.quotas._limits), 10_000)
        self.assertTrue(self.limited(b"10049"))
        self.assertFalse(self.limited(b"0"))

    def test_over(self) -> None:
        """Limits that have ended are forgotten."""
        self.answered(429, Content_Type=TEXT, Retry_After=b"1")
        self.clock.advance(1)
        self.assertFalse(self.limited())
        self.assertEqual(self.quotas._limits, {})

    def test_toldOnce(self) -> None:
        alice = self.identity(token(sub="alice"))
        with capturedLogs() as events:
            for _ in range(5):
                self.answered(429, alice, Content_Type=JSON, Retry_After=b"30")
                self.answered(429, alice, Content_Type=TEXT, Retry_After=b"600")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["hub limits pulls for 30 s", "hub limits every request for 600 s"],
        )


class KeptAnswerTests(SynchronousTestCase):
    def test_body(self) -> None:
        """The repeated body can be read like any other."""

        for body in (b"", b"body"):
            clock = Clock()
            reading = readShortBody(CachedResponse(Response(429), body), clock, 5)
            self.assertEqual(self.successResultOf(reading), body)
            self.assertEqual(clock.getDelayedCalls(), [])
