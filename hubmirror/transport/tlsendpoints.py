"""
Endpoints that use L{BulkTLS}: all server endpoints with TLS, and a wrapper for client endpoints.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from hubmirror.transport.proxyprotocol import ProxiedReactor
from hubmirror.transport.servertls import ServerTLS
from hubmirror.transport.tls import BulkTLS


def inBulk(reactor: IReactorTime, factory: TLSMemoryBIOFactory) -> TLSMemoryBIOFactory:
    """
    Make a factory create L{BulkTLS} protocols.
    """
    factory.protocol = partial(BulkTLS, reactor)  # type: ignore[assignment]
    return factory


class TLSReactor:
    """
    A reactor on which listening with TLS is listening with L{ServerTLS} and, unless it is to be
    Twisted's own TLS, with L{BulkTLS}.

    @ivar servers: what makes the connections of the endpoints that begin with C{ssl:}, in the order
        in which they were listened on.
    """

    def __init__(self, reactor: Any, plain: bool = False) -> None:
        """
        @param plain: use Twisted's own TLS protocol.
        """
        self._reactor = reactor
        self._plain = plain
        self.servers: list[ServerTLS] = []

    def behindBalancer(self) -> TLSReactor:
        """
        The same, on which every connection begins with the PROXY protocol.
        """
        behind = TLSReactor(ProxiedReactor(self._reactor), self._plain)
        behind.servers = self.servers
        return behind

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: CertificateOptions,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """
        For endpoints that begin with C{ssl:}.
        """
        server = ServerTLS({"": contextFactory})
        self.servers.append(server)
        return self.listenTCP(port, TLSMemoryBIOFactory(server, False, factory), *args, **kwargs)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        For all others, some of which have put TLS around their factory.
        """
        if isinstance(factory, TLSMemoryBIOFactory) and not self._plain:
            factory = inBulk(self._reactor, factory)
        return self._reactor.listenTCP(port, factory, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IStreamClientEndpoint)
class BulkTLSEndpoint:
    """
    The equivalent of C{wrapClientTLS} with L{BulkTLS}.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        creator: IOpenSSLClientConnectionCreator,
        endpoint: IStreamClientEndpoint,
    ) -> None:
        """
        @param creator: from C{optionsForClientTLS}.
        @param endpoint: makes the connections.
        """
        self._reactor = reactor
        self._creator = creator
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        @see: L{IStreamClientEndpoint.connect}
        """
        factory = inBulk(self._reactor, TLSMemoryBIOFactory(self._creator, True, protocolFactory))
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda tls: tls.wrappedProtocol)
