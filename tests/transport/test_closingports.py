"""
Ports that are closed while connections come, with real sockets.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from hubmirror.transport.closingports import closePort
from hubmirror.transport.proxyprotocol import ProxiedReactor

CLIENTS = 30
HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n"


class Greeter(Protocol):
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(transport.getPeer().host.encode())
        transport.loseConnection()


class ClosingTests(TestCase):
    def setUp(self) -> None:
        self.opened = ExitStack()
        self.addCleanup(self.opened.close)

    def connect(self, port: Any) -> socket.socket:
        """
        A connection that is established by the kernel alone: the reactor does not run meanwhile.
        """
        address = ("127.0.0.1", port.getHost().port)
        return self.opened.enter_context(socket.create_connection(address, timeout=30))

    def assertRefused(self, address: IPv4Address) -> None:
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))

    def read(self, client: socket.socket) -> Deferred[bytes]:
        return deferToThread(client.recv, 100)

    async def test_backlog(self) -> None:
        """
        Connections that nobody has accepted yet are served.
        """
        port: Any = reactor.listenTCP(  # type: ignore[attr-defined]
            0, Factory.forProtocol(Greeter), interface="127.0.0.1"
        )
        address = port.getHost()
        clients = [self.connect(port) for _ in range(CLIENTS)]
        # As after a quiet time, when the port accepts one connection in each iteration.
        port.numberAccepts = 1
        await closePort(reactor, port)  # type: ignore[arg-type]
        self.assertRefused(address)
        greetings = [await self.read(client) for client in clients]
        self.assertEqual(greetings, [b"127.0.0.1"] * CLIENTS)

    async def test_unknownYet(self) -> None:
        """
        Behind a balancer, a port is closed when each connection has said whose it is.
        """
        port: Any = ProxiedReactor(reactor).listenTCP(
            0, Factory.forProtocol(Greeter), interface="127.0.0.1"
        )
        address = port.getHost()
        first, second = self.connect(port), self.connect(port)
        first.sendall(HEADER + b"x")
        closed: list[None] = []
        closing: Deferred[None] = port.stopListening()
        closing.addCallback(closed.append)
        self.assertEqual(await self.read(first), b"192.0.2.1")
        self.assertRefused(address)
        self.assertEqual(closed, [])
        second.sendall(HEADER + b"x")
        await closing
        self.assertEqual(await self.read(second), b"192.0.2.1")
