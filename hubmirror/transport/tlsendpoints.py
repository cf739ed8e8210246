"""
Endpoints with L{BulkTLS}: under every description that listens with TLS, and around clients'.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from OpenSSL import SSL
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

from hubmirror.transport.tls import BulkTLS

_ENABLE_PARTIAL_WRITE = 1
"""
OpenSSL's C{SSL_MODE_ENABLE_PARTIAL_WRITE}, for which pyOpenSSL has no name.
"""


def inBulk(reactor: IReactorTime, factory: TLSMemoryBIOFactory) -> TLSMemoryBIOFactory:
    """
    Have a factory make L{BulkTLS}.
    """
    factory.protocol = partial(BulkTLS, reactor)  # type: ignore[assignment]
    return factory


class BulkTLSReactor:
    """
    A reactor on which listening with TLS is listening with L{BulkTLS}.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

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
        options = resuming(contextFactory)
        return self.listenTCP(port, TLSMemoryBIOFactory(options, False, factory), *args, **kwargs)

    def listenTCP(self, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        For all others, some of which have put TLS around their factory.
        """
        if isinstance(factory, TLSMemoryBIOFactory):
            factory = inBulk(self._reactor, factory)
        return self._reactor.listenTCP(port, factory, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


def resuming(options: CertificateOptions) -> CertificateOptions:
    """
    The same options for a server whose clients can take up sessions again, and which encrypts a
    batch at once.
    """
    again = CertificateOptions(
        privateKey=options.privateKey,
        certificate=options.certificate,
        extraCertChain=options.extraCertChain,
        dhParameters=options.dhParameters,
        # None stands for all versions that are safe, and is TLS_METHOD when it is looked at.
        method=None if options.method == SSL.TLS_METHOD else options.method,
        enableSessionTickets=True,
    )
    again.getContext().clear_mode(_ENABLE_PARTIAL_WRITE)
    return again


@implementer(IStreamClientEndpoint)
class BulkTLSEndpoint:
    """
    What C{wrapClientTLS} gives, with L{BulkTLS}.
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
