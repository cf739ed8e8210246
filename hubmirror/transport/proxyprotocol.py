"""
Ports behind a load balancer that sends the client's address in the PROXY protocol.  With TLS, the
balancer's header precedes the client's handshake.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, TimeoutMixin, WrappingFactory
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from hubmirror.protocol.proxyheader import End, readHeader
from hubmirror.transport.closingports import FIRST_REQUEST, closePort
from hubmirror.transport.waitableset import WaitableSet

HEADER_TIMEOUT = 30.0
"""
The time, in seconds, within which the balancer's header must have been received.
"""


class ProxiedReactor:
    """
    A reactor on which every connection begins with the PROXY protocol.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenTCP(self, port: int, factory: IProtocolFactory, *args: Any, **kwargs: Any) -> Any:
        """
        Listen for connections that begin with the PROXY protocol.
        """
        known = ProxiedFactory(self._reactor, factory)
        return ProxiedPort(self._reactor.listenTCP(port, known, *args, **kwargs), known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class ProxiedPort(proxyForInterface(IListeningPort)):  # type: ignore[misc]
    """
    A port that is closed when the last connection that it has accepted has become known.

    @ivar original: the port of the reactor, which has the socket.
    """

    def __init__(self, original: IListeningPort, factory: ProxiedFactory) -> None:
        super().__init__(original)
        self._factory = factory

    def stopListening(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await closePort(self._factory.reactor, self.original)
        for connection in self._factory.unknown:
            connection.setTimeout(FIRST_REQUEST)
        await self._factory.unknown.whenEmpty()


class ProxiedFactory(WrappingFactory):
    """
    Creates the connections of a port behind a balancer.

    @ivar unknown: the connections whose header has not been received yet.
    """

    noisy = False

    def __init__(self, reactor: Any, wrapped: Any) -> None:
        """
        @param wrapped: creates the protocols that follow the header.
        """
        super().__init__(wrapped)
        self.reactor = reactor
        self.unknown = WaitableSet()

    def buildProtocol(self, addr: Any) -> _Connection:
        return _Connection(self, addr)


class _Connection(ProtocolWrapper, TimeoutMixin):
    """
    Reads the balancer's header, then creates the actual protocol and becomes its transport.  The
    protocol is not created before that, because the limits for each client would apply to the
    balancer.
    """

    _log = Logger()

    factory: Any
    transport: Any
    wrappedProtocol: Any

    def __init__(self, factory: ProxiedFactory, address: Any) -> None:
        super().__init__(factory, None)  # type: ignore[arg-type]
        self._address = address
        self._received = bytearray()
        self._ends: list[IPv4Address | IPv6Address] = []

    def callLater(self, period: float, func: Any) -> Any:
        return self.factory.reactor.callLater(period, func)

    def makeConnection(self, transport: Any) -> None:
        directlyProvides(self, providedBy(transport))
        Protocol.makeConnection(self, transport)

    def connectionMade(self) -> None:
        self.factory.unknown.add(self)
        self.setTimeout(HEADER_TIMEOUT)

    def dataReceived(self, data: bytes) -> None:
        if self.wrappedProtocol is not None:
            self.wrappedProtocol.dataReceived(data)
            return
        self._received += data
        try:
            header = readHeader(self._received)
        except ValueError as error:
            self._log.warn(
                "{host} is no load balancer: {error}", host=self._address.host, error=str(error)
            )
            self.loseConnection()
            return
        if header is None:
            return
        self._ends = [_addressOf(end) for end in header.ends or ()]
        self._begin(bytes(self._received[header.length :]))

    def _begin(self, data: bytes) -> None:
        self.setTimeout(None)
        self._received.clear()
        self.wrappedProtocol = self.factory.wrappedFactory.buildProtocol(self._address)
        self.wrappedProtocol.makeConnection(self)
        self.factory.unknown.discard(self)
        if data:
            self.wrappedProtocol.dataReceived(data)

    def getPeer(self) -> Any:
        return self._ends[0] if self._ends else self.transport.getPeer()

    def getHost(self) -> Any:
        return self._ends[1] if self._ends else self.transport.getHost()

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        self.factory.unknown.discard(self)
        wrapped, self.wrappedProtocol = self.wrappedProtocol, None
        if wrapped is not None:
            wrapped.connectionLost(reason)


def _addressOf(end: End) -> IPv4Address | IPv6Address:
    kind = IPv4Address if end.address.version == 4 else IPv6Address
    return kind("TCP", str(end.address), end.port)
