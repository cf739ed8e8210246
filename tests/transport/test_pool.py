"""Connections are kept, used again, and ended when nobody needs them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import ConnectFailed, HeadFailed, StaleConnection
from hubmirror.protocol.url import Origin
from hubmirror.transport.http1client import UpstreamResponse
from hubmirror.transport.pool import MAX_IDLE, Pool
from tests.transport.support import Body
from tests.wire.support import Line, Network

HUB = Origin(b"https", b"registry-1.docker.io", 443)
CDN = Origin(b"https", b"cdn.example", 443)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
IDLE = 75.0


class PoolCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.pool = Pool(self.clock, self.network, IDLE)  # type: ignore[arg-type]

    @property
    def lines(self) -> list[Line]:
        return self.network.lines

    def send(
        self, origin: Origin = HUB, method: bytes = b"GET", body: Any = None
    ) -> Deferred[UpstreamResponse]:
        return self.pool.request(origin, method, b"/v2/", Headers(), body)

    def ask(self, line: int = 0, origin: Origin = HUB) -> None:
        """Ask, and answer on the line on which that must have come."""
        asked = self.send(origin)
        self.assertIn(b"GET /v2/ ", self.lines[line].hears())
        self.lines[line].says(OK)
        self.assertEqual(self.successResultOf(asked).code, 200)

    def keep(self, number: int) -> None:
        """Have some connections that are idle."""
        asked = [self.send() for _ in range(number)]
        for line in self.lines:
            line.hears()
            line.says(OK)
        for each in asked:
            self.successResultOf(each)

    def leave(self, line: int) -> None:
        self.lines[line].leaves()
        self.clock.advance(0)


class ReuseTests(PoolCase):
    def test_oneAfterAnother(self) -> None:
        """Twenty manifests need one connection."""
        for _ in range(20):
            self.ask()
        self.assertEqual(len(self.lines), 1)

    def test_host(self) -> None:
        self.send(Origin(b"http", b"::1", 5000))
        self.assertEqual(self.lines[0].hears(), b"GET /v2/ HTTP/1.1\r\nHost: [::1]:5000\r\n\r\n")

    def test_latestFirst(self) -> None:
        """Those that are not needed grow old."""
        self.keep(3)
        self.ask(line=2)
        self.ask(line=2)
        self.assertEqual(len(self.lines), 3)

    def test_originsApart(self) -> None:
        self.ask()
        for line, origin in (
            (1, CDN),
            (2, CDN._replace(port=8443)),
            (3, CDN._replace(scheme=b"http")),
            (0, HUB),
            (1, CDN),
        ):
            self.ask(line, origin)

    def test_bound(self) -> None:
        """As many as are allowed stay open; one more is closed when its answer is done."""
        self.keep(MAX_IDLE + 1)
        ended = [line.ended for line in self.lines]
        self.assertEqual(ended, [""] * MAX_IDLE + ["aborted"])
        self.clock.advance(0)
        self.ask(line=MAX_IDLE - 1)

    def test_connectFails(self) -> None:
        self.network.refuses.add(HUB.host)
        self.failureResultOf(self.send(), ConnectFailed)


class ExpiryTests(PoolCase):
    def test_idle(self) -> None:
        self.ask()
        self.clock.advance(IDLE - 1)
        self.assertEqual(self.lines[0].ended, "")
        self.clock.advance(1)
        self.assertEqual(self.lines[0].ended, "aborted")
        self.ask(line=1)

    def test_usedAgain(self) -> None:
        """The time begins anew with each use, and does not run meanwhile."""
        self.ask()
        self.clock.advance(IDLE - 1)
        asked = self.send()
        self.clock.advance(IDLE)
        self.lines[0].says(OK)
        self.successResultOf(asked)
        self.clock.advance(IDLE - 1)
        self.assertEqual(self.lines[0].ended, "")

    def test_closedByUpstream(self) -> None:
        self.keep(2)
        self.leave(1)
        self.ask(line=0)
        self.leave(0)
        self.ask(line=2)

    def test_noTimerLeft(self) -> None:
        self.keep(2)
        self.leave(0)
        self.leave(1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StaleTests(PoolCase):
    def test_askedAgain(self) -> None:
        """On a new connection: others that were kept may have gone in the same moment."""
        for number, method in enumerate((b"GET", b"HEAD", b"OPTIONS", b"DELETE")):
            self.setUp()
            self.keep(2)
            asked = self.send(method=method)
            self.leave(1)
            self.assertEqual(len(self.lines), 3, number)
            self.lines[2].says(OK)
            self.assertEqual(self.successResultOf(asked).code, 200)

    def test_once(self) -> None:
        self.keep(1)
        asked = self.send()
        self.leave(0)
        self.leave(1)
        self.failureResultOf(asked, HeadFailed)
        self.assertEqual(len(self.lines), 2)

    def test_notTwice(self) -> None:
        """What must not happen twice is not asked twice."""
        for method, body in ((b"POST", None), (b"PATCH", Body(None)), (b"GET", Body(1))):
            self.setUp()
            self.keep(1)
            asked = self.send(method=method, body=body)
            self.leave(0)
            self.failureResultOf(asked, StaleConnection)
            self.assertEqual(len(self.lines), 1)

    def test_afterAByte(self) -> None:
        self.keep(1)
        asked = self.send()
        self.lines[0].says(b"H")
        self.leave(0)
        self.failureResultOf(asked, HeadFailed)
        self.assertEqual(len(self.lines), 1)


class CloseTests(PoolCase):
    def test_none(self) -> None:
        self.successResultOf(self.pool.close())

    def test_all(self) -> None:
        """Idle and busy ones; it waits until they are gone."""
        self.keep(2)
        asked = self.send()
        closing = self.pool.close()
        self.assertEqual([line.ended for line in self.lines], ["aborted", "aborted"])
        self.assertNoResult(closing)
        self.clock.advance(0)
        self.successResultOf(closing)
        self.failureResultOf(asked, HeadFailed)
        self.assertEqual((len(self.lines), self.clock.getDelayedCalls()), (2, []))

    def test_noneKept(self) -> None:
        """A request that begins while the pool closes leaves no connection behind."""
        self.pool.close()
        asked = self.send()
        self.lines[0].says(OK)
        self.successResultOf(asked)
        self.assertEqual(self.lines[0].ended, "aborted")
