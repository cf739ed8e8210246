"""
Connecting to a host that has several addresses.  The next address is tried when an attempt fails or
has taken 0.3 s, and the families of the addresses alternate (RFC 8305).  If the attempts for all
addresses fail, the most informative one of their errors is reported.

Twisted's C{HostnameEndpoint} also waits after a failure, and tries one family after the other: on a
machine without a route for IPv6, a host with eight such addresses would take 2.4 s.  It reports the
attempt that failed last, and refuses names that IDNA 2008 does not permit but DNS does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IProtocolFactory,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.transport.failures import mostTelling

# The time in seconds after which the next address is tried.
_DELAY = 0.3


class Attempts:
    """
    Limits the number of simultaneous attempts, not counting the first one of each connection.
    Without a limit, a host with sixteen addresses that do not respond would take sixteen file
    descriptors for each request.
    """

    def __init__(self, most: int) -> None:
        """
        @param most: the largest number of these attempts, for all connections together.
        """
        self._most = most
        self.underWay = 0

    def begin(self) -> bool:
        """
        Begin an attempt, if the limit permits it.

        @return: whether the attempt may be made.  If so, L{end} must be called when it is over.
        """
        if self.underWay >= self._most:
            return False
        self.underWay += 1
        return True

    def end(self) -> None:
        """
        Count an attempt that is over.
        """
        self.underWay -= 1


@implementer(IStreamClientEndpoint)
class AddressesEndpoint:
    """
    Connects to the first of a host's addresses that accepts.
    """

    def __init__(
        self,
        reactor: Any,
        resolver: IHostnameResolver,
        host: str,
        port: int,
        timeout: float,
        attempts: Attempts,
    ) -> None:
        """
        @param timeout: the time for each attempt, in seconds.
        """
        self.reactor = reactor
        self.timeout = timeout
        self.attempts = attempts
        self._resolver = resolver
        self._place = (host, port)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        @see: L{IStreamClientEndpoint.connect}
        """
        connecting = _Connecting(self, protocolFactory)
        self._resolver.resolveHostName(connecting, *self._place)
        return connecting.connected


@implementer(IResolutionReceiver)
class _Connecting:
    """
    Receives the addresses of a host, and makes the attempts of one connection.

    @ivar connected: fires with the protocol.
    """

    def __init__(self, endpoint: AddressesEndpoint, factory: IProtocolFactory) -> None:
        self.connected: Deferred[Any] = Deferred(lambda _: self._end())
        self._endpoint = endpoint
        self._factory = factory
        self._addresses: list[IAddress] = []
        self._untried: deque[IAddress] = deque()
        self._pending: set[Deferred[Any]] = set()
        # In the order in which the attempts failed.
        self._failures: list[Failure] = []
        self._timer: IDelayedCall | None = None
        self._ended = False

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """
        Do nothing: a late result is ignored.
        """

    def addressResolved(self, address: IAddress) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        if self._ended:
            return
        if not self._addresses:
            self._failures.append(Failure(DNSLookupError("there is no address")))
        self._untried.extend(_alternating(self._addresses))
        self._tryNext()

    def _tryNext(self) -> None:
        isFurther = bool(self._pending)
        if self._untried:
            self._tryNextAfter(_DELAY)
            if not isFurther or self._endpoint.attempts.begin():
                self._attempt(self._untried.popleft(), isFurther)
        elif not isFurther:
            self._end()
            self.connected.errback(mostTelling(self._failures))

    def _tryNextAfter(self, delay: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._endpoint.reactor.callLater(delay, self._tryNext)

    def _attempt(self, address: Any, isFurther: bool) -> None:
        kind = TCP6ClientEndpoint if isinstance(address, IPv6Address) else TCP4ClientEndpoint
        endpoint = kind(self._endpoint.reactor, address.host, address.port, self._endpoint.timeout)
        attempt: Deferred[Any] = endpoint.connect(self._factory)
        self._pending.add(attempt)

        def over(result: Any) -> Any:
            self._pending.remove(attempt)
            if isFurther:
                self._endpoint.attempts.end()
            return result

        attempt.addBoth(over).addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, protocol: Any) -> None:
        self._end()
        self.connected.callback(protocol)

    def _failed(self, reason: Failure) -> None:
        if not self._ended:
            self._failures.append(reason)
            self._tryNextAfter(0)

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for attempt in list(self._pending):
            attempt.cancel()


def _alternating(addresses: Sequence[IAddress]) -> list[IAddress]:
    """
    The addresses in the order in which they are tried: from the two families in turn, beginning
    with that of the first address.
    """
    first = [each for each in addresses if type(each) is type(addresses[0])]
    others = [each for each in addresses if type(each) is not type(addresses[0])]
    return [each for pair in zip_longest(first, others) for each in pair if each is not None]
