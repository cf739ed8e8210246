"""
Which upstreams are marked down, and for how long.
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
        """Nothing follows for other routes of it, or for other upstreams."""
        self.fails()
        self.assertIsNone(self.health.whyUnavailable(HUB, "blobs"))
        self.assertIsNone(self.health.whyUnavailable(OTHER, "registry"))

    def test_singleProbe(self) -> None:
        """When the time is over one request tries; the others go past until it knows."""
        self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)
        self.health.asked(HUB, "registry")
        self.assertTrue(self.leftAlone)

    def test_leaveIsNotUsedUp(self) -> None:
        """Who may try, but has his answer from another, leaves it to the next to try."""
        self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)
        self.assertFalse(self.leftAlone)

    def test_lostProbe(self) -> None:
        """A probe of which nobody hears again (its client left) is not the last one."""
        self.fails()
        self.clock.advance(2)
        self.health.asked(HUB, "registry")
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)

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
        """Requests that were under way when it died are one failure, not ten."""
        for _ in range(10):
            self.health.asked(HUB, "registry")
        for _ in range(10):
            self.fails()
        self.clock.advance(2)
        self.assertFalse(self.leftAlone)

    def test_back(self) -> None:
        """After an answer all is forgotten: the next time begins with two seconds."""
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
        """Answers to other requests that are under way don't make good that one was wrong."""
        self.health.corrupted(HUB, "blobs")
        self.health.served(HUB, "blobs")
        self.clock.advance(59.9)
        self.assertIsNotNone(self.health.whyUnavailable(HUB, "blobs"))
        self.clock.advance(0.1)
        self.assertIsNone(self.health.whyUnavailable(HUB, "blobs"))

    def test_toldOnce(self) -> None:
        """What happened is in the log once, not once a request."""
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
