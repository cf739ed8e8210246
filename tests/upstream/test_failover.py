"""
Tests of which upstreams are asked when some are marked down, and of the total time.  C{test_agents}
has the other tests of single requests.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import (
    AddressRefused,
    CodingRefused,
    ConnectFailed,
    ConnectTimedOut,
    HeadFailed,
    HeadTimedOut,
    NoAnswer,
    RedirectRefused,
    UpstreamsFailed,
)
from hubmirror.protocol.target import Kind
from hubmirror.transport.connecting import ConnectCancelled
from hubmirror.upstream.agents import RedirectAgent
from hubmirror.upstream.failover import FailoverAgent
from hubmirror.upstream.health import TIMEOUTS, Health
from hubmirror.upstream.policy import PAUSE, TRIES, Service
from hubmirror.upstream.quota import Quotas
from tests.upstream.support import RecordingAgent, Response, newExchange, upstream

PULLS = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"limit","detail":{}}]}'
ABUSE = b"Too Many Requests (HAP429)"
TOTAL = 9.0


def pullLimit(**fields: bytes) -> Response:
    """The 429 for a client that has no pulls left."""
    return Response(
        429, len(PULLS), PULLS, **{"Content_Type": b"application/json; charset=utf-8", **fields}
    )


def abuseLimit(**fields: bytes) -> Response:
    """The 429 for an address with too many requests."""
    return Response(429, len(ABUSE), ABUSE, **{"Content_Type": b"text/plain", **fields})


class FailoverCase(SynchronousTestCase):
    """
    Tests with a hub and two other upstreams, and several requests after another.
    """

    names = ("hub", "second", "third")

    def setUp(self) -> None:
        self.clock = Clock()
        self.inner = RecordingAgent()
        self.health = Health(self.clock)
        self.quotas = Quotas(self.clock)
        self.upstreams = [upstream(name) for name in self.names]
        self.exchange = newExchange()

    def ask(
        self,
        kind: Kind | None = Kind.MANIFEST,
        method: bytes = b"GET",
        *,
        authorization: bytes | None = None,
        body: Any = None,
        service: Service = Service.REGISTRY,
        redirects: bool = False,
        target: bytes = b"/x",
    ) -> Deferred[Any]:
        """Send another request, after which C{asked} has only its requests to upstreams."""
        self.exchange = exchange = newExchange(method)
        exchange.kind = kind
        self.before = len(self.inner.asked)
        headers = Headers()
        if authorization is not None:
            headers.setRawHeaders(b"Authorization", [authorization])
        return self.agent(exchange, service, redirects).request(method, target, headers, body)

    def agent(self, exchange: Exchange, service: Service, redirects: bool) -> FailoverAgent:
        return FailoverAgent(
            self.clock,
            RedirectAgent(self.clock, self.inner, exchange) if redirects else self.inner,
            self.upstreams,
            service,
            exchange,
            health=self.health,
            quotas=self.quotas,
            failoverOn=frozenset((429, 502, 503, 504)),
            timeout=TOTAL,
            findTokens=Deferred,
        )

    @property
    def asked(self) -> list[str]:
        """The upstreams that the latest request has asked, in order."""
        return [
            asked.uri.partition(b"://")[2].partition(b".")[0].decode()
            for asked in self.inner.asked[self.before :]
        ]

    def assertServedBy(self, *names: str, **request: Any) -> None:
        """Check that another request asks these upstreams, and the last of them serves it."""
        asking = self.ask(**request)
        for _ in names[1:]:
            self.inner.fail(ConnectFailed("connection refused"))
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(self.asked, list(names))


class LeftAloneTests(FailoverCase):
    """
    Tests of an upstream that can't be reached.
    """

    def test_leftAlone(self) -> None:
        self.assertServedBy("hub", "second")
        for _ in range(3):
            self.assertServedBy("second")

    def test_probe(self) -> None:
        """When the time is over, one request probes the upstream; others meanwhile skip it."""
        self.assertServedBy("hub", "second")
        self.clock.advance(2)
        probing = self.ask()
        self.assertEqual(self.asked, ["hub"])
        probe = self.inner.asked[-1].reply
        self.assertServedBy("second")
        response = Response(200)
        probe.callback(response)
        self.assertIs(self.successResultOf(probing), response)
        self.assertServedBy("hub")

    def test_grows(self) -> None:
        self.assertServedBy("hub", "second")
        for seconds in (2, 4, 8, 16, 32, 60, 60):
            self.clock.advance(seconds - 0.1)
            self.assertServedBy("second")
            self.clock.advance(0.1)
            self.assertServedBy("hub", "second")

    def test_kinds(self) -> None:
        """
        Only failed connections mark an upstream down.  A connection that is closed, or a slow
        response, may concern one request only.
        """
        for error, counts in (
            (ConnectFailed("refused"), True),
            (ConnectTimedOut("no connection"), True),
            (HeadTimedOut("silent"), False),
            (NoAnswer("closed"), False),
            (HeadFailed("malformed"), False),
            (RedirectRefused("a loop"), False),
            (AddressRefused("a private address"), False),
            (CodingRefused("gzip"), False),
        ):
            self.setUp()
            self.ask()
            self.inner.fail(error)
            self.assertServedBy("second" if counts else "hub")

    def test_statuses(self) -> None:
        for status in (429, 500, 502, 503, 504):
            self.setUp()
            self.ask(Kind.BLOB)
            self.inner.answer(Response(status, 2, b"{}", Content_Type=b"application/json"))
            self.assertServedBy("hub", kind=Kind.BLOB)

    def hang(self, target: bytes) -> None:
        """Send another request, to which the hub does not respond in time."""
        self.ask(target=target)
        self.assertEqual(self.asked, ["hub"])
        self.clock.advance(3)
        self.inner.answer(Response(200))
        self.assertEqual(self.asked, ["hub", "second"])

    def test_hangs(self) -> None:
        """
        An upstream that responds to nothing is marked down as well, but not because of a single
        slow response.
        """
        for number in range(TIMEOUTS):
            self.hang(b"/%d" % number)
        self.assertServedBy("second")

    def test_slow(self) -> None:
        """
        An upstream that is slow for one target, or responds to others meanwhile, is not marked
        down.
        """
        for _ in range(5):
            self.hang(b"/slow")
        self.assertServedBy("hub")
        for number in range(5):
            self.hang(b"/%d" % number)
            self.assertServedBy("hub")

    def test_connectsTooSlowly(self) -> None:
        """
        If the time ends before a connection is established, this counts as a failed connection.
        """
        reply: Deferred[Any] = Deferred(lambda deferred: deferred.errback(ConnectCancelled()))
        self.patch(self.inner, "request", lambda *arguments: reply)
        self.ask()
        del self.inner.request
        self.clock.advance(3)
        self.assertEqual(self.exchange.failures, [("hub", "could not connect within 3 s")])
        self.assertServedBy("second")

    def test_leavesWhileConnecting(self) -> None:
        """
        If the client leaves before a connection is established, the upstream is not marked down.
        """
        reply: Deferred[Any] = Deferred(lambda deferred: deferred.errback(ConnectCancelled()))
        self.patch(self.inner, "request", lambda *arguments: reply)
        asking = self.ask()
        del self.inner.request
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertServedBy("hub")

    def test_slowPush(self) -> None:
        """A slow push does not mark the upstream down, because the client may have been slow."""
        for number in range(TIMEOUTS):
            asking = self.ask(method=b"PUT", body=object(), target=b"/%d" % number)
            self.inner.fail(HeadTimedOut("silent"))
            self.failureResultOf(asking, UpstreamsFailed)
        self.assertServedBy("hub")

    def test_alone(self) -> None:
        """The only upstream is always asked."""
        del self.upstreams[1:]
        for _ in range(3):
            asking = self.ask()
            self.inner.fail(ConnectFailed("refused"))
            self.failureResultOf(asking, UpstreamsFailed)
            self.assertEqual(self.asked, ["hub"])

    def test_allDead(self) -> None:
        """If all upstreams are marked down, all are asked again."""
        for _ in range(3):
            asking = self.ask()
            for _ in self.names:
                self.inner.fail(ConnectFailed("refused"))
            self.failureResultOf(asking, UpstreamsFailed)
            self.assertEqual(self.asked, list(self.names))

    def test_leaveIsNotUsedUp(self) -> None:
        """
        A fallback that failed long ago is available when the Hub fails, however many requests the
        Hub has served meanwhile.
        """
        asking = self.ask()
        self.inner.fail(ConnectFailed("refused"))
        self.inner.fail(ConnectFailed("refused"))
        self.inner.answer(Response(200))
        self.successResultOf(asking)
        self.clock.advance(60)
        self.assertServedBy("hub")
        for _ in range(5):
            self.clock.advance(0.1)
            self.assertServedBy("hub")
        self.assertServedBy("hub", "second")

    def test_named(self) -> None:
        """The error response names an upstream that was skipped."""
        self.assertServedBy("hub", "second")
        asking = self.ask()
        for _ in range(2):
            self.inner.answer(Response(404))
        error = self.failureResultOf(asking, UpstreamsFailed).value
        self.assertEqual(
            error.detail["upstreams"],
            [
                "hub: marked down: connection refused",
                "second: answered 404",
                "third: answered 404",
            ],
        )

    def test_namedInOrder(self) -> None:
        """
        The response has the status of the first upstream, also when a fallback was skipped, or was
        asked before.
        """
        self.health.failed(self.upstreams[1], "registry", "connection refused")
        asking = self.ask()
        self.inner.fail(HeadTimedOut("silent"))
        self.inner.answer(Response(404))
        error = self.failureResultOf(asking, UpstreamsFailed).value
        skipped = "second: marked down: connection refused"
        self.assertEqual(
            (error.status, error.detail["upstreams"]),
            (504, ["hub: silent", skipped, "third: answered 404"]),
        )
        limit = Response(200, 0, b"", RateLimit_Remaining=b"0;w=60")
        self.quotas.answered(self.upstreams[0], Kind.MANIFEST, b"?", b"GET", limit)
        asking = self.ask()
        self.inner.answer(Response(404))
        self.inner.fail(HeadTimedOut("silent"))
        self.assertEqual(self.asked, ["third", "hub"])
        error = self.failureResultOf(asking, UpstreamsFailed).value
        self.assertEqual(error.status, 504)

    def test_notNamed(self) -> None:
        """The response does not name fallbacks to which the request can't be sent at all."""
        self.health.failed(self.upstreams[1], "registry", "connection refused")
        for request in (
            {"kind": Kind.PING, "authorization": PasswordTests.PASSWORD},
            {"method": b"PUT", "body": object()},
        ):
            asking = self.ask(**request)
            self.inner.fail(HeadTimedOut("silent"))
            error = self.failureResultOf(asking, UpstreamsFailed).value
            self.assertEqual(error.detail["upstreams"], ["hub: silent"])

    def test_routes(self) -> None:
        """A CDN that is unavailable does not affect the registry, nor the other way round."""
        for dead, alive in (
            (Kind.BLOB, Kind.MANIFEST),
            (Kind.MANIFEST, Kind.BLOB),
        ):
            self.setUp()
            self.assertServedBy("hub", "second", kind=dead)
            self.assertServedBy("hub", kind=alive)
            self.assertServedBy("second", kind=dead)

    def test_services(self) -> None:
        self.assertServedBy("hub", "second", kind=Kind.TOKEN, service=Service.TOKEN)
        self.assertServedBy("hub")
        self.assertServedBy("second", kind=Kind.TOKEN, service=Service.TOKEN)

    def test_deadRedirect(self) -> None:
        """If a redirect's target is unavailable, the route of blobs is marked down."""
        asking = self.ask(Kind.BLOB, redirects=True)
        self.inner.answer(Response(307, 0, b"", Location=b"https://cdn.example/x"))
        self.inner.fail(ConnectFailed("refused"))
        self.assertEqual(self.asked, ["hub", "cdn", "second"])
        self.assertEqual(self.exchange.failures, [("hub", "the redirect to cdn.example: refused")])
        self.inner.answer(Response(200))
        self.successResultOf(asking)
        self.assertServedBy("second", kind=Kind.BLOB)
        self.assertServedBy("hub")

    def test_push(self) -> None:
        """A push is sent to the first upstream, even if it is marked down."""
        self.assertServedBy("hub", "second")
        self.assertServedBy("hub", method=b"PUT", body=object())

    def test_brokenPush(self) -> None:
        """A client that aborts its own body does not mark the upstream down."""
        asking = self.ask(method=b"PUT", body=object())
        self.inner.fail(HeadFailed("closed"))
        self.failureResultOf(asking, UpstreamsFailed)
        self.assertServedBy("hub")

    def test_clientLeft(self) -> None:
        """A client that leaves is not a failure of the upstream."""
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertServedBy("hub")

    def test_clientOfProbeLeft(self) -> None:
        """A client that leaves does not use up the probe of an upstream that is marked down."""
        self.assertServedBy("hub", "second")
        self.clock.advance(60)
        asking = self.ask()
        self.assertEqual(self.asked, ["hub"])
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertServedBy("second")
        self.clock.advance(2)
        self.assertServedBy("hub")

    def test_log(self) -> None:
        with capturedLogs() as events:
            self.assertServedBy("hub", "second")
            for _ in range(5):
                self.assertServedBy("second")
            for _ in range(3):
                self.clock.advance(60)
                self.assertServedBy("hub", "second")
            self.clock.advance(60)
            self.assertServedBy("hub")
            self.assertServedBy("hub")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "hub (registry) is marked down: connection refused",
                "hub (registry) is up again",
            ],
        )


class PasswordTests(FailoverCase):
    """
    Tests of requests with a password, which is for the registry and its token service alone.
    """

    PASSWORD = b"Basic bWU6c2VjcmV0"

    def test_login(self) -> None:
        """
        No fallback is asked whether a password is right: an anonymous response would confirm it.
        """
        for service, kind in ((Service.TOKEN, None), (Service.REGISTRY, Kind.PING)):
            for status in (429, 503):
                self.setUp()
                asking = self.ask(kind, service=service, authorization=self.PASSWORD)
                while not asking.called:
                    self.inner.answer(Response(status, 0, b""))
                    self.clock.advance(PAUSE)
                self.assertEqual(self.successResultOf(asking).code, status)
                self.assertEqual(set(self.asked), {"hub"})
            self.setUp()
            for _ in range(2):
                asking = self.ask(kind, service=service, authorization=self.PASSWORD)
                self.inner.fail(ConnectFailed("connection refused"))
                self.failureResultOf(asking, UpstreamsFailed)
                self.assertEqual(self.asked, ["hub"])

    def test_form(self) -> None:
        """A form with a password is sent to the registry's token service alone."""
        for failure in (Response(503, 0, b""), ConnectFailed("connection refused")):
            asking = self.ask(None, b"POST", service=Service.TOKEN, body=object())
            self.inner.asked[-1].reply.callback(
                failure if isinstance(failure, Response) else Failure(failure)
            )
            asking.addErrback(lambda reason: reason.trap(UpstreamsFailed))
            self.successResultOf(asking)
            self.assertEqual(self.asked, ["hub"])

    def test_others(self) -> None:
        """
        Other requests go to a fallback without the password.  dockerd has a password for every
        token that it requests for a pull.
        """
        for request in (
            {},
            {
                "kind": None,
                "service": Service.TOKEN,
                "target": b"?scope=repository%3Ao/a%3Apull&service=x",
            },
        ):
            self.setUp()
            self.assertServedBy("hub", "second", authorization=self.PASSWORD, **request)
            authorizations = [
                asked.headers.getRawHeaders(b"Authorization") for asked in self.inner.asked
            ]
            self.assertEqual(authorizations, [[self.PASSWORD], None])

    def test_token(self) -> None:
        """A token is sent to fallbacks, which may accept the same tokens."""
        for service, kind in ((Service.TOKEN, None), (Service.REGISTRY, Kind.PING)):
            self.setUp()
            self.assertServedBy(
                "hub", "second", kind=kind, service=service, authorization=b"bearer x"
            )
            authorization = self.inner.asked[-1].headers.getRawHeaders(b"Authorization")
            self.assertEqual(authorization, [b"bearer x"])


class NoAnswerTests(FailoverCase):
    """
    A connection is closed before a byte of the response.
    """

    def test_again(self) -> None:
        """A GET is repeated once before the next upstream is asked."""
        asking = self.ask()
        for _ in range(2):
            self.inner.fail(NoAnswer("closed"))
        self.assertEqual(self.asked, ["hub", "hub", "second"])
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)

    def test_alone(self) -> None:
        del self.upstreams[1:]
        asking = self.ask()
        self.inner.fail(NoAnswer("closed"))
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)
        self.assertServedBy("hub")

    def test_none(self) -> None:
        """Each upstream is asked twice, and no more."""
        asking = self.ask()
        for _ in range(6):
            self.inner.fail(NoAnswer("closed"))
        self.failureResultOf(asking, UpstreamsFailed)
        self.assertEqual(self.asked, ["hub", "hub", "second", "second", "third", "third"])

    def test_others(self) -> None:
        """HEAD and pushes are not repeated."""
        for method in (b"HEAD", b"PUT", b"POST", b"DELETE"):
            self.setUp()
            del self.upstreams[1:]
            asking = self.ask(method=method)
            self.inner.fail(NoAnswer("closed"))
            self.failureResultOf(asking, UpstreamsFailed)
            self.assertEqual(self.asked, ["hub"])


class UnavailableTests(FailoverCase):
    """
    The first upstream is temporarily unable to serve.
    """

    def test_again(self) -> None:
        """It is asked up to three times, and the last response counts."""
        for status in (502, 503, 504):
            for last in (200, 404, 503):
                self.setUp()
                del self.upstreams[1:]
                asking = self.ask(method=b"HEAD")
                for _ in range(TRIES - 1):
                    earlier = self.inner.answer(Response(status))
                    self.assertNoResult(asking)
                    self.clock.advance(PAUSE)
                response = self.inner.answer(Response(last))
                self.assertIs(self.successResultOf(asking), response)
                self.assertEqual(self.asked, ["hub"] * TRIES)
                self.assertEqual(earlier.state, "flowing")

    def test_last(self) -> None:
        """The other upstreams are asked before that."""
        asking = self.ask()
        self.inner.answer(Response(503))
        self.inner.answer(Response(404))
        self.inner.answer(Response(503))
        self.clock.advance(PAUSE)
        self.assertEqual(self.asked, ["hub", "second", "third", "hub"])
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)

    def test_lost(self) -> None:
        """If it then does not respond at all, its first response is sent to the client."""
        del self.upstreams[1:]
        asking = self.ask()
        response = self.inner.answer(Response(503))
        self.clock.advance(PAUSE)
        self.inner.fail(ConnectFailed("refused"))
        self.assertIs(self.successResultOf(asking), response)

    def test_inVain(self) -> None:
        """
        It is not asked again if it sends Retry-After, if there is no time left, or for a push.
        """
        for seconds, method, response in (
            (0.0, b"GET", Response(503, Retry_After=b"30")),
            (TOTAL - PAUSE, b"GET", Response(503)),
            (0.0, b"PUT", Response(503)),
            (0.0, b"GET", Response(429, 2, b"{}", Content_Type=b"application/json")),
        ):
            self.setUp()
            del self.upstreams[1:]
            asking = self.ask(method=method)
            self.clock.advance(seconds)
            self.inner.answer(response)
            self.assertEqual(self.successResultOf(asking).code, response.code)
            self.assertEqual(self.asked, ["hub"])

    def test_clientLeft(self) -> None:
        """No upstream is asked for a client that has left."""
        del self.upstreams[1:]
        asking = self.ask()
        self.inner.answer(Response(503))
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.clock.advance(PAUSE)
        self.assertEqual(self.asked, ["hub"])


class FailingCDNTests(FailoverCase):
    """
    A CDN is temporarily unable to serve a blob.
    """

    def redirect(self) -> None:
        """The registry redirects to a CDN."""
        self.inner.answer(Response(307, 0, b"", Location=b"https://cdn.example/x"))

    def test_sameURL(self) -> None:
        """
        The same URL is requested again at once, because object stores may respond with 500 for a
        moment.
        """
        for status in (500, 502, 503, 504):
            for method in (b"GET", b"HEAD"):
                self.setUp()
                asking = self.ask(Kind.BLOB, method, redirects=True)
                self.redirect()
                earlier = self.inner.answer(Response(status))
                self.assertEqual(self.asked, ["hub", "cdn", "cdn"])
                self.assertEqual(self.inner.uris[-2:], [b"https://cdn.example/x"] * 2)
                self.assertEqual(earlier.state, "flowing")
                response = self.inner.answer(Response(200))
                self.assertIs(self.successResultOf(asking), response)
                self.assertEqual((self.exchange.redirects, self.exchange.failures), (1, []))

    def test_anotherURL(self) -> None:
        """Then the registry is asked for another URL, before other upstreams are asked."""
        asking = self.ask(Kind.BLOB, redirects=True)
        self.redirect()
        for _ in range(2):
            self.inner.answer(Response(500))
        self.clock.advance(PAUSE)
        self.assertEqual(self.asked, ["hub", "cdn", "cdn", "hub"])
        self.redirect()
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(self.exchange.failures, [("hub", "answered 500")])

    def test_fallback(self) -> None:
        """Then the next upstream serves."""
        asking = self.ask(Kind.BLOB, redirects=True)
        self.redirect()
        for _ in range(2):
            self.inner.answer(Response(500))
        self.clock.advance(PAUSE)
        self.redirect()
        self.inner.answer(Response(500))
        self.assertEqual(self.asked, ["hub", "cdn", "cdn", "hub", "cdn", "second"])
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)

    def test_inVain(self) -> None:
        """
        If the CDN still fails and no other upstream serves, its response is passed on within a
        bounded time.
        """
        del self.upstreams[1:]
        asking = self.ask(Kind.BLOB, redirects=True)
        self.redirect()
        self.inner.answer(Response(500))
        for _ in range(TRIES - 1):
            self.inner.answer(Response(500))
            self.clock.advance(PAUSE)
            self.redirect()
        response = self.inner.answer(Response(500))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(self.asked, ["hub", "cdn", "cdn", *["hub", "cdn"] * (TRIES - 1)])

    def test_says(self) -> None:
        """If the response has Retry-After, the same URL is not requested again at once."""
        asking = self.ask(Kind.BLOB, redirects=True)
        self.redirect()
        self.inner.answer(Response(503, Retry_After=b"30"))
        self.assertEqual(self.asked, ["hub", "cdn", "second"])
        self.inner.answer(Response(200))
        self.successResultOf(asking)

    def test_ownAnswer(self) -> None:
        """
        A 500 of the registry itself is passed on, and so is that of a redirect within it, or of a
        request that is not for a blob.
        """
        for kind, location in (
            (Kind.BLOB, None),
            (Kind.BLOB, b"/y"),
            (Kind.MANIFEST, b"https://cdn.example/x"),
        ):
            self.setUp()
            asking = self.ask(kind, redirects=True)
            if location is not None:
                self.inner.answer(Response(307, 0, b"", Location=location))
            asked = self.asked
            response = self.inner.answer(Response(500))
            self.assertIs(self.successResultOf(asking), response)
            self.assertEqual(self.asked, asked)

    def test_registryAfterCDN(self) -> None:
        """A 500 of the registry, when it is asked for another URL, is passed on, too."""
        asking = self.ask(Kind.BLOB, redirects=True)
        self.redirect()
        for _ in range(2):
            self.inner.answer(Response(500))
        self.clock.advance(PAUSE)
        response = self.inner.answer(Response(500))
        self.assertIs(self.successResultOf(asking), response)


class TotalTimeTests(FailoverCase):
    """
    dockerd gives up a pull after waiting 15 s.
    """

    def test_slowLimit(self) -> None:
        """The time for the body of a 429 is part of the total time."""
        self.upstreams = self.upstreams[:1]
        asking = self.ask()
        self.clock.advance(8)
        self.inner.answer(Response(429, 100, Content_Type=b"application/json"))
        self.clock.advance(0.9)
        self.assertNoResult(asking)
        self.clock.advance(0.1)
        self.assertEqual(self.successResultOf(asking).code, 429)

    def test_limitAtTheLastMoment(self) -> None:
        self.upstreams = self.upstreams[:1]
        asking = self.ask()
        self.clock.advance(8.999)
        self.inner.answer(pullLimit())
        self.assertEqual(self.successResultOf(asking).code, 429)

    def wait(self, seconds: float) -> None:
        """Let time pass in small steps."""
        end = self.clock.seconds() + seconds
        while times := [call.getTime() for call in self.clock.calls if call.getTime() <= end]:
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    #: What an upstream does, and after how many seconds.
    BEHAVIOURS = st.tuples(
        st.sampled_from(["hangs", "refuses", 404, 429, 503, "slow 429", "redirects"]),
        st.floats(0, 5),
    )

    @given(
        st.lists(BEHAVIOURS, min_size=12, max_size=12),
        st.integers(1, 3),
        st.sampled_from(list(Kind)),
        st.lists(st.sampled_from(["dead", "limited", "well"]), min_size=3, max_size=3),
    )
    def test_anything(
        self, behaviours: list[tuple[Any, float]], count: int, kind: Kind, states: list[str]
    ) -> None:
        """
        For any behaviour of the upstreams, there is a response after nine seconds, and nothing is
        left.
        """
        self.setUp()
        del self.upstreams[count:]
        for each, state in zip(self.upstreams, states, strict=False):
            if state == "dead":
                self.health.failed(each, "registry", "refused")
            elif state == "limited":
                self.quotas.answered(
                    each, Kind.MANIFEST, b"", b"GET", Response(429, Retry_After=b"30")
                )
        asking = self.ask(kind, redirects=True)
        ended: list[float] = []
        asking.addBoth(lambda _: ended.append(self.clock.seconds()))
        for what, seconds in behaviours:
            self.wait(seconds)
            if ended:
                break
            if self.inner.asked[-1].reply.called or what == "hangs":
                continue
            if what == "refuses":
                self.inner.fail(ConnectFailed("refused"))
            elif what == "redirects":
                self.inner.answer(Response(307, 0, b"", Location=b"/y"))
            elif what == "slow 429":
                self.inner.answer(Response(429, 10, Content_Type=b"application/json"))
            else:
                self.inner.answer(Response(what, 2, b"{}", Content_Type=b"application/json"))
        self.wait(TOTAL)
        [at] = ended
        self.assertLessEqual(at, TOTAL + 1e-6)
        self.assertEqual(self.clock.getDelayedCalls(), [])
