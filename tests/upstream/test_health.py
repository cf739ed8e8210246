"""
Tests of which upstreams are marked down, and for how long.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Upstream

HUB, OTHER = Upstream("hub", {}), Upstream("other", {})


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.health = Health(self.clock)

    def fails(self) -> None:
        self.health.failed(HUB, "registry", "connection refused")

    @property
    def leftAlone(self) -> bool:
        return self.health.whyUnavailable(HUB, "registry") is not None

    def test_unknown(self) -> None:
        self.assertFalse(self.leftAlone)
        self.health.asked(HUB, "registry")
        self.assertFalse(self.leftAlone)

    def test_failed(self) -> None:
        self.fails()
        self.assertTrue(self.leftAlone)
        self.clock.advance(1.9)
        self.assertTrue(self.leftAlone)
        self.clock.advance(0.1)
        self.assertFalse(self.leftAlone)

    def test_others(self) -> None:
        """Other routes and other upstreams are not affected."""
        self.fails()
        self.assertIsNone(self.health.whyUnavailable(HUB, "blobs"))
        self.assertIsNone(self.health.whyUnavailable(OTHER, "registry"))

    def test_singleProbe(self) -> None:
        """
        When the time is over, one request probes the upstream; others skip it until the result is
        known.
        """
        self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)
        self.health.asked(HUB, "registry")
        self.assertTrue(self.leftAlone)

    def test_leaveIsNotUsedUp(self) -> None:
        """
        A request that may probe, but is served by another upstream, leaves the probe to the next
        one.
        """
        self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)
        self.assertFalse(self.leftAlone)

    def test_lostProbe(self) -> None:
        """If the result of a probe never becomes known, there will be another."""
        self.fails()
        self.clock.advance(2)
        self.health.asked(HUB, "registry")
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)

    def test_gaveUp(self) -> None:
        """
        If the client of a probe leaves, there is another probe soon, however long the mark lasts.
        """
        for _ in range(6):
            self.health.asked(HUB, "registry")
            self.fails()
            self.clock.advance(60)
        gaveUp = self.health.asked(HUB, "registry")
        self.clock.advance(1)
        gaveUp()
        self.clock.advance(1.9)
        self.assertTrue(self.leftAlone)
        self.clock.advance(0.1)
        self.assertFalse(self.leftAlone)

    def test_gaveUpWithoutEffect(self) -> None:
        """A client that leaves does not end the time of a failure or of another probe."""
        early = self.health.asked(HUB, "registry")
        self.fails()
        during = self.health.asked(HUB, "registry")
        for gaveUp in (early, during):
            gaveUp()
            self.assertTrue(self.leftAlone)
        self.clock.advance(2)
        lost = self.health.asked(HUB, "registry")
        self.clock.advance(2)
        self.health.asked(HUB, "registry")
        lost()
        self.assertTrue(self.leftAlone)
        failed = self.health.asked(HUB, "registry")
        self.fails()
        failed()
        self.assertTrue(self.leftAlone)

    def test_grows(self) -> None:
        times = []
        for _ in range(8):
            self.health.asked(HUB, "registry")
            self.fails()
            started = self.clock.seconds()
            while self.leftAlone:
                self.clock.advance(1)
            times.append(self.clock.seconds() - started)
        self.assertEqual(times, [2, 4, 8, 16, 32, 60, 60, 60])

    def test_manyAtOnce(self) -> None:
        """Several requests that were in progress when the upstream failed count as one failure."""
        for _ in range(10):
            self.health.asked(HUB, "registry")
        for _ in range(10):
            self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)

    def test_back(self) -> None:
        """A response resets everything: the next failure lasts two seconds again."""
        for _ in range(3):
            self.health.asked(HUB, "registry")
            self.fails()
        self.clock.advance(8)
        self.health.asked(HUB, "registry")
        self.health.served(HUB, "registry")
        self.assertFalse(self.leftAlone)
        self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)

    def test_wrongBytes(self) -> None:
        """Responses to other requests do not reset the state after wrong bytes."""
        self.health.corrupted(HUB, "blobs")
        self.health.served(HUB, "blobs")
        self.clock.advance(59.9)
        self.assertIsNotNone(self.health.whyUnavailable(HUB, "blobs"))
        self.clock.advance(0.1)
        self.assertIsNone(self.health.whyUnavailable(HUB, "blobs"))

    def test_timeouts(self) -> None:
        """
        A sequence of events, and whether the upstream is then marked down.  A number is a target
        whose response head was not received in time; C{"ok"} is a response.
        """
        for events, down in (
            ((1,), False),
            ((1, 2), False),
            ((1, 2, 3), True),
            ((1, 1, 1, 1), False),
            ((1, 2, 1, 2, 1), False),
            ((1, 2, 2, 1, 3), True),
            ((1, 2, "ok", 3), False),
            ((1, 2, "ok", 3, 4), False),
            ((1, 2, "ok", 3, 4, 5), True),
            ((1, "ok", 2, "ok", 3, "ok", 4), False),
        ):
            self.setUp()
            for event in events:
                self.health.asked(HUB, "registry")
                self.clock.advance(1)
                if event == "ok":
                    self.health.served(HUB, "registry")
                else:
                    self.timesOut(event)
            self.assertEqual(self.leftAlone, down, events)

    def timesOut(self, target: object, after: float = 1.0) -> None:
        """Let a request time out after some seconds, which are over then."""
        since = self.clock.seconds() - after
        self.health.timedOut(HUB, "registry", b"%a" % target, since, "no response head")

    def test_answeredMeanwhile(self) -> None:
        """A response to a request that was sent later shows that only these requests are slow."""
        for _ in range(10):
            self.health.asked(HUB, "registry")
        self.clock.advance(1)
        self.health.served(HUB, "registry")
        self.clock.advance(8)
        for target in range(9):
            self.timesOut(target, after=9)
        self.assertFalse(self.leftAlone)

    def test_otherRoutes(self) -> None:
        """Timeouts of different routes are not added."""
        self.clock.advance(1)
        for target, route in enumerate(("registry", "registry", "blobs", "blobs", "token")):
            self.health.timedOut(HUB, route, b"%d" % target, 0.0, "no response head")
        for route in ("registry", "blobs", "token"):
            self.assertIsNone(self.health.whyUnavailable(HUB, route))

    def probeTimesOut(self, target: object) -> float:
        """
        Let the time of an upstream that is marked down end, and a probe fail.

        @return: for how many seconds it is marked down then.
        """
        self.assertFalse(self.leftAlone)
        self.health.asked(HUB, "registry")
        self.clock.advance(4)
        self.timesOut(target, after=4)
        started = self.clock.seconds()
        while self.leftAlone:
            self.clock.advance(1)
        return self.clock.seconds() - started

    def test_slowProbe(self) -> None:
        """A single slow probe does not double the time; several do."""
        self.fails()
        self.clock.advance(2)
        times = [self.probeTimesOut("same") for _ in range(4)]
        times += [self.probeTimesOut(target) for target in range(4)]
        self.assertEqual(times, [2, 2, 2, 2, 2, 4, 4, 4])
        self.health.asked(HUB, "registry")
        self.health.served(HUB, "registry")
        self.assertFalse(self.leftAlone)

    def test_lateTimeouts(self) -> None:
        """
        Requests that were in progress when the upstream was marked down do not prolong the time.
        """
        self.fails()
        self.clock.advance(1)
        for target in range(5):
            self.timesOut(target)
        self.clock.advance(1)
        self.assertFalse(self.leftAlone)

    def test_notConfirmed(self) -> None:
        """
        A failure that nothing confirms for a minute after the time of its mark is no longer shown:
        nobody may request anything of that route again.
        """
        self.health.failed(HUB, "blobs", "connection refused")
        self.clock.advance(61.9)
        self.assertEqual(self.health.outages(HUB), {"blobs": (0.0, "connection refused")})
        self.assertFalse(self.health.isUp(HUB))
        self.clock.advance(0.1)
        self.assertEqual(self.health.outages(HUB), {})
        self.assertTrue(self.health.isUp(HUB))

    def test_confirmed(self) -> None:
        """An outage is shown for as long as each probe fails, since its beginning."""
        for _ in range(20):
            self.health.asked(HUB, "registry")
            self.fails()
            self.assertEqual(self.health.outages(HUB), {"registry": (0.0, "connection refused")})
            self.assertFalse(self.health.isUp(HUB))
            while self.leftAlone:
                self.clock.advance(1)
            self.clock.advance(30)

    def test_needed(self) -> None:
        """An upstream is up if all routes are that pulls need, which a search is not."""
        for route, isUp in (("search", True), ("registry", False), ("token", False)):
            self.setUp()
            self.health.failed(HUB, route, "connection refused")
            self.assertEqual(self.health.isUp(HUB), isUp, route)
            self.assertEqual([*self.health.outages(HUB)], [route])
            self.assertTrue(self.health.isUp(OTHER))

    def test_toldOnce(self) -> None:
        """An event is logged once, not once for each request."""
        with capturedLogs() as events:
            for _ in range(5):
                self.health.asked(HUB, "registry")
                self.fails()
            for _ in range(5):
                self.health.asked(HUB, "registry")
                self.health.served(HUB, "registry")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "hub (registry) is marked down: connection refused",
                "hub (registry) is up again",
            ],
        )
