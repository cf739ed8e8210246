"""
Name resolution, by the system or by a configured DNS server, with a check of each address.

The check is part of the resolution, so that the mirror connects only to addresses that have been
checked.  A name that resolves differently the second time (DNS rebinding) has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.python.components import proxyForInterface
from zope.interface import implementer

from hubmirror.protocol.forwarded import Address, unmapped


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """
        Do nothing: the lookups have a timeout of their own.
        """


@implementer(IHostnameResolver)
class ServerResolver:
    """
    Resolves names with one DNS server.
    """

    def __init__(self, reactor: Any, address: str, port: int) -> None:
        """
        @param address: the server's IP address.
        @param port: the server's UDP and TCP port.
        """
        self._resolver = Resolver(servers=[(address, port)], timeout=(1, 2), reactor=reactor)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """
        @see: L{IHostnameResolver.resolveHostName}
        """
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        try:
            literal = ip_address(hostName)
        except ValueError:
            pass
        else:
            family = IPv4Address if literal.version == 4 else IPv6Address
            resolutionReceiver.addressResolved(family("TCP", hostName, portNumber))
            resolutionReceiver.resolutionComplete()
            return resolution

        def found(results: list[tuple[bool, Any]]) -> None:
            # IPv6 comes first, even without a route for it: unlike the system's resolver, this one
            # does not know the routes.
            for succeeded, answer in results:
                for record in answer[0] if succeeded else ():
                    if record.type == dns.AAAA:
                        host = str(ip_address(record.payload.address))
                        resolutionReceiver.addressResolved(IPv6Address("TCP", host, portNumber))
                    elif record.type == dns.A:
                        resolutionReceiver.addressResolved(
                            IPv4Address("TCP", record.payload.dottedQuad(), portNumber)
                        )
            resolutionReceiver.resolutionComplete()

        lookups: list[Deferred[Any]] = [
            self._resolver.lookupIPV6Address(hostName),
            self._resolver.lookupAddress(hostName),
        ]
        DeferredList(lookups, consumeErrors=True).addCallback(found)
        return resolution


class _CheckedReceiver(proxyForInterface(IResolutionReceiver)):  # type: ignore[misc]
    def __init__(self, original: IResolutionReceiver, check: Callable[[Address], bool]) -> None:
        super().__init__(original)
        self._check = check

    def addressResolved(self, address: IAddress) -> None:
        if self._check(unmapped(ip_address(address.host))):  # type: ignore[attr-defined]
            self.original.addressResolved(address)


@implementer(IHostnameResolver)
class CheckedResolver:
    """
    Removes the addresses to which the mirror must not connect.

    @ivar refused: an address that was removed in the last resolution; C{None} if there was none.
    """

    def __init__(self, original: IHostnameResolver, permits: Callable[[Address], bool]) -> None:
        self._original = original
        self._permits = permits
        self.refused: Address | None = None

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, *args: Any, **kwargs: Any
    ) -> IHostResolution:
        """
        @see: L{IHostnameResolver.resolveHostName}
        """
        self.refused = None

        def check(address: Address) -> bool:
            permitted = self._permits(address)
            if not permitted:
                self.refused = address
            return permitted

        return self._original.resolveHostName(
            _CheckedReceiver(resolutionReceiver, check), *args, **kwargs
        )
