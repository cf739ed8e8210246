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
from hubmirror.transport.servertls import FolderEndpoint, ServerTLS
from hubmirror.transport.tls import BulkTLS


def inBulk(reactor: IReactorTime, factory: TLSMemoryBIOFactory) -> TLSMemoryBIOFactory:
    """
    Make a factory create L{BulkTLS} protocols.

    @return: the same factory.
    """
    factory.protocol = partial(BulkTLS, reactor)  # type: ignore[assignment]
    return factory


class TLSReactor:
    """
    A reactor whose TLS ports use L{ServerTLS} and L{BulkTLS}.

    @ivar servers: the L{ServerTLS} of each endpoint whose description begins with C{ssl:}, in the
        order in which they began to listen.
    @ivar folders: the endpoints whose description begins with C{tls:}.
    """

    def __init__(self, reactor: Any, plain: bool = False) -> None:
        """
        @param plain: whether to use Twisted's own TLS protocol in place of L{BulkTLS}.
        """
        self._reactor = reactor
        self._plain = plain
        self.servers: list[ServerTLS] = []
        self.folders: list[FolderEndpoint] = []

    def behindBalancer(self) -> TLSReactor:
        """
        A reactor that shares C{servers} and C{folders}, and on which every connection begins with
        the PROXY protocol.
        """
        behind = TLSReactor(ProxiedReactor(self._reactor), self._plain)
        behind.servers, behind.folders = self.servers, self.folders
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
        Listen with TLS, for endpoints whose description begins with C{ssl:}.
        """
        server = ServerTLS({"": contextFactory})
        self.servers.append(server)
        return self.listenTCP(port, TLSMemoryBIOFactory(server, False, factory), *args, **kwargs)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Listen, for all other endpoints.  Some of them have wrapped their factory in TLS.
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
        @param creator: creates the OpenSSL connections.
        @param endpoint: opens the connections on which TLS is used.
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
