"""
Connecting to a host that has several addresses.  If the attempts for all addresses fail, the most
informative one of their errors is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHostnameResolver, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.transport.failures import mostTelling
from hubmirror.transport.resolving import ResolvingReactor


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


class _Watched:
    """
    A client factory that reports when its attempt is over.
    """

    def __init__(self, factory: Any, over: Callable[[Failure | None], None]) -> None:
        """
        @param over: called with the failure, or with C{None} when the connection is established.
        """
        self._factory = factory
        self._over = over

    def buildProtocol(self, address: Any) -> Any:
        self._over(None)
        return self._factory.buildProtocol(address)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._over(reason)
        self._factory.clientConnectionFailed(connector, reason)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)


class _AttemptingReactor(ResolvingReactor):
    """
    The reactor for the attempts of one connection.

    @ivar failures: the failures of the attempts that are over, in the order in which they failed.
    """

    def __init__(self, reactor: Any, resolver: IHostnameResolver, attempts: Attempts) -> None:
        super().__init__(reactor, resolver)
        self._attempts = attempts
        self._pending = 0
        self.failures: list[Failure] = []

    def connectTCP(self, host: str, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Begin an attempt.

        @raise ConnectError: when the limit does not permit it.  This is not added to C{failures},
            because only the other attempts indicate something about the host.
        """
        isFurther = self._pending > 0
        if isFurther and not self._attempts.begin():
            raise ConnectError(string="too many addresses are being tried at once")
        self._pending += 1

        def over(reason: Failure | None) -> None:
            self._pending -= 1
            if isFurther:
                self._attempts.end()
            if reason is not None:
                self.failures.append(reason)

        try:
            return self._reactor.connectTCP(host, port, _Watched(factory, over), *args, **kwargs)
        except Exception:
            over(Failure())
            raise


@implementer(IStreamClientEndpoint)
class AddressesEndpoint:
    """
    A C{HostnameEndpoint} whose failure takes all addresses into account.  Twisted's endpoint
    reports the attempt that failed last, which on a machine without IPv6 is often an IPv6 one.
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
        self._reactor = reactor
        self._resolver = resolver
        self._place = (host, port)
        self._timeout = timeout
        self._attempts = attempts

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        @see: L{IStreamClientEndpoint.connect}
        """
        reactor = _AttemptingReactor(self._reactor, self._resolver, self._attempts)
        endpoint = HostnameEndpoint(reactor, *self._place, timeout=self._timeout)

        def failed(reason: Failure) -> Failure:
            return mostTelling(reactor.failures) if reactor.failures else reason

        connecting: Deferred[Any] = endpoint.connect(protocolFactory)
        return connecting.addErrback(failed)
