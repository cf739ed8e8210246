"""
Tests of how slow or unavailable upstreams affect other requests.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror import HubMirror, MirrorConfig
from tests.transport.support import HERE, THERE, Names
from tests.wire.support import Line, MemoryCase, answer

SHARE = 4.5
"""
Seconds that the first of two upstreams has for a response head.
"""


class SlowAnswerTests(MemoryCase):
    """
    Tests of a response head that is not received within its share of the time.
    """

    options: ClassVar = {"fallback": ["https://other.example"]}

    def serves(self, host: bytes, body: bytes) -> None:
        """Check that the last request was sent to this upstream, and respond to it."""
        [(line, origin)] = [
            (line, origin)
            for line, origin in zip(self.network.lines, self.network.origins, strict=True)
            if line.hears()
        ]
        self.assertEqual(origin.host, host)
        line.says(answer(200, body))

    def waits(self, target: bytes) -> None:
        """Send a request to which the Hub does not respond in time, but the fallback does."""
        client = self.send(target)
        self.assertEqual(self.network.origins[-1].host, b"hub.example")
        self.network.lines[-1].clear()
        self.clock.advance(SHARE)
        self.serves(b"other.example", b"slow")
        self.assertEqual(self.answered(client).body, b"slow")

    def quick(self, target: bytes, host: bytes = b"hub.example") -> None:
        """Send another client's request, to which this upstream responds at once."""
        client = self.send(target)
        self.serves(host, b"quick")
        self.assertEqual(self.answered(client).body, b"quick")

    def test_others(self) -> None:
        """The requests of other clients are still sent to the Hub."""
        self.waits(b"/v2/a/manifests/slow")
        for number in range(5):
            self.quick(b"/v2/b/manifests/%d" % number)

    def test_whileItWaits(self) -> None:
        """Requests that are sent during the wait go to the Hub as well, and so do later ones."""
        slow = self.send(b"/v2/a/manifests/slow")
        self.network.lines[-1].clear()
        self.clock.advance(1)
        self.quick(b"/v2/b/manifests/1")
        self.clock.advance(SHARE - 1)
        self.serves(b"other.example", b"slow")
        self.assertEqual(self.answered(slow).body, b"slow")
        self.quick(b"/v2/b/manifests/2")

    def test_sameTarget(self) -> None:
        """This holds however often the slow target is requested."""
        for _ in range(5):
            self.waits(b"/v2/a/manifests/slow")
        self.quick(b"/v2/b/manifests/1")

    def test_severalInARow(self) -> None:
        """An upstream that responds to nothing is marked down."""
        with capturedLogs() as events:
            for number in range(3):
                self.waits(b"/v2/a/manifests/%d" % number)
            self.quick(b"/v2/a/manifests/3", b"other.example")
        self.assertIn(
            "hub.example (registry) is marked down: no response head within 4.5 s,"
            " for 3 targets in a row",
            [formatEvent(event) for event in events],
        )


class NoConnectionTests(SynchronousTestCase):
    """
    Tests of an upstream to which no connection is established within its share of the time, which
    is shorter than C{connect-timeout}.
    """

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.installNameResolver(
            Names(hub_example=["198.51.100.1"], other_example=["198.51.100.2"])
        )
        config = MirrorConfig(
            port=(),
            registry_url="http://hub.example",
            fallback=["http://other.example"],
            connect_timeout=5.0,
        )
        self.mirror = HubMirror(self.reactor, config)

    @property
    def places(self) -> list[str]:
        """The addresses to which connections were requested since the last call."""
        places = [client[0] for client in self.reactor.tcpClients]
        self.reactor.tcpClients.clear()
        return places

    def send(self) -> None:
        protocol = self.mirror.site.buildProtocol(HERE)
        line = Line(self.reactor, protocol, THERE, HERE)
        protocol.makeConnection(line)
        line.says(b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: mirror.example\r\n\r\n")

    def test_markedDown(self) -> None:
        """
        The upstream is marked down at once: a single request shows that it can't be connected to.
        """
        with capturedLogs() as events:
            self.send()
            self.assertEqual(self.places, ["198.51.100.1"])
            self.reactor.advance(SHARE)
            self.assertEqual(self.places, ["198.51.100.2"])
            self.send()
            self.assertEqual(self.places, ["198.51.100.2"])
        self.assertIn(
            "hub.example (registry) is marked down: could not connect within 4.5 s",
            [formatEvent(event) for event in events],
        )
