"""
Tests with more requests than connections to upstreams: they wait for their turn, and neither other
clients nor upstreams are affected.
"""

from __future__ import annotations

import json
from typing import Any

from hubmirror.exchange import Outcome
from tests.transport.http2client import Client
from tests.wire.support import Line, MemoryCase, answer

BLOB = b"/v2/library/a/blobs/sha256:" + b"0" * 64
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"


class BudgetCase(MemoryCase):
    options = {
        "max_upstream_connections": 3,
        "max_upstream_connections_per_client": 2,
        "queue_timeout": 5,
        "response_timeout": 9,
        "client_timeout": 100,
    }

    def ask(self, peer: str = "192.0.2.7", method: bytes = b"GET", **request: Any) -> Line:
        """Send a request on a new connection of a client."""
        return self.send(b"/v2/", method, line=self.connect(peer=peer), **request)

    @property
    def lines(self) -> list[Line]:
        return self.network.lines

    def serve(self, number: int) -> None:
        self.lines[number].says(answer(200, b"hello"))

    def assertServed(self, client: Line) -> None:
        self.assertEqual((self.answered(client).status), 200)

    def assertNothingLeft(self) -> None:
        self.clock.advance(0)
        self.assertEqual((self.mirror.budget.used, self.mirror.budget.waiting), (0, 0))


class TurnTests(BudgetCase):
    def test_ofOneClient(self) -> None:
        """A client that has used up its share waits, while another client is served at once."""
        greedy = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.lines), 2)
        other = self.ask("192.0.2.8")
        self.assertEqual(len(self.lines), 3)
        self.serve(2)
        self.assertServed(other)
        self.assertEqual(greedy[2].hears(), b"")
        for line in self.lines:
            line.hears()
        self.serve(0)
        self.clock.advance(0)
        # The request uses an existing connection.
        [line] = [line for line in self.lines if b"GET /v2/ " in line.hears()]
        self.assertEqual(len(self.lines), 3)
        self.serve(1)
        line.says(answer(200, b"hello"))
        self.assertEqual([self.answered(client).status for client in greedy], [200] * 3)
        self.assertNothingLeft()

    def test_network(self) -> None:
        """The addresses of an IPv6 /64 are one client."""
        for number in range(3):
            self.ask(f"2001:db8:1:2::{number}")
        self.assertEqual(len(self.lines), 2)
        self.ask("2001:db8:1:3::1")
        self.assertEqual(len(self.lines), 3)

    def test_behindAProxy(self) -> None:
        """Clients are distinguished by the address that a trusted proxy sends."""
        self.configure(trusted_proxy="10.0.0.1", **self.options)
        for host in (b"192.0.2.7", b"192.0.2.7", b"192.0.2.7", b"192.0.2.8"):
            self.ask("10.0.0.1", fields=((b"X-Forwarded-For", host),))
        self.assertEqual((len(self.lines), self.mirror.budget.waiting), (3, 1))

    def test_streams(self) -> None:
        """Hundreds of streams on a few connections count as requests of one client."""
        site: Any = self.site
        greedy = [Client(site) for _ in range(3)]
        streams = [(client, client.ask(target=BLOB)) for client in greedy for _ in range(100)]
        self.assertEqual(len(self.lines), 2)
        other = self.ask("192.0.2.8")
        self.serve(2)
        self.assertServed(other)
        self.clock.advance(5)
        for client in greedy:
            client.exchange()
        heads = [client.answers[stream].heads for client, stream in streams]
        self.assertEqual([head == [] for head in heads], [True] * 2 + [False] * 298)
        self.assertEqual({head[0][b":status"] for head in heads[2:]}, {b"503"})
        for client in greedy:
            client.leave()
        self.assertNothingLeft()

    def test_answeredHere(self) -> None:
        """Requests that need no upstream do not wait."""
        for peer in ("192.0.2.7", "192.0.2.7", "192.0.2.8"):
            self.ask(peer)
        self.assertEqual(self.local(b"/v1/_ping").status, 200)
        self.assertEqual(self.local(b"/v2/_catalog").status, 404)
        self.assertEqual(self.local(b"/v2/", method=b"TRACE").status, 405)


class WaitTests(BudgetCase):
    def fill(self) -> None:
        """Begin as many responses as are allowed."""
        for peer in ("192.0.2.20", "192.0.2.20", "192.0.2.21"):
            self.ask(peer)
            self.lines[-1].hears()
            self.lines[-1].says(HALF)

    def finish(self, number: int) -> None:
        """Complete one of the responses."""
        self.lines[number].says(b"world")
        self.clock.advance(0)

    def test_refused(self) -> None:
        """The response to a refused request is a registry's error with C{Retry-After}."""
        self.fill()
        client = self.ask()
        self.clock.advance(4)
        self.assertEqual(client.hears(), b"")
        self.clock.advance(1)
        got = self.answered(client)
        self.assertEqual((got.status, got.values(b"Retry-After")), (503, [b"5"]))
        [error] = json.loads(got.body)["errors"]
        self.assertEqual(error["code"], "UNAVAILABLE")
        [exchange] = self.exchanges
        self.assertEqual((exchange.outcome, exchange.status), (Outcome.REFUSED, 503))
        self.assertEqual(exchange.failures, [])
        # The connection can be used again.
        self.send(b"/v1/_ping", line=client)
        self.assertServed(client)

    def test_clientLeaves(self) -> None:
        """If a waiting client leaves, the next request gets its turn."""
        self.fill()
        first, second = self.ask(), self.ask("192.0.2.8")
        first.leaves()
        self.clock.advance(0)
        self.assertEqual(self.mirror.budget.waiting, 1)
        self.finish(0)
        self.serve(0)
        self.assertServed(second)
        self.assertIs(self.exchanges[0].outcome, Outcome.CLIENT_LEFT)

    def test_nobodysSlowness(self) -> None:
        """
        The time that a request waits does not count for the upstream, which has its full timeout
        and is not marked down.
        """
        self.configure(fallback="https://second.example", **self.options)
        self.fill()
        client = self.ask()
        self.clock.advance(4)
        self.finish(0)
        self.assertIn(b"GET /v2/ ", self.lines[0].hears())
        # With a fallback, the first upstream's share of the time is half.
        self.clock.advance(4)
        self.serve(0)
        self.assertServed(client)
        self.assertNotIn(b"second.example", [origin.host for origin in self.network.origins])

    def test_drain(self) -> None:
        """When the mirror stops, waiting requests are still served."""
        self.fill()
        client = self.ask()
        stopping = self.mirror.service.stopService()
        for number in range(3):
            self.finish(number)
        self.serve(0)
        self.assertServed(client)
        self.clock.advance(100)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndTests(BudgetCase):
    """A slot is freed however a request ends."""

    options = {**BudgetCase.options, "max_upstream_connections": 1}

    def assertFree(self) -> None:
        self.clock.advance(0)
        before = len(self.lines)
        client = self.ask("192.0.2.30")
        [line] = [line for line in self.lines[-1:] if not line.ended]
        line.says(answer(200, b"hello"))
        self.assertServed(client)
        self.assertLessEqual(len(self.lines), before + 1)
        self.assertNothingLeft()

    def test_whole(self) -> None:
        client = self.ask()
        self.serve(0)
        self.assertServed(client)
        self.assertFree()

    def test_withoutBody(self) -> None:
        for method, status in ((b"HEAD", 200), (b"GET", 304), (b"GET", 404)):
            client = self.ask(method=method)
            self.lines[-1].says(answer(status))
            self.assertEqual(self.answered(client).status, status)
            self.assertFree()

    def test_push(self) -> None:
        client = self.ask(method=b"PUT", body=b"12345")
        self.lines[0].says(answer(201))
        self.assertEqual(self.answered(client).status, 201)
        self.assertFree()

    def test_noAnswer(self) -> None:
        self.network.refuses.add(b"hub.example")
        client = self.ask()
        self.assertEqual(self.answered(client).status, 502)
        self.network.refuses.clear()
        self.assertFree()

    def test_broken(self) -> None:
        """
        When a body can't be completed, the slot is freed; while it is being resumed, the slot is
        kept.
        """
        self.ask()
        self.lines[0].says(HALF)
        self.lines[0].leaves()
        self.clock.pump([10] * 10)
        self.assertFree()

    def test_clientLeaves(self) -> None:
        """The client leaves before the head, or in the middle of the body."""
        for said in (b"", HALF):
            client = self.ask()
            self.lines[-1].says(said)
            client.leaves()
            self.clock.advance(0)
            self.assertEqual(self.lines[-1].ended, "aborted")
            self.assertFree()

    def test_clientStalls(self) -> None:
        client = self.ask()
        self.lines[0].says(HALF)
        client.producer.pauseProducing()
        self.clock.pump([1] * 100)
        self.assertEqual(client.ended, "aborted")
        self.assertFree()


class LocalTests(BudgetCase):
    """A lack of resources on this machine is not treated as a failure of the upstream."""

    def test_answer(self) -> None:
        """The response asks the client to try again."""
        self.network.short = True
        got = self.answered(self.ask())
        self.assertEqual((got.status, got.values(b"Retry-After")), (503, [b"5"]))
        self.assertIn(b"hub.example: no file descriptor left", got.body)

    def keep(self, target: bytes = b"/v2/") -> None:
        """Have an idle connection to the fallback, while nothing is marked down any more."""
        self.configure(fallback="https://second.example", verify="never", **self.options)
        self.network.refuses.add(b"hub.example")
        client = self.send(target)
        self.serve(0)
        self.assertServed(client)
        self.assertIn(b"GET ", self.lines[0].hears())
        self.network.refuses.clear()
        self.clock.advance(3)
        client = self.send(target)
        self.assertEqual(self.network.origins[1].host, b"hub.example")
        self.serve(1)
        self.assertServed(client)

    def test_health(self) -> None:
        """
        A fallback with an idle connection serves meanwhile.  When a descriptor is free again, the
        first upstream is asked first.
        """
        self.keep()
        self.lines[1].leaves()
        self.clock.advance(0)
        self.network.short = True
        for _ in range(3):
            client = self.ask()
            self.serve(0)
            self.assertServed(client)
        self.network.short = False
        client = self.ask()
        self.assertEqual(self.network.origins[-1].host, b"hub.example")
        self.serve(2)
        self.assertServed(client)

    def test_refused(self) -> None:
        """In contrast, an upstream that refuses connections is marked down."""
        self.keep()
        self.lines[1].leaves()
        self.clock.advance(0)
        self.network.refuses.add(b"hub.example")
        self.ask()
        self.serve(0)
        self.network.refuses.clear()
        self.lines[0].hears()
        self.ask()
        self.assertIn(b"GET /v2/ ", self.lines[0].hears())
        self.assertEqual(len(self.lines), 2)

    def test_redirect(self) -> None:
        """
        If a redirect's target can't be connected to for lack of resources, the registry is not
        marked down.
        """
        self.keep(BLOB)
        self.network.short = True
        for _ in range(3):
            self.lines[1].hears()
            client = self.send(BLOB)
            self.assertIn(b"GET ", self.lines[1].hears())
            self.lines[1].says(answer(307, b"", ((b"Location", b"https://cdn.example/x"),)))
            self.serve(0)
            self.assertServed(client)
            [failure] = self.exchanges[-1].failures
            self.assertIn("the redirect to cdn.example", failure[1])
