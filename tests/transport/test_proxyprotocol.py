"""
Tests of connections that come through a load balancer.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.proxyheader import End
from hubmirror.transport.proxyprotocol import HEADER_TIMEOUT, ProxiedFactory
from tests.protocol.test_proxyheader import SOUP, valid
from tests.transport.support import HERE, THERE


class Recording(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.isLost = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.ends = (self.transport.getPeer(), self.transport.getHost())

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.isLost = True


class ProxiedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[Recording] = []
        wrapped = Factory()
        wrapped.buildProtocol = self.build  # type: ignore[method-assign,assignment]
        self.factory = ProxiedFactory(self.clock, wrapped)

    def build(self, address: object) -> Recording:
        self.made.append(Recording())
        return self.made[-1]

    def connect(self) -> tuple[Any, StringTransport]:
        transport = StringTransport(hostAddress=HERE, peerAddress=THERE)
        connection = self.factory.buildProtocol(THERE)
        connection.makeConnection(transport)
        return connection, transport

    def receive(self, data: bytes, cuts: set[int]) -> tuple[Any, StringTransport]:
        """
        Receive bytes in pieces, as long as the connection is open.
        """
        connection, transport = self.connect()
        ends = sorted({cut for cut in cuts if cut < len(data)} | {len(data)})
        for start, end in zip([0, *ends], ends, strict=False):
            if start < end and not transport.disconnecting:
                connection.dataReceived(data[start:end])
        return connection, transport

    @given(valid(), st.binary(max_size=20), st.sets(st.integers(1, 300), max_size=40))
    def test_valid(self, header: tuple[bytes, Any], rest: bytes, cuts: set[int]) -> None:
        """
        The protocol gets the addresses of the header, and the bytes that follow it.
        """
        self.made.clear()
        data, ends = header
        connection, _transport = self.receive(data + rest, cuts)
        [made] = self.made
        self.assertEqual(made.received, rest)
        if ends is None:
            self.assertEqual(made.ends, (THERE, HERE))
        else:
            found = [End(ip_address(each.host), each.port) for each in made.ends]
            self.assertEqual(tuple(found), ends)
        self.assertTrue(ITransport.providedBy(made.transport))
        self.assertEqual(self.factory.unknown, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        connection.connectionLost(Failure(connectionDone.value))
        self.assertTrue(made.isLost)

    @given(SOUP, st.sets(st.integers(1, 300), max_size=40))
    def test_foreign(self, data: bytes, cuts: set[int]) -> None:
        """
        What is no header closes the connection, with one line in the log.
        """
        self.made.clear()
        with capturedLogs() as events:
            connection, transport = self.receive(data, cuts)
        lines = [formatEvent(event) for event in events]
        self.assertEqual(len(lines), transport.disconnecting)
        for line in lines:
            self.assertTrue(line.startswith("198.51.100.1 is no load balancer: "), line)
        self.assertLessEqual(len(self.made), not transport.disconnecting)
        connection.connectionLost(Failure(connectionDone.value))
        self.assertEqual(self.factory.unknown, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slow(self) -> None:
        connection, transport = self.connect()
        connection.dataReceived(b"PROXY TCP4 ")
        self.clock.advance(HEADER_TIMEOUT - 1)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(1)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.made, [])
