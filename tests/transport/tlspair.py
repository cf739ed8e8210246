"""
Two sides of a TLS connection over real sockets, which the test moves step by step.
"""

from __future__ import annotations

import fcntl
import hashlib
import socket
import struct
import termios
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hubmirror.testing.ca import Authority
from hubmirror.transport.servertls import ServerTLS
from hubmirror.transport.tlsendpoints import inBulk

AUTHORITY = Authority()
SERVER = PrivateCertificate.loadPEM(AUTHORITY.serverPEM(["localhost", "127.0.0.1"]))
TRUST = trustRootFromCertificates([Certificate.loadPEM(AUTHORITY.pem)])

#: Whether the client and the server have the mirror's TLS; otherwise, they have Twisted's.
ROLES = [(False, False), (True, True), (True, False), (False, True)]


def bytesOf(size: int, seed: int) -> bytes:
    """Bytes of which no part is like another."""
    return hashlib.shake_128(b"%d" % seed).digest(size)


@implementer(IHandshakeListener)
class Peer(Protocol):
    """
    A protocol that records what it receives.

    @ivar sizes: the sizes of the deliveries.
    @ivar established: how often the handshake was completed.
    @ivar reason: the reason for the connection's end, once it has ended.
    """

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.sizes: list[int] = []
        self.established = 0
        self.reason: Failure | None = None

    def handshakeCompleted(self) -> None:
        self.established += 1

    def dataReceived(self, data: bytes) -> None:
        assert self.reason is None, "something came after the end"
        self.got += data
        self.sizes.append(len(data))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert self.reason is None, "the connection ended twice"
        self.reason = reason


class Carrying(Peer):
    """
    Passes everything on to another protocol, and its calls to TLS.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def connectionMade(self) -> None:
        self.inner.makeConnection(self.transport)

    def handshakeCompleted(self) -> None:
        super().handshakeCompleted()
        self.inner.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        self.inner.connectionLost(reason)


class End(Connection):
    """
    The side of a socket in place of Twisted's transport, with a reactor that does nothing by
    itself.
    """

    def __init__(self, end: socket.socket, protocol: Any, reactor: Any) -> None:
        super().__init__(end, protocol, reactor)
        self.connected = 1
        self.startReading()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 443)

    getHost = getPeer

    @property
    def unread(self) -> int:
        """The number of bytes that have arrived and were not read, as long as it is connected."""
        if not self.connected:
            return 0
        count: int = struct.unpack("i", fcntl.ioctl(self, termios.FIONREAD, bytes(4)))[0]
        return count

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def writeSomeData(self, data: bytes) -> Any:
        # In contrast to TCP, writing to a closed peer is an error here.
        return super().writeSomeData(data) if data else 0

    def step(self, reading: bool) -> None:
        """
        Do what the reactor does when the socket is ready, if it was registered.
        """
        watched = self.reactor.getReaders() if reading else self.reactor.getWriters()
        if self in watched:
            why = self.doRead() if reading else self.doWrite()
            if why is not None:
                self._lose(why, reading)

    def _lose(self, why: Any, reading: bool) -> None:
        self.stopReading()
        if reading and isinstance(why, ConnectionDone):
            self.readConnectionLost(Failure(why))
        else:
            self.stopWriting()
            self.connectionLost(Failure(why))


class Pair:
    """
    A client and a server.

    @ivar client: the client's protocol.
    @ivar server: the server's protocol.
    @ivar clientEnd: the transport of the client's TLS.
    @ivar serverEnd: the transport of the server's TLS.
    """

    def __init__(
        self,
        bulkClient: bool,
        bulkServer: bool,
        *,
        name: str = "localhost",
        room: int = 200_000,
        client: Peer | None = None,
        server: Peer | None = None,
        trust: Any = TRUST,
        wrapped: bool = False,
    ) -> None:
        """
        @param name: the server's name for the client.
        @param room: the approximate number of bytes that the system accepts from either side.
        @param wrapped: whether there is a wrapper between each transport and its TLS.
        """
        self._wrapped = wrapped
        self.reactor = MemoryReactorClock()
        self.client, self.server = client or Peer(), server or Peer()
        one, other = socket.socketpair()
        for end in (one, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        options: Any = ServerTLS({"": SERVER.options()}) if bulkServer else SERVER.options()
        self.serverEnd = self._end(other, bulkServer, False, options, self.server)
        creator = optionsForClientTLS(name, trustRoot=trust)
        self.clientEnd = self._end(one, bulkClient, True, creator, self.client)

    def _end(self, end: socket.socket, bulk: bool, isClient: bool, creator: Any, peer: Peer) -> End:
        # A factory with an attribute for its protocol would be a reference cycle of the test
        # itself.
        wrapped = Factory.forProtocol([peer].pop)
        factory = TLSMemoryBIOFactory(creator, isClient, wrapped, self.reactor)
        factory = inBulk(self.reactor, factory) if bulk else factory
        protocol = (WrappingFactory(factory) if self._wrapped else factory).buildProtocol(None)
        assert protocol is not None
        made = End(end, protocol, self.reactor)
        protocol.makeConnection(made)
        return made

    def close(self) -> None:
        """Close the sockets."""
        for end in (self.clientEnd, self.serverEnd):
            end.abortConnection()
        self.reactor.advance(0)

    def step(self, number: int) -> None:
        """Perform one of the five steps of a turn."""
        number %= 5
        if number == 0:
            self.reactor.advance(0)
        else:
            end = self.clientEnd if number < 3 else self.serverEnd
            end.step(reading=number % 2 == 1)

    def turn(self) -> None:
        """One turn of the reactor."""
        for number in range(5):
            self.step(number)

    def settle(self) -> None:
        """Perform turns until nothing changes."""
        still = 0
        before: object = None
        while still < 5:
            self.turn()
            now = [
                (peer.established, peer.reason, end.unread, end.offset, len(end.dataBuffer))
                for peer, end in ((self.client, self.clientEnd), (self.server, self.serverEnd))
            ]
            still = still + 1 if now == before else 0
            before = now


class PairCase(SynchronousTestCase):
    """
    Tests with a pair.

    @cvar bulk: whether the mirror's TLS is tested instead of Twisted's.
    """

    bulk = True

    def open(self, **options: Any) -> Pair:
        """An established connection, which is closed after the test."""
        pair = Pair(self.bulk, self.bulk, **options)
        self.addCleanup(pair.close)
        pair.settle()
        return pair
