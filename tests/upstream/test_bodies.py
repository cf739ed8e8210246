"""
Tests of small bodies, and of the detection of stalls.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from hubmirror.protocol.errors import BodyFailed
from hubmirror.upstream.bodies import (
    DISCARD_TIME,
    MAX_SHORT_BODY,
    StallWatch,
    discard,
    readShortBody,
)
from tests.upstream.support import Response


class ReadSmallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.response = Response()

    def read(self) -> Deferred[bytes]:
        return readShortBody(self.response, self.clock, 5)

    def test_whole(self) -> None:
        reading = self.read()
        self.response.gives(b"123")
        self.response.gives(b"45")
        self.assertNoResult(reading)
        self.response.ends()
        self.assertEqual(self.successResultOf(reading), b"12345")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_empty(self) -> None:
        reading = self.read()
        self.response.ends()
        self.assertEqual(self.successResultOf(reading), b"")

    def test_untilClose(self) -> None:
        """A body without a length ends with its connection."""
        reading = self.read()
        self.response.gives(b"1")
        self.response.ends(PotentialDataLoss())
        self.assertEqual(self.successResultOf(reading), b"1")

    def test_broken(self) -> None:
        reading = self.read()
        self.response.gives(b"1")
        self.response.ends(BodyFailed("closed"))
        self.failureResultOf(reading, BodyFailed)

    def test_largest(self) -> None:
        reading = self.read()
        self.response.gives(b"x" * MAX_SHORT_BODY)
        self.response.ends()
        self.assertEqual(len(self.successResultOf(reading)), MAX_SHORT_BODY)

    def test_tooLarge(self) -> None:
        """A body that is too large is not read to its end, and not returned."""
        reading = self.read()
        self.response.gives(b"x" * MAX_SHORT_BODY)
        self.response.gives(b"x")
        self.assertEqual(self.response.state, "stopped")
        self.response.ends(ResponseDone())
        self.failureResultOf(reading, BodyFailed)

    def test_tooSlow(self) -> None:
        reading = self.read()
        for _ in range(4):
            self.clock.advance(1)
            self.response.gives(b"x")
        self.assertNoResult(reading)
        self.clock.advance(1)
        error = self.failureResultOf(reading, BodyFailed).value
        self.assertIn("5 s", error.message)
        self.assertEqual(self.response.state, "stopped")

    def test_cancel(self) -> None:
        reading = self.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertEqual(self.response.state, "stopped")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DiscardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.response = Response()
        discard(self.response, self.clock)

    def test_short(self) -> None:
        """A short body is read to its end, so that its connection can be kept."""
        self.response.gives(b"x" * MAX_SHORT_BODY)
        self.assertEqual(self.response.state, "flowing")
        self.response.ends()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken(self) -> None:
        """An error while discarding a body is ignored."""
        self.response.ends(BodyFailed("closed"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_long(self) -> None:
        """A long body is not read, because that would cost more than a new connection."""
        self.response.gives(b"x" * MAX_SHORT_BODY)
        self.response.gives(b"x")
        self.assertEqual(self.response.state, "stopped")

    def test_endless(self) -> None:
        """A body is not read for longer than a limit, however often a byte arrives."""
        for _ in range(4):
            self.clock.advance(DISCARD_TIME / 4 - 0.01)
            self.response.gives(b"x")
        self.assertEqual(self.response.state, "flowing")
        self.clock.advance(0.04)
        self.assertEqual(self.response.state, "stopped")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StallCase(SynchronousTestCase):
    """
    Tests with fifteen seconds, and a minimum of a hundred bytes per second.
    """

    SECONDS, FLOOR = 15.0, 100.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.stalls: list[float] = []
        self.watch = StallWatch(
            self.clock, self.SECONDS, self.FLOOR, lambda: self.stalls.append(self.clock.seconds())
        )


class StallTests(StallCase):
    def test_notStarted(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watch.stop()

    def test_nothing(self) -> None:
        self.watch.start()
        self.clock.advance(14.9)
        self.assertEqual(self.stalls, [])
        self.clock.advance(0.1)
        self.assertEqual(self.stalls, [15])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_afterABit(self) -> None:
        """The time counts from the last byte, however many there were before."""
        self.watch.start()
        self.clock.advance(14)
        self.watch.received(10**9)
        self.clock.pump([0.5] * 29)
        self.assertEqual(self.stalls, [])
        self.clock.advance(0.5)
        self.assertEqual(self.stalls, [29])

    def test_floor(self) -> None:
        """Bytes that keep arriving, but too slowly, count as a stall."""
        self.watch.start()
        for _ in range(14):
            self.clock.advance(1)
            self.watch.received(100)
        self.watch.received(99)
        self.assertEqual(self.stalls, [])
        self.clock.advance(1)
        self.assertEqual(self.stalls, [15])

    def test_atTheFloor(self) -> None:
        self.watch.start()
        for _ in range(100):
            self.watch.received(100)
            self.clock.advance(1)
        self.assertEqual(self.stalls, [])

    def test_fallsBelowTheFloor(self) -> None:
        """Fast bytes at the beginning do not make up for slow ones later."""
        self.watch.start()
        self.watch.received(10**9)
        for _ in range(29):
            self.clock.advance(1)
            self.watch.received(1)
        self.assertEqual(self.stalls, [])
        self.clock.advance(1)
        self.assertEqual(self.stalls, [30])

    def test_noFloor(self) -> None:
        self.watch = StallWatch(self.clock, self.SECONDS, 0, lambda: self.stalls.append(0))
        self.watch.start()
        for _ in range(100):
            self.clock.advance(14)
            self.watch.received(1)
        self.assertEqual(self.stalls, [])

    def test_stop(self) -> None:
        self.watch.start()
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watch.stop()

    def test_startAgain(self) -> None:
        """A new connection has the full time again, and there is still only one timer."""
        self.watch.start()
        self.clock.advance(14)
        self.watch.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(14)
        self.assertEqual(self.stalls, [])
        self.clock.advance(1)
        self.assertEqual(self.stalls, [29])

    def test_paused(self) -> None:
        """While the body is paused, there is no stall."""
        self.watch.start()
        self.watch.pause()
        self.clock.pump([100] * 100)
        self.assertEqual(self.stalls, [])

    def test_resumed(self) -> None:
        """After it is resumed, the upstream has the full time again."""
        self.watch.start()
        self.clock.advance(14)
        self.watch.pause()
        self.clock.advance(1000)
        self.watch.resume()
        self.clock.advance(14.9)
        self.assertEqual(self.stalls, [])
        self.clock.advance(0.1)
        self.assertEqual(self.stalls, [1029])

    def test_pausedBeforeTheStart(self) -> None:
        """The body may be paused when a new connection takes over."""
        self.watch.pause()
        self.watch.start()
        self.clock.pump([10] * 10)
        self.assertEqual(self.stalls, [])

    def test_resumedTwice(self) -> None:
        """Resuming a body that is not paused does not extend the time."""
        self.watch.start()
        for _ in range(14):
            self.clock.advance(1)
            self.watch.resume()
        self.clock.advance(1)
        self.assertEqual(self.stalls, [15])


#: Events between two checks, and the time until the next one.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["pause", "resume", "nothing"]) | st.integers(0, 2000),
        st.floats(0.01, 20),
    ),
    max_size=40,
)


class AnyOrderTests(StallCase):
    @given(STEPS)
    def test_anyOrder(self, steps: list[tuple[Any, float]]) -> None:
        """
        There is a stall only after fifteen seconds in which the upstream could send but sent
        nothing or too little, and always after fifteen seconds in which it sent nothing.
        """
        self.setUp()
        self.watch.start()
        paused = False
        free, got = 0.0, [(0.0, 0)]
        for what, seconds in steps:
            if what == "pause":
                paused = True
                self.watch.pause()
            elif what == "resume":
                if paused:
                    free, got = self.clock.seconds(), []
                paused = False
                self.watch.resume()
            elif what != "nothing" and not paused and what:
                got.append((self.clock.seconds(), what))
                self.watch.received(what)
            self.clock.advance(seconds)
            if self.stalls:
                [at] = self.stalls
                self.assertFalse(paused)
                self.assertGreaterEqual(at - free, self.SECONDS)
                recent = sum(size for time, size in got if time > at - self.SECONDS)
                self.assertLess(recent, self.SECONDS * self.FLOOR)
                self.assertEqual(self.clock.getDelayedCalls(), [])
                return
            last = max([free] + [time for time, _ in got])
            if not paused:
                self.assertLess(self.clock.seconds() - last, self.SECONDS)
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
