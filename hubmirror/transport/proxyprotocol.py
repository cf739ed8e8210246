"""
Ports behind a load balancer that sends the client's address in the PROXY protocol, version 1 or 2
(U{https://github.com/haproxy/haproxy/blob/master/doc/proxy-protocol.txt}).  With TLS, the
balancer's header precedes the client's handshake.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import TimeoutMixin
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.transport.closingports import FIRST_REQUEST, closePort
from hubmirror.transport.waitableset import WaitableSet

HEADER_TIMEOUT = 30.0
"""
The time, in seconds, within which the balancer's header and the client's first bytes must have been
received.
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
        inner = _Port(lambda wrapped: self._reactor.listenTCP(port, wrapped, *args, **kwargs))
        listening: list[IListeningPort] = []
        known = _Factory(self._reactor, factory)
        proxyEndpoint(inner).listen(known).addCallback(listening.append)
        return ProxiedPort(listening[0], known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class ProxiedPort(proxyForInterface(IListeningPort)):  # type: ignore[misc]
    """
    A port that is closed when the last connection that it has accepted has become known.

    @ivar original: the port of the reactor, which has the socket.
    """

    def __init__(self, original: IListeningPort, factory: _Factory) -> None:
        super().__init__(original)
        self._factory = factory

    def stopListening(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await closePort(self._factory.reactor, self.original)
        for connection in self._factory.unknown:
            connection.setTimeout(FIRST_REQUEST)
        await self._factory.unknown.whenEmpty()


@implementer(IStreamServerEndpoint)
class _Port:
    """
    The endpoint that L{proxyEndpoint} requires.
    """

    def __init__(self, listen: Any) -> None:
        self._listen = listen

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        @see: L{IStreamServerEndpoint.listen}
        """
        return succeed(self._listen(protocolFactory))


class _Factory(Factory):
    noisy = False

    def __init__(self, reactor: Any, wrapped: Any) -> None:
        self.reactor = reactor
        self.wrapped = wrapped
        self.unknown = WaitableSet()

    def buildProtocol(self, addr: Any) -> Protocol:
        return _FromClient(self, addr)

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self.wrapped.doStop()


class _FromClient(Protocol, TimeoutMixin):
    """
    Creates the actual protocol when the first bytes of the client are received.  Before that, the
    transport has only the balancer's address, and the limits for each client would apply to the
    balancer.
    """

    def __init__(self, factory: _Factory, address: Any) -> None:
        self._factory = factory
        self._address = address
        self._wrapped: Any = None

    def callLater(self, period: float, func: Any) -> Any:
        return self._factory.reactor.callLater(period, func)

    def connectionMade(self) -> None:
        self._factory.unknown.add(self)
        self.setTimeout(HEADER_TIMEOUT)

    def dataReceived(self, data: bytes) -> None:
        if self._wrapped is None:
            self.setTimeout(None)
            self._wrapped = self._factory.wrapped.buildProtocol(self._address)
            self._wrapped.makeConnection(self.transport)
            self._factory.unknown.discard(self)
        self._wrapped.dataReceived(data)

    def timeoutConnection(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        if self._wrapped is not None:
            self._wrapped.connectionLost(reason)
        else:
            self._factory.unknown.discard(self)
