"""
One connection to a host that has several addresses: an attempt for each, and of all their errors
the one that tells most.
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
    Counts the attempts that are under way beside the first one of each connection.  A host with
    sixteen addresses, none of which answers, would take sixteen file descriptors for each request.
    """

    def __init__(self, most: int) -> None:
        """
        @param most: of them, for all connections together.
        """
        self._most = most
        self.underWay = 0

    def begin(self) -> bool:
        """
        @return: whether there may be one more; if so, L{end} must follow.
        """
        if self.underWay >= self._most:
            return False
        self.underWay += 1
        return True

    def end(self) -> None:
        """
        One is over.
        """
        self.underWay -= 1


class _Watched:
    """
    A client factory, which tells when its attempt is over.
    """

    def __init__(self, factory: Any, over: Callable[[Failure | None], None]) -> None:
        """
        @param over: called with the failure, or with C{None} when there is a connection.
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
    What the attempts of one connection are made with.

    @ivar failures: of those that are over, in order.
    """

    def __init__(self, reactor: Any, resolver: IHostnameResolver, attempts: Attempts) -> None:
        super().__init__(reactor, resolver)
        self._attempts = attempts
        self._pending = 0
        self.failures: list[Failure] = []

    def connectTCP(self, host: str, port: int, factory: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Begin an attempt.

        @raise ConnectError: when there may be none.  That is no failure to be counted: the other
            attempts decide.
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
    A C{HostnameEndpoint} whose failure takes all addresses into account.  Twisted's is that of the
    attempt that failed last, which is often IPv6's on a machine that has none.
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
        @param timeout: seconds for each attempt.
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
