"""
Tests of which upstreams are asked when some have no more pulls for a client, and of the response
when none has.
"""

from __future__ import annotations

import json
from typing import Any

from hubmirror.protocol.errors import BodyFailed, ConnectFailed
from hubmirror.protocol.target import Kind
from hubmirror.upstream.bodies import MAX_SHORT_BODY
from hubmirror.upstream.policy import Service
from tests.upstream.support import Response
from tests.upstream.test_failover import ABUSE, PULLS, TOTAL, FailoverCase, abuseLimit, pullLimit
from tests.upstream.test_quota import token


class LimitedTests(FailoverCase):
    """
    Tests of an upstream that has no more pulls for a client.
    """

    ALICE, BOB = token(sub="alice"), token(sub="bob")

    def limit(self, response: Response, authorization: bytes | None = None, **request: Any) -> None:
        """
        Send a request that the Hub refuses because of the limit, and the next upstream serves.
        """
        asking = self.ask(authorization=authorization, **request)
        self.inner.answer(response)
        self.inner.answer(Response(200))
        self.successResultOf(asking)
        self.assertEqual(self.asked, ["hub", "second"])

    def test_nextFirst(self) -> None:
        self.limit(pullLimit(Retry_After=b"30"), self.ALICE)
        self.clock.advance(29)
        self.assertServedBy("second", authorization=token(sub="alice", iat=5))
        self.clock.advance(1)
        self.assertServedBy("hub", authorization=self.ALICE)

    def test_others(self) -> None:
        """The limit does not affect other clients, nor other requests of the same client."""
        self.limit(pullLimit(Retry_After=b"30"), self.ALICE)
        self.assertServedBy("hub", authorization=self.BOB)
        self.assertServedBy("hub")
        for kind in Kind:
            if kind is not Kind.MANIFEST:
                self.assertServedBy("hub", kind=kind, authorization=self.ALICE)

    def test_anonymous(self) -> None:
        self.limit(pullLimit(Retry_After=b"30"), token(sub=""))
        self.assertServedBy("second", authorization=token(sub=""))
        self.assertServedBy("hub", authorization=self.ALICE)
        self.assertServedBy("hub")

    def test_remaining(self) -> None:
        """The last pull is served; the next request asks another upstream at once."""
        asking = self.ask(authorization=self.ALICE)
        self.inner.answer(Response(200, ratelimit_remaining=b"0;w=600"))
        self.successResultOf(asking)
        self.assertServedBy("second", authorization=self.ALICE)
        self.assertServedBy("hub", authorization=self.BOB)
        self.clock.advance(600)
        self.assertServedBy("hub", authorization=self.ALICE)

    def test_limitedComesLast(self) -> None:
        """
        The limited upstream is still asked if no other serves, because the limit may end early.
        """
        self.limit(pullLimit(Retry_After=b"30"), self.ALICE)
        self.clock.advance(5)
        asking = self.ask(authorization=self.ALICE)
        for _ in range(2):
            self.inner.answer(Response(404))
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(self.asked, ["second", "third", "hub"])
        self.assertEqual(self.exchange.upstream, "hub")

    def test_abuse(self) -> None:
        """The 429 in plain text applies to all clients and requests."""
        self.limit(abuseLimit(Retry_After=b"30"), self.ALICE, kind=Kind.BLOB)
        for kind in Kind:
            self.assertServedBy("second", kind=kind, authorization=self.BOB)
        for service in (Service.TOKEN, Service.SEARCH):
            self.assertServedBy("second", kind=None, service=service)
        self.clock.advance(30)
        self.assertServedBy("hub")

    def test_cdn(self) -> None:
        """A limit of the CDN does not affect the registry."""
        for response in (abuseLimit(), pullLimit()):
            self.setUp()
            asking = self.ask(Kind.BLOB, redirects=True)
            self.inner.answer(Response(307, 0, b"", Location=b"https://cdn.example/x"))
            self.inner.answer(response)
            self.inner.answer(Response(200))
            self.successResultOf(asking)
            for kind in Kind:
                self.assertServedBy("hub", kind=kind)


class RememberedTests(FailoverCase):
    """
    If no upstream is left, the client is sent the 429, and repeated requests get it without asking
    an upstream.
    """

    names = ("hub",)

    def told(self, **request: Any) -> Any:
        """The response to a request for which no upstream is asked."""
        answer = self.successResultOf(self.ask(**request))
        self.assertEqual(self.asked, [])
        return answer

    def limit(self, response: Response, **request: Any) -> Any:
        asking = self.ask(**request)
        self.inner.answer(response)
        return self.successResultOf(asking)

    def test_fiveHeads(self) -> None:
        """containerd sends five requests at once; the Hub is sent one."""
        self.limit(Response(429, 0, b"", Content_Type=b"application/json"), method=b"HEAD")
        for _ in range(4):
            answer = self.told(method=b"HEAD")
            self.assertEqual((answer.code, answer.length), (429, 0))
        self.assertEqual(len(self.inner.asked), 1)

    def test_seconds(self) -> None:
        self.limit(pullLimit(Retry_After=b"60"))
        self.clock.advance(3)
        self.told()
        self.clock.advance(0.1)
        self.assertServedBy("hub")

    def test_trueTime(self) -> None:
        """Whatever time the upstream sent, Retry-After is the time that is really left."""
        for fields, left in (
            ({"Retry_After": b"60"}, b"60"),
            ({"ratelimit_remaining": b"0;w=600"}, b"600"),
            ({}, b"60"),
        ):
            self.setUp()
            answer = self.limit(pullLimit(**fields))
            self.assertEqual(answer.headers.getRawHeaders(b"Retry-After"), [left])
            self.assertEqual((answer.code, answer.body), (429, PULLS))
            self.clock.advance(2)
            later = self.told().headers.getRawHeaders(b"Retry-After")
            self.assertEqual(later, [b"%d" % (int(left) - 2)])

    def test_others(self) -> None:
        """Other clients, and requests other than for manifests, are not affected."""
        self.limit(pullLimit(), authorization=token(sub="alice"))
        self.told(authorization=token(sub="alice", iat=3))
        self.assertServedBy("hub", authorization=token(sub="bob"))
        self.assertServedBy("hub")
        for kind in Kind:
            if kind is not Kind.MANIFEST:
                self.assertServedBy("hub", kind=kind, authorization=token(sub="alice"))

    def test_abuse(self) -> None:
        """This limit affects all clients and requests."""
        self.limit(abuseLimit(Retry_After=b"30"), kind=Kind.BLOB)
        for kind in Kind:
            for authorization in (None, token(sub="alice")):
                answer = self.told(kind=kind, authorization=authorization)
                self.assertEqual((answer.code, answer.body), (429, ABUSE))
        for service in (Service.TOKEN, Service.SEARCH):
            self.told(kind=None, service=service)

    def test_push(self) -> None:
        """A request that must be sent only once is still sent."""
        self.limit(abuseLimit())
        self.assertServedBy("hub", method=b"PUT", body=object())
        self.assertServedBy("hub", method=b"POST", service=Service.TOKEN, body=object())

    def test_isLearnedFromOthers(self) -> None:
        """The limit is also learned from the response to a push."""
        self.limit(abuseLimit(), method=b"PUT", body=object())
        self.assertEqual(self.told().code, 429)

    def test_bodies(self) -> None:
        """
        A 429 counts whatever its body is; a body that is broken, too long or late is replaced.
        """

        def broken(answer: Response) -> None:
            answer.gives(b"x")
            answer.ends(BodyFailed("closed"))

        def tooLong(answer: Response) -> None:
            answer.gives(b"x" * (MAX_SHORT_BODY + 1))
            answer.ends(BodyFailed("closed"))

        def late(answer: Response) -> None:
            answer.gives(b"x")
            self.clock.advance(TOTAL)

        for fault in (broken, tooLong, late):
            for kind, isPulls in ((b"application/json", True), (b"text/plain", False)):
                self.setUp()
                asking = self.ask()
                fields = {"Content_Type": kind, "Content_Length": b"99999", "Retry_After": b"30"}
                fields |= {"Content_Encoding": b"gzip", "ETag": b'"x"'}
                fault(self.inner.answer(Response(429, 99999, **fields)))
                answer = self.successResultOf(asking)
                self.assertEqual(answer.code, 429)
                for name, value in (
                    (b"Content-Type", kind),
                    (b"Content-Length", b"%d" % len(answer.body)),
                    (b"Retry-After", b"30"),
                ):
                    self.assertEqual(answer.headers.getRawHeaders(name), [value])
                for name in (b"Content-Encoding", b"ETag"):
                    self.assertFalse(answer.headers.hasHeader(name))
                if isPulls:
                    [error] = json.loads(answer.body)["errors"]
                    self.assertEqual(error["code"], "TOOMANYREQUESTS")
                else:
                    self.assertEqual(answer.body, b"too many requests\n")
                self.assertEqual(self.told().body, answer.body)
                self.assertEqual(self.clock.getDelayedCalls(), [])
                # The limit of the address applies to all requests, that of pulls only to manifests.
                self.ask(Kind.BLOB)
                self.assertEqual(self.asked, ["hub"] if isPulls else [])


class SpareTests(FailoverCase):
    def test_firstOnesLimit(self) -> None:
        """
        If no upstream serves, the client is sent the Hub's 429, whatever the other upstreams sent.
        """
        asking = self.ask()
        self.inner.answer(pullLimit(Retry_After=b"77"))
        self.inner.answer(Response(404))
        self.inner.answer(abuseLimit(Retry_After=b"5"))
        answer = self.successResultOf(asking)
        self.assertEqual(json.loads(answer.body)["errors"][0]["code"], "TOOMANYREQUESTS")
        self.assertEqual(answer.headers.getRawHeaders(b"Retry-After"), [b"77"])
        self.assertEqual(self.exchange.upstream, "hub")

    def test_anothersLimit(self) -> None:
        """
        If the Hub did not respond, the client is sent the fallback's 429, which is recorded as the
        fallback's.
        """
        asking = self.ask()
        self.inner.fail(ConnectFailed("refused"))
        self.inner.answer(abuseLimit(Retry_After=b"5"))
        self.inner.answer(Response(404))
        answer = self.successResultOf(asking)
        self.assertEqual((answer.code, answer.body), (429, ABUSE))
        self.assertEqual(self.exchange.upstream, "second")
