"""
Opens connections to an origin: name resolution, the check of addresses, outgoing proxies, TLS.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from OpenSSL import crypto
from twisted.internet import error, ssl
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IHostnameResolver, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from hubmirror.protocol.addresses import hostAddress
from hubmirror.protocol.errors import AddressRefused, ConnectFailed, ConnectTimedOut
from hubmirror.protocol.forwarded import Address
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.transport.attempts import AddressesEndpoint, Attempts
from hubmirror.transport.failures import checkDescriptors, connectFailure
from hubmirror.transport.http1client import UpstreamConnection
from hubmirror.transport.identity import UpstreamTLS
from hubmirror.transport.proxying import ProxiedEndpoint
from hubmirror.transport.resolving import CheckedResolver, OneNameResolver, ServerResolver
from hubmirror.transport.tlsendpoints import BulkTLSEndpoint

_MAX_ENDPOINTS = 256
_MAX_ATTEMPTS = 64
_HOST_NAME = re.compile(rb"(?=.{1,254}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?\Z")
_ANY_NAME = "upstream.invalid"
"""
The name that the endpoint is given, which would refuse some that exist.
"""

Permits = Callable[[Origin, Address], bool]
"""
Whether this origin may be connected to at this address.
"""


def loadTrust(caFile: str | None) -> Any:
    """
    Load the CA certificates that upstream certificates are verified with.

    @param caFile: a PEM bundle, or C{None} for the system's CAs.
    @raise ValueError: when there is no certificate in the file, or no file.
    """
    if caFile is None:
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
    A connection was given up before there was one: whoever gives up because of the time knows by
    this that it was not the answer that took too long.
    """


class Connector:
    """
    Opens connections.  The TLS context and the encoded name of an origin are created once and kept.
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
        @param timeout: seconds for name, connection and handshake together.
        @param resolver: address and port of a DNS server.
        @param proxy: C{http://} or C{socks5://} URL.
        @param plainTLS: use Twisted's own TLS.
        @param attempts: bounds the attempts to connect, together with those of other connectors.
        """
        self._attempts = attempts or Attempts(_MAX_ATTEMPTS)
        self._reactor = reactor
        self._trust = trust
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
        @raise ConnectFailed: when there is none in time; L{ConnectTimedOut}, L{AddressRefused} and
            L{LocalFailure} among them.
        @raise ConnectCancelled: when this is cancelled.
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
            # The context is kept, and must not be one that could not read its certificates.
            checkDescriptors()
            tls = UpstreamTLS(origin.host.decode("ascii"), self._trust)
            endpoint = (
                wrapClientTLS(tls, endpoint)
                if self._plainTLS
                else BulkTLSEndpoint(self._reactor, tls, endpoint)
            )
        return endpoint, addresses

    def _hostname(self, resolver: IHostnameResolver, origin: Origin) -> IStreamClientEndpoint:
        """
        @raise ValueError: when there can be no such host.
        """
        if b":" not in origin.host and not _HOST_NAME.match(origin.host):
            raise ValueError("not a host's name")
        return AddressesEndpoint(
            self._reactor,
            OneNameResolver(resolver, origin.host.decode("ascii")),
            _ANY_NAME,
            origin.port,
            self._timeout,
            self._attempts,
        )

    def _proxied(self, proxy: str, origin: Origin) -> IStreamClientEndpoint:
        # The proxy looks names up, so only what stands for an address by itself can be checked.
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
    The same, failing with L{ConnectCancelled} when it is cancelled.  An endpoint fails in its own
    way then; while it looks a name up, as if there were no such name.
    """

    def cancel(outer: Deferred[Any]) -> None:
        outer.errback(ConnectCancelled())
        attempt.cancel()

    outer: Deferred[Any] = Deferred(cancel)
    attempt.addBoth(lambda result: None if outer.called else outer.callback(result))
    return outer


def _timedOut(_: object, timeout: float) -> None:
    raise ConnectTimedOut(f"could not connect within {timeout:g} s")
