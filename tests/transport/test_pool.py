"""Tests of the pool: connections are kept, reused, and closed when they are not needed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import ConnectFailed, HeadFailed, LocalFailure, StaleConnection
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
        self.pool = Pool(self.clock, IDLE, 1000)

    @property
    def lines(self) -> list[Line]:
        return self.network.lines

    def send(
        self, origin: Origin = HUB, method: bytes = b"GET", body: Any = None
    ) -> Deferred[UpstreamResponse]:
        connector: Any = self.network
        return self.pool.request(connector, origin, method, b"/v2/", Headers(), body)

    def ask(self, line: int = 0, origin: Origin = HUB) -> None:
        """Send a request, and respond on the given connection, on which it must have been sent."""
        asked = self.send(origin)
        self.assertIn(b"GET /v2/ ", self.lines[line].hears())
        self.lines[line].says(OK)
        self.assertEqual(self.successResultOf(asked).code, 200)

    def keep(self, number: int) -> None:
        """Have a number of idle connections."""
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
        """The latest connection is reused first, so that those that are not needed become old."""
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
        """
        As many idle connections as allowed stay open; a further one is closed after its response.
        """
        self.keep(MAX_IDLE + 1)
        ended = [line.ended for line in self.lines]
        self.assertEqual(ended, [""] * MAX_IDLE + ["aborted"])
        self.clock.advance(0)
        self.ask(line=MAX_IDLE - 1)

    def test_connectorIsReleased(self) -> None:
        """After a reload, nothing keeps the connectors of the previous configuration."""
        connector: Any = Network(self.clock)
        for _ in range(2):
            asked = self.pool.request(connector, HUB, b"GET", b"/", Headers(), None)
            connector.lines[0].says(OK)
            self.successResultOf(asked)
        asked = self.pool.request(connector, HUB, b"GET", b"/", Headers(), None)
        connector.lines[0].leaves()
        connector.refuses.add(HUB.host)
        self.clock.advance(0)
        self.failureResultOf(asked, ConnectFailed)
        self.assertEqual(len(connector.lines), 1)
        released = weakref.ref(connector)
        del connector, asked
        gc.collect()
        self.assertIsNone(released())

    def test_connectFails(self) -> None:
        self.network.refuses.add(HUB.host)
        self.failureResultOf(self.send(), ConnectFailed)


class LimitTests(PoolCase):
    """Tests of the limit for the connections to all origins together."""

    MOST = 4

    def setUp(self) -> None:
        super().setUp()
        self.pool = Pool(self.clock, IDLE, self.MOST, 2)

    def origin(self, number: int) -> Origin:
        return HUB._replace(port=number)

    def visit(self, *numbers: int) -> None:
        """Send requests to some origins on new connections, which become idle."""
        for number in numbers:
            asked = self.send(self.origin(number))
            self.lines[-1].says(OK)
            self.successResultOf(asked)
            self.clock.advance(1)

    def openTo(self) -> list[int]:
        """The origins of the open connections."""
        pairs = zip(self.network.origins, self.lines, strict=True)
        return [origin.port for origin, line in pairs if not line.ended]

    def test_manyOrigins(self) -> None:
        """
        A connection to another origin closes the one that has been idle for longest, to any origin.
        """
        self.visit(1, 2, 3, 4)
        self.assertEqual(self.pool.connections, 4)
        self.visit(5)
        self.assertEqual(self.openTo(), [2, 3, 4, 5])
        self.assertEqual(self.pool.connections, 4)
        asked = self.send(self.origin(2))
        self.lines[1].says(OK)
        self.successResultOf(asked)
        self.visit(6)
        self.assertEqual(self.openTo(), [2, 4, 5, 6])

    def test_unlimitedOrigins(self) -> None:
        """Thousands of origins, each used once, leave nothing except the allowed connections."""
        self.visit(*range(1, 1001))
        self.assertEqual(self.openTo(), [997, 998, 999, 1000])
        self.assertEqual((len(self.pool._idle), len(self.pool._ending)), (4, 0))

    def test_busy(self) -> None:
        """Connections in use are not closed, and only a few can be opened beyond them."""
        asked = [self.send(self.origin(number)) for number in range(6)]
        refused = self.failureResultOf(self.send(self.origin(7)), LocalFailure).value
        self.assertEqual((refused.status, refused.fields), (503, ((b"Retry-After", b"5"),)))
        self.assertEqual(len(self.lines), 6)
        # A connection beyond the limit is not kept.
        for line, each in zip(self.lines, asked, strict=True):
            line.says(OK)
            self.successResultOf(each)
        self.clock.advance(0)
        self.assertEqual(self.openTo(), [2, 3, 4, 5])
        self.visit(7)
        self.assertEqual(self.openTo(), [3, 4, 5, 7])

    def test_opening(self) -> None:
        """A connection counts while it is being opened, and no longer when that fails."""
        opening: list[Deferred[Any]] = []

        async def connect(origin: Origin, released: object) -> Any:
            opening.append(Deferred())
            return await opening[-1]

        self.patch(self.network, "connect", connect)
        asked = [self.send(self.origin(number)) for number in range(6)]
        self.failureResultOf(self.send(self.origin(7)), LocalFailure)
        for each in opening:
            each.errback(ConnectFailed("connection refused"))
        for each in asked:
            self.failureResultOf(each, ConnectFailed)
        self.assertEqual(self.pool.connections, 0)

    def test_connectors(self) -> None:
        """Connections are not shared between connectors, which may trust different certificates."""
        self.ask()
        other: Any = Network(self.clock)
        self.pool.request(other, HUB, b"GET", b"/v2/", Headers(), None)
        self.assertEqual((len(other.lines), self.lines[0].hears()), (1, b""))
        self.assertEqual(self.pool.connections, 2)

    def test_close(self) -> None:
        """
        Closing also waits for a connection that was closed a moment ago because it could not be
        kept.
        """
        self.pool = Pool(self.clock, IDLE, 0, 1)
        asked = self.send()
        self.lines[0].says(OK)
        self.successResultOf(asked)
        self.assertEqual((self.openTo(), self.pool.connections), ([], 0))
        closing = self.pool.close()
        self.assertNoResult(closing)
        self.clock.advance(0)
        self.successResultOf(closing)


class ExpiryTests(PoolCase):
    def test_idle(self) -> None:
        self.ask()
        self.clock.advance(IDLE - 1)
        self.assertEqual(self.lines[0].ended, "")
        self.clock.advance(1)
        self.assertEqual(self.lines[0].ended, "aborted")
        self.ask(line=1)

    def test_usedAgain(self) -> None:
        """The timeout begins again with each use, and does not run during a request."""
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
        """
        The request is repeated on a new connection, because other idle ones may have been closed,
        too.
        """
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
        """A request that must not be sent twice is not repeated."""
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
        """Idle and busy connections are closed, and closing waits for them."""
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
