"""
Tests of the agents, each around an agent for which the test responds.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import (
    CodingRefused,
    ConnectFailed,
    ConnectTimedOut,
    HeadFailed,
    RedirectRefused,
    UpstreamsFailed,
)
from hubmirror.protocol.url import Origin
from hubmirror.upstream.agents import OriginAgent, RedirectAgent, ask
from hubmirror.upstream.failover import FailoverAgent
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service
from hubmirror.upstream.quota import Quotas
from tests.upstream.support import RecordingAgent, Response, newExchange, upstream


class FailoverCase(SynchronousTestCase):
    """
    Tests with three upstreams and a timeout of nine seconds.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.inner = RecordingAgent()
        self.exchange = newExchange()

    def ask(
        self,
        method: bytes = b"GET",
        target: bytes = b"/v2/a",
        *,
        service: Service = Service.REGISTRY,
        headers: Headers | None = None,
        body: Any = None,
        upstreams: int = 3,
    ) -> Deferred[Any]:
        agent = FailoverAgent(
            self.clock,
            self.inner,
            [upstream(name) for name in ("first", "second", "third")[:upstreams]],
            service,
            self.exchange,
            health=Health(self.clock),
            quotas=Quotas(self.clock),
            failoverOn=frozenset((429, 502, 503, 504)),
            timeout=9,
            findTokens=Deferred,
        )
        return agent.request(method, target, headers, body)


class FailoverTests(FailoverCase):
    def test_first(self) -> None:
        """A response is final unless its status is one of those configured."""
        for status in (200, 206, 304, 307, 400, 401, 403, 404, 416, 500, 501):
            self.setUp()
            asking = self.ask()
            response = self.inner.answer(Response(status))
            self.assertIs(self.successResultOf(asking), response)
            self.assertEqual(self.inner.uris, [b"https://first.example/v2/a"])
            self.assertEqual(self.exchange.upstream, "first")
            self.assertEqual(self.exchange.failures, [])
            self.assertEqual(response.state, "waiting")

    def test_order(self) -> None:
        """The next upstream is sent the same request, and only after the one before has failed."""
        headers = Headers({b"Authorization": [b"Bearer x"]})
        asking = self.ask(b"HEAD", b"/v2/b?x", headers=headers)
        for name, status in (("first", 502), ("second", 503)):
            self.assertEqual(self.inner.asked[-1].uri, f"https://{name}.example/v2/b?x".encode())
            self.inner.answer(Response(status))
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(
            [(asked.method, asked.headers) for asked in self.inner.asked], [(b"HEAD", headers)] * 3
        )
        self.assertEqual(self.exchange.upstream, "third")
        self.assertEqual(
            self.exchange.failures, [("first", "answered 502"), ("second", "answered 503")]
        )

    def test_services(self) -> None:
        """Each service has its own URL at each upstream."""
        self.ask(target=b"?service=a", service=Service.TOKEN)
        self.inner.answer(Response(502))
        self.assertEqual(
            self.inner.uris,
            [b"https://first.example/token?service=a", b"https://second.example/token?service=a"],
        )

    def test_failuresThatMove(self) -> None:
        for error in (
            ConnectFailed("connection refused"),
            ConnectTimedOut("late"),
            HeadFailed("closed"),
            RedirectRefused("a loop"),
            CodingRefused("gzip"),
        ):
            self.setUp()
            asking = self.ask()
            self.inner.fail(error)
            response = self.inner.answer(Response(200))
            self.assertIs(self.successResultOf(asking), response)
            self.assertEqual(self.exchange.failures, [("first", error.message)])

    def test_defectsAreNotFailures(self) -> None:
        """A defect of the mirror is not hidden by asking the next upstream."""
        asking = self.ask()
        self.inner.fail(ZeroDivisionError())
        self.failureResultOf(asking, ZeroDivisionError)
        self.assertEqual(len(self.inner.asked), 1)

    def test_fallbackServes(self) -> None:
        for status in (200, 206, 304, 416):
            self.setUp()
            asking = self.ask()
            self.inner.answer(Response(503))
            response = self.inner.answer(Response(status))
            self.assertIs(self.successResultOf(asking), response)

    def test_fallbackIsNoVerdict(self) -> None:
        """
        A 401, 403 or 404 of a fallback is not final, because it may not have what the first
        upstream has.
        """
        for status in (400, 401, 403, 404, 500, 302):
            self.setUp()
            asking = self.ask(headers=Headers({b"Authorization": [b"Bearer x"]}))
            first = self.inner.answer(Response(503, Retry_After=b"30"))
            for _ in range(2):
                self.inner.answer(Response(status))
            self.assertIs(self.successResultOf(asking), first)
            self.assertEqual(self.exchange.upstream, "first")

    def test_keptAnswer(self) -> None:
        """The body of the first response is left unread as long as it may be needed."""
        self.ask()
        first = self.inner.answer(Response(503))
        second = self.inner.answer(Response(404))
        self.assertEqual((first.state, second.state), ("waiting", "flowing"))
        self.inner.answer(Response(200))
        self.assertEqual(first.state, "flowing")

    def test_keptAnswerIsReturnedWhole(self) -> None:
        asking = self.ask(upstreams=2)
        first = self.inner.answer(Response(503, Retry_After=b"30"))
        self.inner.fail(ConnectFailed("connection refused"))
        self.assertIs(self.successResultOf(asking), first)
        self.assertEqual(first.state, "waiting")

    def test_none(self) -> None:
        """Without any response, the error names all failures in order."""
        asking = self.ask()
        self.inner.fail(ConnectFailed("connection refused"))
        self.inner.answer(Response(404))
        self.inner.fail(HeadFailed("closed"))
        error = self.failureResultOf(asking, UpstreamsFailed).value
        self.assertEqual(error.status, 502)
        self.assertEqual(error.message, "first: connection refused")
        self.assertEqual(
            error.detail,
            {"upstreams": ["first: connection refused", "second: answered 404", "third: closed"]},
        )
        self.assertIsNone(self.exchange.upstream)

    def test_status(self) -> None:
        """The first upstream decides between 502 and 504."""
        asking = self.ask(upstreams=2)
        self.inner.fail(ConnectTimedOut("late"))
        self.inner.fail(ConnectFailed("connection refused"))
        self.assertEqual(self.failureResultOf(asking, UpstreamsFailed).value.status, 504)

    def test_alone(self) -> None:
        asking = self.ask(upstreams=1)
        response = self.inner.answer(Response(503, Retry_After=b"30"))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(response.state, "waiting")


class FallbackChallengeTests(FailoverCase):
    """
    If the Hub is unavailable, a pull can still begin: the fallback's challenge is then passed on.
    """

    def test_dead(self) -> None:
        asking = self.ask()
        self.inner.fail(ConnectFailed("connection refused"))
        response = self.inner.answer(Response(401))
        self.assertIs(self.successResultOf(asking), response)

    def test_broken(self) -> None:
        asking = self.ask()
        first = self.inner.answer(Response(503))
        response = self.inner.answer(Response(401))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(first.state, "flowing")

    def test_limited(self) -> None:
        """
        A quota that is used up is a final response: the client must wait, not log in elsewhere.
        """
        asking = self.ask(upstreams=2)
        self.inner.answer(
            Response(429, body=b"{}", Content_Type=b"application/json; charset=utf-8")
        )
        self.inner.answer(Response(401))
        self.assertEqual(self.successResultOf(asking).code, 429)
        self.assertEqual(self.exchange.upstream, "first")

    def test_shutOut(self) -> None:
        """
        The Hub's other 429 applies to every request from this address, including token requests, so
        the Hub counts as unavailable.
        """
        asking = self.ask(upstreams=2)
        self.inner.answer(Response(429, body=b"enough", Content_Type=b"text/plain"))
        response = self.inner.answer(Response(401))
        self.assertIs(self.successResultOf(asking), response)

    def test_withToken(self) -> None:
        """
        A client that has a token was challenged before, so the fallback's 401 refuses that token.
        """
        asking = self.ask(upstreams=2, headers=Headers({b"Authorization": [b"Bearer x"]}))
        first = self.inner.answer(Response(503, Retry_After=b"30"))
        self.inner.answer(Response(401))
        self.assertIs(self.successResultOf(asking), first)


class OnceOnlyTests(FailoverCase):
    """
    Requests that must not be sent twice are sent only to the first upstream.
    """

    def test_methods(self) -> None:
        for method in (b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"):
            for status in (200, 429, 503):
                self.setUp()
                asking = self.ask(method)
                self.inner.answer(Response(status, body=b""))
                self.assertEqual(self.successResultOf(asking).code, status)
                self.assertEqual(len(self.inner.asked), 1)

    def test_body(self) -> None:
        """The body of a request can be read only once, even with GET."""
        body = object()
        asking = self.ask(b"GET", body=body)
        self.assertIs(self.inner.asked[0].body, body)
        response = self.inner.answer(Response(503))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(len(self.inner.asked), 1)

    def test_failure(self) -> None:
        asking = self.ask(b"PUT")
        self.inner.fail(ConnectFailed("connection refused"))
        error = self.failureResultOf(asking, UpstreamsFailed).value
        self.assertEqual(error.detail, {"upstreams": ["first: connection refused"]})
        self.assertEqual(len(self.inner.asked), 1)

    def test_takesItsTime(self) -> None:
        """A push has no timeout while its body is sent."""
        asking = self.ask(b"PUT", body=object())
        self.clock.advance(3600)
        self.assertNoResult(asking)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_tokenDoesNot(self) -> None:
        """A token request has one: dockerd waits 15 s for a token, and then gives up the pull."""
        asking = self.ask(b"POST", service=Service.TOKEN, body=object())
        self.clock.advance(9)
        self.assertEqual(self.failureResultOf(asking, UpstreamsFailed).value.status, 504)
        self.assertEqual(self.inner.cancelled, [b"https://first.example/token/v2/a"])


class TimeTests(FailoverCase):
    def test_shares(self) -> None:
        """Each upstream has an equal share of the time that is left."""
        asking = self.ask()
        self.clock.advance(2.9)
        self.assertEqual(len(self.inner.asked), 1)
        self.clock.advance(0.1)
        self.assertEqual(self.inner.cancelled, [b"https://first.example/v2/a"])
        self.assertEqual(len(self.inner.asked), 2)
        self.clock.advance(1)
        self.inner.answer(Response(503))
        # Five seconds are left, for one upstream.
        self.clock.advance(4.9)
        self.assertEqual(len(self.inner.cancelled), 1)
        self.clock.advance(0.1)
        self.assertEqual(self.inner.cancelled[1:], [b"https://third.example/v2/a"])
        self.failureResultOf(asking, UpstreamsFailed)

    def test_total(self) -> None:
        """In any case, the client is sent a response within the timeout."""
        asking = self.ask()
        for _ in range(9):
            self.assertNoResult(asking)
            self.clock.advance(1)
        error = self.failureResultOf(asking, UpstreamsFailed).value
        self.assertEqual(error.status, 504)
        self.assertEqual(len(self.inner.cancelled), 3)
        self.assertIn("no response head within 3 s", error.detail["upstreams"][0])

    def test_firstAnswerAfterAll(self) -> None:
        """A fallback that does not respond takes time, but the first response can still be used."""
        asking = self.ask(upstreams=2)
        first = self.inner.answer(Response(503))
        self.clock.advance(9)
        self.assertIs(self.successResultOf(asking), first)

    def test_nothingIsLeft(self) -> None:
        asking = self.ask()
        self.inner.answer(Response(200))
        self.successResultOf(asking)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CancelTests(FailoverCase):
    """
    The client leaves before the head.
    """

    def test_underWay(self) -> None:
        asking = self.ask()
        asking.cancel()
        self.assertEqual(self.inner.cancelled, [b"https://first.example/v2/a"])
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(len(self.inner.asked), 1)
        self.assertEqual(self.exchange.failures, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_keptAnswer(self) -> None:
        asking = self.ask()
        first = self.inner.answer(Response(503))
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.inner.cancelled, [b"https://second.example/v2/a"])
        self.assertEqual(first.state, "flowing")


class RedirectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inner = RecordingAgent()
        self.exchange = newExchange()
        self.agent = RedirectAgent(self.clock, self.inner, self.exchange)
        self.headers = Headers(
            {b"Authorization": [b"Bearer x"], b"Cookie": [b"a=b"], b"Range": [b"bytes=5-"]}
        )

    def ask(
        self, method: bytes = b"GET", uri: bytes = b"https://hub.example/v2/a/b?c", body: Any = None
    ) -> Deferred[Any]:
        return self.agent.request(method, uri, self.headers, body)

    def redirect(self, *locations: bytes, status: int = 307) -> Response:
        return self.inner.answer(Response(status, Location=list(locations)))

    def test_statuses(self) -> None:
        for status in (301, 302, 303, 307, 308):
            for method in (b"GET", b"HEAD"):
                self.setUp()
                asking = self.ask(method)
                redirect = self.redirect(b"https://cdn.example/x", status=status)
                self.assertEqual(redirect.state, "flowing")
                asked = self.inner.asked[1]
                self.assertEqual((asked.method, asked.uri), (method, b"https://cdn.example/x"))
                response = self.inner.answer(Response(200))
                self.assertIs(self.successResultOf(asking), response)
                self.assertEqual(self.exchange.redirects, 1)

    def test_others(self) -> None:
        """Other statuses are not redirects to follow, even with C{Location}."""
        for status in (200, 201, 202, 300, 304, 305, 306, 401, 404):
            self.setUp()
            asking = self.ask()
            response = self.redirect(b"https://cdn.example/x", status=status)
            self.assertIs(self.successResultOf(asking), response)
            self.assertEqual(response.state, "waiting")

    def test_pushes(self) -> None:
        """
        Redirects of pushes are not followed: the C{Location} of an upload is for the client, and a
        body can't be sent again.
        """
        for method, body in (
            (b"POST", None),
            (b"PUT", object()),
            (b"PATCH", object()),
            (b"DELETE", None),
            (b"OPTIONS", None),
            (b"GET", object()),
        ):
            self.setUp()
            asking = self.ask(method, body=body)
            response = self.redirect(b"https://cdn.example/x")
            self.assertIs(self.successResultOf(asking), response)
            self.assertEqual(len(self.inner.asked), 1)

    def test_ten(self) -> None:
        asking = self.ask()
        for number in range(10):
            self.redirect(b"https://cdn.example/%d" % number)
        response = self.inner.answer(Response(200))
        self.assertIs(self.successResultOf(asking), response)
        self.assertEqual(self.exchange.redirects, 10)

    def test_eleven(self) -> None:
        asking = self.ask()
        for number in range(11):
            last = self.redirect(b"https://cdn.example/%d" % number)
        error = self.failureResultOf(asking, RedirectRefused).value
        self.assertEqual((error.status, error.message), (502, "more than 10 redirects"))
        self.assertEqual(len(self.inner.asked), 11)
        self.assertEqual(last.state, "flowing")

    def test_relative(self) -> None:
        for location, uri in (
            (b"/x?y", b"https://hub.example/x?y"),
            (b"x", b"https://hub.example/v2/a/x"),
            (b"../x", b"https://hub.example/v2/x"),
            (b"?x=%2f", b"https://hub.example/v2/a/b?x=%2f"),
            (b"//cdn.example/x", b"https://cdn.example/x"),
            (b"HTTPS://CDN.Example:443/X#part", b"HTTPS://CDN.Example:443/X"),
        ):
            self.setUp()
            self.ask()
            self.redirect(location)
            self.assertEqual(self.inner.uris[1:], [uri])

    def test_credentials(self) -> None:
        """Credentials are sent only to their origin, which includes scheme and port."""
        for location, kept in (
            (b"/x", True),
            (b"https://hub.example:443/x", True),
            (b"https://HUB.example/x", True),
            (b"https://hub.example:8443/x", False),
            (b"https://sub.hub.example/x", False),
            (b"https://cdn.example/x", False),
        ):
            self.setUp()
            self.ask()
            self.redirect(location)
            headers = self.inner.asked[1].headers
            for name in (b"Authorization", b"Cookie"):
                self.assertEqual(headers.hasHeader(name), kept, location)
            self.assertEqual(headers.getRawHeaders(b"Range"), [b"bytes=5-"])
        self.assertTrue(self.headers.hasHeader(b"Authorization"), "the caller's own were changed")

    def test_refused(self) -> None:
        for locations in (
            [],
            [b"https://a.example/", b"https://a.example/"],
            [b"http://hub.example/x"],
            [b"ftp://hub.example/x"],
            [b"file:///etc/passwd"],
            [b"https://user:secret@hub.example/x"],
            [b"https://"],
            [b"https://hub.example:99999/"],
            [b"https://hub example/"],
            [b"https://[::1/"],
        ):
            self.setUp()
            asking = self.ask()
            response = self.redirect(*locations)
            error = self.failureResultOf(asking, RedirectRefused).value
            self.assertEqual(error.status, 502)
            self.assertNotIn("secret", error.message)
            self.assertEqual(len(self.inner.asked), 1, locations)
            self.assertEqual(response.state, "flowing")

    def test_upgrade(self) -> None:
        """A redirect from http to https is followed."""
        self.ask(uri=b"http://hub.example/x")
        self.redirect(b"https://hub.example/x")
        self.assertEqual(len(self.inner.asked), 2)

    def test_cancel(self) -> None:
        asking = self.ask()
        self.redirect(b"https://cdn.example/x")
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.inner.cancelled, [b"https://cdn.example/x"])


CONNECTOR: Any = object()


class FakePool:
    """
    A pool that returns one response, and records the requests.
    """

    def __init__(self, response: Response) -> None:
        self.response = response
        self.asked: list[tuple[Any, ...]] = []

    def request(self, *asked: Any) -> Deferred[Response]:
        self.asked.append(asked)
        return succeed(self.response)


class OriginTests(SynchronousTestCase):
    def test_origin(self) -> None:
        pool = FakePool(Response())
        headers = Headers()
        asking = OriginAgent(Clock(), pool, CONNECTOR).request(
            b"GET", b"HTTPS://Hub.Example:444/a%2F?b#c?", headers
        )
        self.assertIs(self.successResultOf(asking), pool.response)
        [asked] = pool.asked
        origin = Origin(b"https", b"hub.example", 444)
        self.assertEqual(asked, (CONNECTOR, origin, b"GET", b"/a%2F?b#c?", headers, None))

    def test_coding(self) -> None:
        """
        The bytes of a response with an unrequested content coding would be taken for the blob.
        """
        for value in (b"gzip", b"identity, br", b"x"):
            response = Response(Content_Encoding=value)
            asking = OriginAgent(Clock(), FakePool(response), CONNECTOR).request(
                b"GET", b"https://a.example/"
            )
            self.assertEqual(self.failureResultOf(asking, CodingRefused).value.status, 502)
            self.assertEqual(response.state, "flowing")

    def test_identity(self) -> None:
        for value in (b"identity", b"Identity", b""):
            response = Response(Content_Encoding=value)
            asking = OriginAgent(Clock(), FakePool(response), CONNECTOR).request(
                b"GET", b"https://a.example/"
            )
            self.assertIs(self.successResultOf(asking), response)


class AskTests(SynchronousTestCase):
    """
    Tests that treq changes nothing in either direction.
    """

    def ask(self, inner: RecordingAgent, *args: Any, **kwargs: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(ask(Clock(), inner, *args, **kwargs))

    def test_request(self) -> None:
        inner = RecordingAgent()
        headers = Headers({b"X-One": [b"caf\xe9"]})
        body = FileBodyProducer(BytesIO(b"12345"))
        for method, sent in ((b"GET", None), (b"PUT", body)):
            self.ask(inner, method, b"/a%zz?#;", headers, sent)
            asked = inner.asked[-1]
            self.assertEqual((asked.method, asked.uri), (method, b"/a%zz?#;"))
            self.assertIs(asked.body, sent)
            self.assertIs(asked.headers, headers)
            self.assertEqual(list(headers.getAllRawHeaders()), [(b"X-One", [b"caf\xe9"])])

    def test_answer(self) -> None:
        """
        The response is returned unchanged: treq does not decode it, follow redirects or read the
        body.
        """
        for response in (
            Response(200, Content_Encoding=b"gzip", Content_Length=b"5"),
            Response(302, Location=b"https://a.example/"),
            Response(302),
            Response(200, Set_Cookie=[b"a=b; Domain=x", b"\xff"]),
        ):
            inner = RecordingAgent()
            asking = self.ask(inner, b"GET", b"/", Headers())
            before = list(response.headers.getAllRawHeaders())
            inner.answer(response)
            self.assertIs(self.successResultOf(asking), response)
            self.assertEqual(list(response.headers.getAllRawHeaders()), before)
            self.assertEqual(response.state, "waiting")

    def test_noCookies(self) -> None:
        """Cookies of one client are not sent with the requests of another."""
        inner = RecordingAgent()
        self.ask(inner, b"GET", b"/", Headers())
        inner.answer(Response(200, Set_Cookie=[b"session=secret; Path=/"]))
        headers = Headers()
        self.ask(inner, b"GET", b"/", headers)
        self.assertEqual(list(headers.getAllRawHeaders()), [])

    def test_failure(self) -> None:
        inner = RecordingAgent()
        asking = self.ask(inner, b"GET", b"/", Headers())
        inner.fail(ConnectFailed("refused"))
        self.failureResultOf(asking, ConnectFailed)

    def test_cancel(self) -> None:
        inner = RecordingAgent()
        asking = self.ask(inner, b"GET", b"/", Headers())
        asking.cancel()
        self.assertEqual(inner.cancelled, [b"/"])
        self.failureResultOf(asking, CancelledError)
