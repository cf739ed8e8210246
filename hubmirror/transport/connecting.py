"""
Opens connections to an origin: name resolution, the check of addresses, outgoing proxies, TLS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from OpenSSL import crypto
from twisted.internet import error, ssl
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IHostnameResolver, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from hubmirror.protocol.addresses import hostAddress
from hubmirror.protocol.errors import (
    AddressRefused,
    ConnectFailed,
    ConnectTimedOut,
    HeadTimedOut,
    LocalFailure,
)
from hubmirror.protocol.forwarded import Address
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.transport.attempts import AddressesEndpoint, Attempts
from hubmirror.transport.failures import checkDescriptors, connectFailure
from hubmirror.transport.http1client import UpstreamConnection
from hubmirror.transport.identity import UpstreamTLS, upstreamOptions
from hubmirror.transport.proxying import ProxiedEndpoint
from hubmirror.transport.resolving import CheckedResolver, ServerResolver
from hubmirror.transport.tlsendpoints import BulkTLSEndpoint

_MAX_ENDPOINTS = 256
_MAX_ATTEMPTS = 64
# DNS names as in practice: with underscores, and with or without a dot at the end.
_HOST_NAME = re.compile(rb"(?=.{1,254}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?\Z")

Permits = Callable[[Origin, Address], bool]
"""
Whether the mirror may connect to an origin at an address.
"""


def loadTrust(caFile: str | None) -> Any:
    """
    Load the CA certificates with which upstream certificates are verified.

    @param caFile: the path of a PEM bundle, or C{None} for the system's CAs.
    @raise ValueError: when the file can't be read or contains no certificate, or when there is no
        file descriptor to read the system's CAs.
    """
    if caFile is None:
        try:
            checkDescriptors()
        except LocalFailure as problem:
            raise ValueError(f"the system's CAs can't be read: {problem.message}") from None
        return ssl.platformTrust()
    try:
        with open(caFile, "rb") as bundle:
            pem = bundle.read()
    except OSError as problem:
        raise ValueError(f"{caFile} can't be read: {problem.strerror}") from None
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
    try:
        certificates = [ssl.Certificate.loadPEM(block) for block in blocks]
    except crypto.Error:
        certificates = []
    if not certificates:
        raise ValueError(f"{caFile} contains no PEM certificates")
    return ssl.trustRootFromCertificates(certificates)


class ConnectCancelled(CancelledError):
    """
    The request for a connection was cancelled before the connection was established.  When a
    timeout cancels a request, this distinguishes a slow connection from a late response.
    """


def noHead(result: object, timeout: float) -> NoReturn:
    """
    The C{onTimeoutCancel} of C{Deferred.addTimeout} for requests to an upstream.

    @param result: the result of the request after it was cancelled.
    @param timeout: in seconds.
    @raise ConnectTimedOut: when no connection had been established yet.
    @raise HeadTimedOut: otherwise.
    """
    if isinstance(result, Failure) and result.check(ConnectCancelled):
        raise ConnectTimedOut(f"could not connect within {timeout:g} s")
    raise HeadTimedOut(f"no response head within {timeout:g} s")


class Connector:
    """
    Opens connections.  The endpoint of each origin is created once and kept.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        trust: Any,
        permits: Permits,
        timeout: float,
        resolver: tuple[str, int] | None = None,
        proxy: str | None = None,
        plainTLS: bool = False,
        attempts: Attempts | None = None,
    ) -> None:
        """
        @param trust: from L{loadTrust}.
        @param timeout: the time for name resolution, connection and TLS handshake together, in
            seconds.
        @param resolver: the address and port of a DNS server; by default, the system resolves.
        @param proxy: the URL of an outgoing proxy, C{http://} or C{socks5://}.
        @param plainTLS: whether to use Twisted's own TLS in place of
            L{BulkTLS<hubmirror.transport.tls.BulkTLS>}.
        @param attempts: limits the attempts to connect; connectors may share it.
        """
        self._attempts = attempts or Attempts(_MAX_ATTEMPTS)
        self._reactor = reactor
        self._tlsOptions = upstreamOptions(trust)
        self._permits = permits
        self._timeout = timeout
        self._names: IHostnameResolver = (
            reactor.nameResolver if resolver is None else ServerResolver(reactor, *resolver)
        )
        self._proxy = proxy
        self._plainTLS = plainTLS
        self._endpoints: dict[Origin, tuple[IStreamClientEndpoint, CheckedResolver]] = {}

    async def connect(
        self, origin: Origin, released: Callable[[UpstreamConnection], None]
    ) -> UpstreamConnection:
        """
        Open a connection and complete the TLS handshake.

        @param released: see L{UpstreamConnection}.
        @raise ConnectFailed: when no connection is established in time.  Its subclasses
            L{ConnectTimedOut}, L{AddressRefused} and
            L{LocalFailure<hubmirror.protocol.errors.LocalFailure>} give the cause.
        @raise ConnectCancelled: when the caller cancels.
        """
        try:
            endpoint, addresses = self._endpointOf(origin)
        except (ValueError, OSError):
            raise connectFailure(Failure()) from None
        factory = Factory.forProtocol(
            lambda: UpstreamConnection(self._reactor, origin.scheme == b"https", released)
        )
        factory.noisy = False
        opening: Deferred[Any] = maybeDeferred(endpoint.connect, factory)
        opening = _cancellable(opening.addCallback(lambda connection: connection.ready))
        opening.addTimeout(self._timeout, self._reactor, _timedOut)
        try:
            connection: UpstreamConnection = await opening
        except (ConnectFailed, CancelledError):
            raise
        except Exception as problem:
            refused = addresses.refused
            isUnknown = isinstance(problem, error.DNSLookupError)
            if isUnknown and refused is not None:
                raise _refusal(f"{origin}, whose address {refused} is not a public one") from None
            if isUnknown:
                checkDescriptors()
            raise connectFailure(Failure()) from None
        return connection

    def _endpointOf(self, origin: Origin) -> tuple[IStreamClientEndpoint, CheckedResolver]:
        try:
            return self._endpoints[origin]
        except KeyError:
            if len(self._endpoints) >= _MAX_ENDPOINTS:
                self._endpoints.clear()
            made = self._endpoints[origin] = self._makeEndpoint(origin)
            return made

    def _makeEndpoint(self, origin: Origin) -> tuple[IStreamClientEndpoint, CheckedResolver]:
        addresses = CheckedResolver(self._names, lambda address: self._permits(origin, address))
        if self._proxy is None:
            endpoint = self._hostname(addresses, origin)
        else:
            endpoint = self._proxied(self._proxy, origin)
        if origin.scheme == b"https":
            tls = UpstreamTLS(origin.host.decode("ascii"), self._tlsOptions)
            endpoint = (
                wrapClientTLS(tls, endpoint)
                if self._plainTLS
                else BulkTLSEndpoint(self._reactor, tls, endpoint)
            )
        return endpoint, addresses

    def _hostname(self, resolver: IHostnameResolver, origin: Origin) -> IStreamClientEndpoint:
        """
        The endpoint of a host, with addresses from a resolver.

        @raise ValueError: when the name can't be that of a host.
        """
        if b":" not in origin.host and not _HOST_NAME.match(origin.host):
            raise ValueError("not a host's name")
        return AddressesEndpoint(
            self._reactor,
            resolver,
            origin.host.decode("ascii"),
            origin.port,
            self._timeout,
            self._attempts,
        )

    def _proxied(self, proxy: str, origin: Origin) -> IStreamClientEndpoint:
        # The proxy resolves names, so only a host that is itself an address can be checked here.
        address = hostAddress(origin.host)
        if address is not None and not self._permits(origin, address):
            raise _refusal(f"{origin}, which stands for an address that is not a public one")
        scheme, _, rest = proxy.partition("://")
        place, _ = splitURL(b"http://" + rest.encode("ascii"))
        return ProxiedEndpoint(self._hostname(self._names, place), scheme == "socks5", origin)


def _refusal(where: str) -> AddressRefused:
    return AddressRefused(
        f"a redirect leads to {where}; if that is meant, allow it with --allow-redirects-to"
    )


def _cancellable(attempt: Deferred[Any]) -> Deferred[Any]:
    """
    A deferred with the result of another one, which fails with L{ConnectCancelled} when it is
    cancelled.  Endpoints fail in different ways when they are cancelled; while a name is resolved,
    the failure is the same as if the name did not exist.
    """

    def cancel(outer: Deferred[Any]) -> None:
        outer.errback(ConnectCancelled())
        attempt.cancel()

    outer: Deferred[Any] = Deferred(cancel)
    attempt.addBoth(lambda result: None if outer.called else outer.callback(result))
    return outer


def _timedOut(_: object, timeout: float) -> None:
    raise ConnectTimedOut(f"could not connect within {timeout:g} s")
