"""
An agent that reaches embedded registries in memory, without sockets, for tests with a Clock.
"""

from collections.abc import Iterable
from itertools import count

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.test.iosim import FakeTransport, IOPump
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import directlyProvides, implementer

from hubmirror.testing.origin import Origin

_SERVER = IPv4Address("TCP", "127.0.0.1", 443)


@implementer(IAgent, IAgentEndpointFactory)
class MemoryAgent:
    """
    An agent whose connections lead to embedded registries in memory, with real HTTP on both sides.

    C{request} transfers the request and its response before it returns, if the response is
    available.  Bytes that are written later (a body in pieces, a request on a connection of
    C{endpointForURI}) are transferred when C{flush} is called.  The connections never pause a
    producer: tests of backpressure need real ones.
    """

    def __init__(
        self, reactor: IReactorTime, origins: Iterable[Origin], pool: HTTPConnectionPool | None
    ) -> None:
        # This is not copied, because a registry may be added later.
        self._origins = origins
        self._pumps: list[IOPump] = []
        self._agent = Agent.usingEndpointFactory(reactor, self, pool)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send a request, as for L{IAgent.request}.
        """
        response: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        self.flush()
        return response

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """
        The endpoint in memory for the origin of a URI.  Its C{connect} fails when no embedded
        registry has the origin.
        """
        url = (uri.scheme + b"://" + uri.netloc).decode()
        found = (origin for origin in self._origins if origin.url == url)
        return _MemoryEndpoint(next(found, None), self._pumps)

    def flush(self) -> None:
        """
        Transfer bytes in both directions until none are left.
        """
        while any(pump.flush() for pump in list(self._pumps)):
            pass
        self._pumps[:] = [pump for pump in self._pumps if not pump.clientIO.disconnected]


@implementer(IStreamClientEndpoint)
class _MemoryEndpoint:
    _ports = count(49152)

    def __init__(self, origin: Origin | None, pumps: list[IOPump]) -> None:
        self._origin = origin
        self._pumps = pumps

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        if self._origin is None:
            return fail(DNSLookupError("not an origin of an embedded registry"))
        if self._origin.refusing:
            return fail(ConnectionRefusedError())
        here = IPv4Address("TCP", "127.0.0.1", next(self._ports))
        server = self._origin.site.buildProtocol(here)
        client = protocolFactory.buildProtocol(_SERVER)
        assert client is not None, "the factory refused to connect"
        serverIO = _ServerTransport(server, isServer=True, hostAddress=_SERVER, peerAddress=here)
        clientIO = FakeTransport(client, isServer=False, hostAddress=here, peerAddress=_SERVER)
        for transport in (serverIO, clientIO):
            directlyProvides(transport, ISSLTransport)
        serverIO.pump = _Pump(client, server, clientIO, serverIO, debug=False)
        server.makeConnection(serverIO)
        client.makeConnection(clientIO)
        serverIO.pump.flush()
        self._pumps.append(serverIO.pump)
        return succeed(client)


class _Pump(IOPump):
    """
    A pump that can be flushed by what it transfers.
    """

    _isFlushing = False

    def flush(self, debug: bool = False, advanceClock: bool = True) -> bool:
        if self._isFlushing:
            return False
        self._isFlushing = True
        try:
            return bool(super().flush(debug, advanceClock))
        finally:
            self._isFlushing = False


class _ServerTransport(FakeTransport):
    """
    The server's side of a connection, which can reset it.
    """

    pump: _Pump

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.stream.clear()
        self.pump.flush()

    def bufferReceived(self, buf: bytes) -> None:
        if not self.disconnecting:
            super().bufferReceived(buf)
