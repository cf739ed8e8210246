"""
Tests of the relay between two connections, with events of both in any order.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.downstream.relay import Relay
from hubmirror.exchange import Outcome
from hubmirror.protocol.errors import BodyFailed
from tests import examples
from tests.downstream.support import Server
from tests.upstream.support import Response, newExchange

PATIENCE = 15.0
"""
Seconds that a client may take nothing.
"""


class Relayed:
    """
    A relay between an upstream's response and a client.
    """

    def __init__(self, length: int | None) -> None:
        self.server = Server()
        self.clock = self.server.clock
        self.client, request = self.server.ask()
        self.exchange = newExchange()
        if length is not None:
            request.setHeader(b"Content-Length", b"%d" % length)
        request.write(b"")
        self.head = self.client.hears()
        self.relay = Relay(request, self.exchange, self.clock, PATIENCE, length)
        self.outcomes: list[Outcome] = []
        self.relay.done.addCallback(self.outcomes.append)
        # The resources do the same.
        request.notifyFinish().addErrback(lambda _: self.relay.done.cancel())
        self.upstream = Response(length=length)
        self.upstream.deliverBody(self.relay)


class RelayTests(SynchronousTestCase):
    def relay(self, length: int | None = 10) -> Relayed:
        self.relayed = Relayed(length)
        return self.relayed

    def assertOutcome(self, outcome: Outcome, ended: str) -> None:
        self.relayed.clock.advance(0)
        self.assertEqual(self.relayed.outcomes, [outcome])
        self.assertEqual(self.relayed.client.ended, ended)

    def test_pieces(self) -> None:
        """Each piece is written when it is received, and none is kept."""
        relayed = self.relay()
        for piece in (b"12", b"345", b"67890"):
            relayed.upstream.gives(piece)
            self.assertEqual(relayed.client.hears(), piece)
        self.assertEqual(relayed.outcomes, [])
        relayed.upstream.ends()
        self.assertOutcome(Outcome.COMPLETE, "")
        self.assertEqual(relayed.exchange.sent, 10)

    def test_tooShort(self) -> None:
        """A body that ends in good order but too early is not complete."""
        relayed = self.relay()
        relayed.upstream.gives(b"12345")
        relayed.upstream.ends()
        self.assertOutcome(Outcome.BROKEN, "aborted")

    def test_unknownLength(self) -> None:
        relayed = self.relay(None)
        relayed.upstream.gives(b"12345")
        relayed.upstream.ends()
        self.assertEqual(relayed.client.hears(), b"5\r\n12345\r\n0\r\n\r\n")
        self.assertOutcome(Outcome.COMPLETE, "")

    def test_broken(self) -> None:
        for length in (10, None):
            relayed = self.relay(length)
            relayed.upstream.gives(b"12345")
            relayed.upstream.ends(BodyFailed("closed"))
            self.assertFalse(relayed.client.value().endswith(b"0\r\n\r\n"))
            self.assertOutcome(Outcome.BROKEN, "aborted")

    def test_brokenAfterTheLastByte(self) -> None:
        """An error after the last byte makes the body incomplete, because it may be wrong."""
        relayed = self.relay()
        relayed.upstream.gives(b"1234567890")
        relayed.upstream.ends(BodyFailed("closed"))
        self.assertOutcome(Outcome.BROKEN, "aborted")

    def test_pausedFromTheStart(self) -> None:
        """The client's transport is full when the response begins."""
        server = Server()
        client, request = server.ask()
        client.producer.pauseProducing()
        upstream = Response(length=5)
        upstream.deliverBody(Relay(request, newExchange(), server.clock, PATIENCE, 5))
        self.assertEqual(upstream.state, "paused")
        client.producer.resumeProducing()
        self.assertEqual(upstream.state, "flowing")

    def test_clientStalls(self) -> None:
        """A client that accepts no data for too long is disconnected, which frees the upstream."""
        relayed = self.relay()
        relayed.clock.advance(14)
        relayed.client.producer.pauseProducing()
        relayed.clock.advance(14)
        relayed.client.producer.resumeProducing()
        relayed.client.producer.pauseProducing()
        relayed.clock.advance(14)
        self.assertEqual(relayed.outcomes, [])
        relayed.clock.advance(1)
        self.assertEqual(relayed.upstream.state, "stopped")
        self.assertOutcome(Outcome.CLIENT_STALLED, "aborted")

    def test_upstreamTakesItsTime(self) -> None:
        """The relay sets no time limit for the upstream."""
        relayed = self.relay()
        relayed.clock.pump([10] * 100)
        self.assertEqual(relayed.outcomes, [])


class RelayMachine(RuleBasedStateMachine):
    """
    Events in any order, with the conditions that must hold after each.
    """

    @initialize(length=st.one_of(st.none(), st.integers(1, 20)))
    def begin(self, length: int | None) -> None:
        self.length = length
        self.relayed = Relayed(length)
        self.upstream, self.client = self.relayed.upstream, self.relayed.client
        self.clock = self.relayed.clock
        self.given = b""
        self.full = False
        self.waited = 0.0
        self.expected: Outcome | None = None

    def running(self) -> bool:
        return self.expected is None

    def flowing(self) -> bool:
        return self.running() and not self.full

    def room(self) -> bool:
        return self.running() and self.length != len(self.given)

    @precondition(lambda self: self.flowing() and self.room())
    @rule(data=st.data())
    def give(self, data: Any) -> None:
        most = 20 if self.length is None else self.length - len(self.given)
        piece = data.draw(st.binary(min_size=1, max_size=most))
        self.given += piece
        self.upstream.gives(piece)

    @precondition(lambda self: self.running())
    @rule()
    def end(self) -> None:
        whole = self.length in (None, len(self.given))
        self.expected = Outcome.COMPLETE if whole else Outcome.BROKEN
        self.upstream.ends()

    @precondition(lambda self: self.running())
    @rule()
    def breakOff(self) -> None:
        self.expected = Outcome.BROKEN
        self.upstream.ends(BodyFailed("closed"))

    @precondition(lambda self: self.running() and not self.full)
    @rule()
    def fill(self) -> None:
        self.full = True
        self.waited = 0
        self.client.producer.pauseProducing()

    @precondition(lambda self: self.running() and self.full)
    @rule()
    def drain(self) -> None:
        self.full = False
        self.client.producer.resumeProducing()

    @precondition(lambda self: self.running())
    @rule(stopped=st.booleans())
    def leave(self, stopped: bool) -> None:
        self.expected = Outcome.CLIENT_LEFT
        if not stopped:
            self.client.producer = None
        self.client.leaves()
        self.clock.advance(0)

    @precondition(lambda self: self.running())
    @rule(seconds=st.sampled_from((1.0, 7.0, 14.0, 16.0)))
    def wait(self, seconds: float) -> None:
        self.waited += seconds
        if self.full and self.waited >= PATIENCE:
            self.expected = Outcome.CLIENT_STALLED
        self.clock.advance(seconds)

    @rule()
    def afterwards(self) -> None:
        """Late events of the client's transport have no effect."""
        if not self.running() and self.client.ended != "left" and self.client.producer:
            self.client.producer.pauseProducing()
            self.client.producer.resumeProducing()

    @invariant()
    def holds(self) -> None:
        expected = [] if self.expected is None else [self.expected]
        assert self.relayed.outcomes == expected, (self.relayed.outcomes, expected)
        heard = self.client.value()
        if self.length is not None:
            assert heard == self.given
        assert self.relayed.exchange.sent == len(self.given)
        if self.running():
            assert self.upstream.state == ("paused" if self.full else "flowing")
            return
        assert self.upstream.state in ("ended", "stopped")
        self.clock.advance(0)
        assert (
            self.client.ended
            == {
                Outcome.COMPLETE: "",
                Outcome.BROKEN: "aborted",
                Outcome.CLIENT_STALLED: "aborted",
                Outcome.CLIENT_LEFT: "left",
            }[self.expected]
        )
        if self.length is None:
            assert heard.endswith(b"0\r\n\r\n") == (self.expected is Outcome.COMPLETE)


class AnyOrderTests(SynchronousTestCase):
    def test_anyOrder(self) -> None:
        run_state_machine_as_test(
            RelayMachine, settings=settings(examples(1.5), stateful_step_count=15)
        )
