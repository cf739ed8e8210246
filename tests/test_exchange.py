"""
Tests of the record of a request, which is completed once.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from hubmirror.exchange import Exchange, Outcome


class EndTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[tuple[Exchange, Outcome | None]] = []

    def listen(self, exchange: Exchange) -> None:
        self.told.append((exchange, exchange.outcome))

    def test_once(self) -> None:
        """The first end is the one that counts."""
        exchange = Exchange(b"GET", b"/", None, 100.0, (self.listen,))
        self.assertIsNone(exchange.outcome)
        exchange.end(Outcome.BROKEN, 102.5)
        exchange.end(Outcome.CLIENT_LEFT, 103.0)
        self.assertEqual(self.told, [(exchange, Outcome.BROKEN)])
        self.assertEqual((exchange.outcome, exchange.seconds), (Outcome.BROKEN, 2.5))

    def test_endsWhileTelling(self) -> None:
        """If a listener ends the exchange again, nothing happens."""
        exchange = Exchange(
            b"GET", b"/", None, 0.0, (lambda told: told.end(Outcome.FAILED, 1.0), self.listen)
        )
        exchange.end(Outcome.COMPLETE, 1.0)
        self.assertEqual(self.told, [(exchange, Outcome.COMPLETE)])

    def test_listenerFails(self) -> None:
        """If a listener raises, the error is logged, and the next listener is called."""

        def fail(exchange: Exchange) -> None:
            raise ZeroDivisionError

        exchange = Exchange(b"GET", b"/", None, 0.0, (fail, self.listen))
        exchange.end(Outcome.COMPLETE, 1.0)
        self.assertEqual(len(self.told), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_identity(self) -> None:
        """Two exchanges with the same values are not equal."""
        first, second = (Exchange(b"GET", b"/", None, 0.0) for _ in range(2))
        self.assertNotEqual(first, second)
        self.assertEqual(len({first, second}), 2)
