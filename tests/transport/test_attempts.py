"""
Tests of connecting to a host with several addresses: the number of attempts, and the error that is
reported.
"""

from __future__ import annotations

import errno
from os import strerror
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectionRefusedError,
    NoRouteError,
    getConnectError,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.transport.attempts import AddressesEndpoint, Attempts
from tests.transport.support import THERE, Names

ADDRESSES = ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"]
DELAY = 0.3
"""
Seconds after which the next address is tried.
"""


class AttemptCase(SynchronousTestCase):
    MOST = 10

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.attempts = Attempts(self.MOST)
        self.endpoint = self.makeEndpoint(ADDRESSES)

    def makeEndpoint(self, addresses: list[str]) -> AddressesEndpoint:
        names: Any = Names(cdn_example=addresses)
        return AddressesEndpoint(self.reactor, names, "cdn.example", 443, 5.0, self.attempts)

    def connect(self) -> Deferred[Any]:
        return self.endpoint.connect(Factory.forProtocol(Protocol))

    @property
    def tried(self) -> list[str]:
        return [str(client[0]) for client in self.reactor.tcpClients]

    def fails(self, number: int, error: BaseException) -> None:
        """Make an attempt fail."""
        self.reactor.tcpClients[number][2].clientConnectionFailed(None, Failure(error))
        self.reactor.advance(0)


class OrderTests(AttemptCase):
    def test_alternating(self) -> None:
        """The families alternate, beginning with that of the resolver's first address."""
        four, six = ["192.0.2.1", "192.0.2.2", "192.0.2.3"], ["2001:db8::1", "2001:db8::2"]
        for addresses, expected in (
            (six + four, [six[0], four[0], six[1], *four[1:]]),
            (four + six, [four[0], six[0], four[1], six[1], four[2]]),
            (four, four),
            (six, six),
        ):
            self.endpoint = self.makeEndpoint(addresses)
            self.reactor.tcpClients.clear()
            connecting = self.connect()
            self.reactor.pump([DELAY] * 4)
            self.assertEqual(self.tried, expected)
            connecting.cancel()
            self.failureResultOf(connecting, CancelledError)

    def test_delay(self) -> None:
        """An address that does not respond is given some time."""
        self.connect()
        self.assertEqual(self.tried, ADDRESSES[:1])
        self.reactor.advance(DELAY / 2)
        self.assertEqual(self.tried, ADDRESSES[:1])
        self.reactor.advance(DELAY / 2)
        self.assertEqual(self.tried, ADDRESSES[:2])

    def test_failure(self) -> None:
        """The address after one that has failed is tried at once, and given the whole time."""
        self.connect()
        self.reactor.advance(DELAY / 2)
        self.fails(0, NoRouteError())
        self.assertEqual(self.tried, ADDRESSES[:2])
        self.reactor.advance(DELAY / 2)
        self.assertEqual(self.tried, ADDRESSES[:2])
        self.reactor.advance(DELAY / 2)
        self.assertEqual(self.tried, ADDRESSES[:3])


class VerdictTests(AttemptCase):
    def test_lastHasNoRoute(self) -> None:
        """
        The system's resolver puts an address without a route last; that is not the error to report.
        """
        connecting = self.connect()
        for number, error in enumerate(
            (ConnectionRefusedError(), ConnectionRefusedError(), NoRouteError(), NoRouteError())
        ):
            self.fails(number, error)
        self.assertEqual(self.tried, ADDRESSES)
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertEqual(self.attempts.underWay, 0)

    def test_noRoute(self) -> None:
        """Without any network, no address has a route."""
        connecting = self.connect()
        for number in range(4):
            self.fails(number, getConnectError((errno.ENETUNREACH, "")))
        self.failureResultOf(connecting, NoRouteError)

    def test_shortage(self) -> None:
        connecting = self.connect()
        self.fails(0, ConnectBindError(errno.EMFILE, strerror(errno.EMFILE)))
        for number in (1, 2, 3):
            self.fails(number, ConnectionRefusedError())
        self.failureResultOf(connecting, ConnectBindError)

    def test_atOnce(self) -> None:
        """An attempt that raises at once counts as failed."""

        def refuse(*_arguments: object, **_more: object) -> Any:
            raise MemoryError

        self.patch(self.reactor, "connectTCP", refuse)
        connecting = self.connect()
        self.reactor.pump([0] * 4)
        self.failureResultOf(connecting, MemoryError)

    def test_connected(self) -> None:
        """The first address that accepts is used; the other attempts are cancelled."""
        connecting = self.connect()
        self.reactor.advance(DELAY)
        self.reactor.tcpClients[1][2].buildProtocol(THERE).makeConnection(None)
        self.successResultOf(connecting)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        connecting = self.connect()
        self.reactor.advance(DELAY)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(all(each.stoppedConnecting for each in self.reactor.connectors))
        self.assertEqual(self.attempts.underWay, 0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancelledLookup(self) -> None:
        """A result that comes after the connection was cancelled has no effect."""
        receivers: list[Any] = []
        self.patch(Names, "resolveHostName", lambda _names, each, *_place: receivers.append(each))
        connecting = self.connect()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        receivers[0].addressResolved(IPv4Address("TCP", ADDRESSES[0], 443))
        receivers[0].resolutionComplete()
        self.assertEqual(self.tried, [])


class BoundTests(AttemptCase):
    MOST = 2

    def test_bound(self) -> None:
        """
        A host that does not respond takes a limited number of descriptors: one attempt for each
        connection, and some more for a few connections.
        """
        connecting = [self.connect() for _ in range(3)]
        self.reactor.pump([DELAY] * 5)
        self.assertEqual(len(self.tried), 3 + self.MOST)
        self.assertEqual(self.attempts.underWay, self.MOST)
        for each in connecting:
            self.assertNoResult(each)
        # An address that was not tried has not failed.
        for number in range(3 * len(ADDRESSES)):
            self.fails(number, ConnectionRefusedError())
        for each in connecting:
            self.failureResultOf(each, ConnectionRefusedError)
        self.assertEqual(self.attempts.underWay, 0)

    def test_freed(self) -> None:
        """An attempt that has ended makes room for another."""
        connecting = self.connect()
        self.reactor.pump([DELAY] * 2)
        self.assertEqual(self.tried, ADDRESSES[:3])
        self.reactor.advance(DELAY)
        self.assertEqual(self.tried, ADDRESSES[:3])
        self.fails(1, ConnectionRefusedError())
        self.assertEqual(self.tried, ADDRESSES)
        for number in (0, 2, 3):
            self.fails(number, ConnectionRefusedError())
        self.failureResultOf(connecting, ConnectionRefusedError)
