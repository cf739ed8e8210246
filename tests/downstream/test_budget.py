"""
Tests of the slots for requests that use an upstream, and of the order in which they are given.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.downstream import budget
from hubmirror.downstream.budget import Budget
from hubmirror.protocol.errors import Overloaded

TIMEOUT = 5.0


class BudgetCase(SynchronousTestCase):
    MOST, OF_CLIENT = 4, 3

    def setUp(self) -> None:
        self.clock = Clock()
        self.budget = Budget(self.clock, self.MOST, self.OF_CLIENT, TIMEOUT)
        self.served: list[str] = []

    def take(self, *clients: str) -> list[Deferred[None] | None]:
        """
        Ask for slots.

        @param clients: one item for each request, whose first letter is its client.
        """
        turns = []
        for client in clients:
            turn = self.budget.take(client[0])
            if turn is None:
                self.served.append(client)
            else:
                turn.addCallback(lambda _, client=client: self.served.append(client))
            turns.append(turn)
        return turns

    def leave(self, *clients: str) -> None:
        for client in clients:
            self.budget.leave(client, True)
        self.clock.advance(0)

    def assertServed(self, *clients: str) -> None:
        """Check which requests got slots since the last check, in this order."""
        self.assertEqual(self.served, list(clients))
        self.served.clear()

    def assertNothingLeft(self) -> None:
        self.clock.pump([10] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.budget.used, self.budget.waiting), (0, 0))
        for mapping in (self.budget._taken, self.budget._queues, self.budget._turns):
            self.assertEqual(len(mapping), 0)


class SlotTests(BudgetCase):
    def test_ofOneClient(self) -> None:
        """A client that has used up its share waits, while another one gets a slot at once."""
        self.take("a1", "a2", "a3", "a4", "b1")
        self.assertServed("a1", "a2", "a3", "b1")
        self.assertEqual((self.budget.used, self.budget.waiting), (4, 1))
        self.leave("b")
        self.assertServed()
        self.leave("a")
        self.assertServed("a4")
        self.leave("a", "a", "a")
        self.assertNothingLeft()

    def test_inAll(self) -> None:
        self.take("a1", "b1", "c1", "d1", "e1")
        self.assertServed("a1", "b1", "c1", "d1")
        self.leave("c")
        self.assertServed("e1")
        self.leave("a", "b", "d", "e")
        self.assertNothingLeft()

    def test_inTurn(self) -> None:
        """Clients get slots in turn, each for its oldest waiting request."""
        self.take("w1", "x1", "y1", "z1")
        self.served.clear()
        self.take("a1", "a2", "a3", "b1", "b2", "c1")
        self.leave("w", "x", "y", "z")
        self.assertServed("a1", "b1", "c1", "a2")
        self.leave("a", "b", "c", "a")
        self.assertServed("b2", "a3")
        self.leave("b", "a")
        self.assertNothingLeft()

    def test_flood(self) -> None:
        """A client with hundreds of waiting requests has no more turns than others."""
        self.take("w1", "x1", "y1", "z1", *["a"] * 300, "b1")
        self.served.clear()
        self.leave("w", "x")
        self.assertServed("a", "b1")

    def test_shareWhileWaiting(self) -> None:
        """A client that has used up its share is passed over until it gives a slot back."""
        self.take("a1", "a2", "a3", "a4", "a5", "x1", "b1", "c1")
        self.served.clear()
        self.leave("x")
        self.assertServed("b1")
        self.leave("a")
        self.assertServed("c1")
        self.leave("b")
        self.assertServed("a4")
        self.leave("c")
        self.assertServed()
        self.leave("a")
        self.assertServed("a5")

    def test_nextTurn(self) -> None:
        """A slot is given to the next request after its connection is closed or can be reused."""
        self.take("a1", "b1", "c1", "d1", "e1")
        for client, isWhole in (("a", False), ("b", True)):
            self.budget.leave(client, isWhole)
        self.take("f1")
        self.assertServed("a1", "b1", "c1", "d1")
        self.clock.advance(0)
        self.assertServed("e1", "f1")

    def test_atOnce(self) -> None:
        """
        If no request waits, a slot is free at once, except that of a response that was aborted.
        """
        self.take("a1", "a2", "a3", "b1")
        self.budget.leave("a", True)
        self.assertEqual(self.budget.used, 3)
        self.budget.leave("a", False)
        self.assertEqual(self.budget.used, 3)
        self.clock.advance(0)
        self.assertEqual(self.budget.used, 2)


class ChangeTests(BudgetCase):
    """The largest number of slots of one client changes while requests wait."""

    def test_lower(self) -> None:
        """A client that has too many slots gets no further one until it has given enough back."""
        self.take("a1", "a2", "a3", "a4", "b1", "b2")
        self.assertServed("a1", "a2", "a3", "b1")
        self.budget.mostOfClient = 1
        self.leave("a")
        self.assertServed()
        self.leave("a", "b")
        self.assertServed("b2")
        self.leave("a")
        self.assertServed("a4")
        self.leave("a", "b")
        self.assertNothingLeft()

    def test_lowerInTurn(self) -> None:
        """A client loses its turn when it may not have another slot."""
        self.take("a1", "b1", "c1", "d1", "a2", "e1")
        self.served.clear()
        self.budget.mostOfClient = 1
        self.leave("b")
        self.assertServed("e1")

    def test_higher(self) -> None:
        """Requests that wait already get the slots, in turn, before those that come later."""
        self.budget.mostOfClient = 1
        self.take("a1", "b1", "a2", "a3", "b2")
        self.assertServed("a1", "b1")
        self.budget.mostOfClient = 3
        self.assertServed("a2", "b2")
        self.leave("b")
        self.assertServed("a3")
        self.leave("a", "a", "a", "b")
        self.assertNothingLeft()


class WaitingTests(BudgetCase):
    MOST, OF_CLIENT = 1, 1

    def test_timeout(self) -> None:
        """A request that gets no slot in time is refused, and later ones move up."""
        self.take("a1")
        [first] = self.take("b1")
        self.clock.advance(TIMEOUT - 1)
        [second] = self.take("b2")
        self.clock.advance(1)
        assert first is not None and second is not None
        refused = self.failureResultOf(first, Overloaded).value
        self.assertEqual((refused.status, refused.fields), (503, ((b"Retry-After", b"5"),)))
        self.assertNoResult(second)
        self.leave("a")
        self.assertServed("a1", "b2")
        self.leave("b")
        self.assertNothingLeft()

    def test_clientLeaves(self) -> None:
        """When a waiting client leaves, its place is removed completely."""
        self.take("a1")
        turns = self.take("b1", "c1", "b2")
        for turn in turns[:2]:
            assert turn is not None
            turn.cancel()
            self.failureResultOf(turn, CancelledError)
        self.assertEqual(self.budget.waiting, 1)
        self.leave("a")
        self.assertServed("a1", "b2")
        self.leave("b")
        self.assertNothingLeft()
        self.assertEqual(self.budget.refusals.total, 0)

    def test_boundOfClient(self) -> None:
        """The number of waiting requests of one client is limited; other clients may still wait."""
        self.patch(budget, "MAX_WAITING_OF_CLIENT", 2)
        turns = self.take("a1", "a2", "a3", "b1")
        self.assertRaises(Overloaded, self.budget.take, "a")
        self.assertEqual(self.budget.refusals.total, 1)
        for turn in turns[1:]:
            assert turn is not None
            turn.cancel()
            self.failureResultOf(turn, CancelledError)
        self.leave("a")
        self.assertNothingLeft()

    def test_boundInAll(self) -> None:
        self.patch(budget, "MAX_WAITING", 2)
        turns = self.take("a1", "b1", "c1")
        self.assertRaises(Overloaded, self.budget.take, "d")
        self.assertNotIn("d", self.budget._queues)
        self.leave("a")
        self.take("d1")
        self.leave("b", "c", "d")
        self.assertServed("a1", "b1", "c1", "d1")
        self.assertEqual(len(turns), 3)
        self.assertNothingLeft()

    def test_log(self) -> None:
        """A flood causes one line in the log, and another with a number ten seconds later."""
        with capturedLogs() as events:
            self.take("a1")
            turns = self.take(*["b"] * 100)
            self.clock.advance(TIMEOUT)
            self.clock.advance(10)
        for turn in turns:
            assert turn is not None
            self.failureResultOf(turn, Overloaded)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "too many requests to upstreams (1, 0 from b): refusing more",
                "requests to upstreams refused: 100",
            ],
        )
        self.leave("a")
        self.assertNothingLeft()

    def test_close(self) -> None:
        """Refusals that have not been logged yet are logged at the end."""
        self.take("a1")
        [turn] = self.take("b1")
        self.clock.advance(TIMEOUT)
        assert turn is not None
        self.failureResultOf(turn, Overloaded)
        with capturedLogs() as events:
            self.budget.close()
        self.assertEqual(formatEvent(events[-1]), "requests to upstreams refused: 1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
