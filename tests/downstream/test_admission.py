"""
Tests of the limits of connections.
"""

from __future__ import annotations

from ipaddress import ip_address

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.downstream.admission import Admission, clientOf


class ClientTests(SynchronousTestCase):
    def test_ipv4(self) -> None:
        self.assertEqual(clientOf(ip_address("192.0.2.7")), "192.0.2.7")

    def test_ipv6(self) -> None:
        """All addresses of an IPv6 /64 are one client."""
        for host in ("2001:db8:1:2::7", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:DB8:1:2::"):
            self.assertEqual(clientOf(ip_address(host)), "2001:db8:1:2::")
        self.assertEqual(clientOf(ip_address("2001:db8:1:3::7")), "2001:db8:1:3::")

    def test_mapped(self) -> None:
        """
        On a dual-stack port, IPv4 clients have mapped IPv6 addresses, which are all in one /64;
        they are separate clients all the same.
        """
        self.assertEqual(clientOf(ip_address("::ffff:192.0.2.7")), "192.0.2.7")

    def test_noAddress(self) -> None:
        """A connection to a UNIX socket has no address."""
        self.assertEqual(clientOf(None), "local")


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission(self.clock, 5, 3)

    def enter(self, *clients: str) -> list[bool]:
        return [self.admission.enter(client) for client in clients]

    def test_ofOneClient(self) -> None:
        self.assertEqual(self.enter("a", "a", "a", "a"), [True, True, True, False])
        self.assertEqual(self.enter("b"), [True])

    def test_inAll(self) -> None:
        self.assertEqual(self.enter("a", "b", "c", "d", "e", "f"), [True] * 5 + [False])

    def test_leave(self) -> None:
        """When a connection is closed, another one is admitted."""
        self.enter("a", "a", "a", "b", "c")
        self.assertEqual(self.enter("a", "d"), [False, False])
        self.admission.leave("a")
        self.assertEqual(self.enter("d", "a"), [True, False])
        self.admission.leave("d")
        self.assertEqual(self.enter("a"), [True])

    def test_nothingIsKept(self) -> None:
        """Nothing is kept of clients whose connections were closed or refused."""
        for number in range(1000):
            self.assertEqual(self.enter(str(number)), [True])
            self.admission.leave(str(number))
        self.enter("a", "a", "a", "b", "c", "d", "e")
        self.assertEqual(set(self.admission._open), {"a", "b", "c"})

    def test_log(self) -> None:
        """A flood of connections causes two lines in the log every ten seconds."""
        with capturedLogs() as events:
            self.enter(*"aaaa")
            self.enter(*"a" * 999)
            self.clock.advance(10)
            self.clock.advance(100)
            self.enter("a")
            self.clock.advance(10)
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "too many connections (3, 3 from a): refusing more",
                "connections refused: 1000",
                "too many connections (3, 3 from a): refusing more",
                "connections refused: 1",
            ],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """Refusals that have not been logged yet are logged at the end."""
        with capturedLogs() as events:
            self.enter(*"aaaaaa")
            self.admission.close()
        self.assertEqual(formatEvent(events[-1]), "connections refused: 3")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.admission.close()
