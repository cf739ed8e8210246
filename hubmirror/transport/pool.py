"""
The pool of connections to upstreams.  A connection is kept after a response, reused, and closed
when it has been idle for some time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer

from hubmirror.protocol.errors import LocalFailure, StaleConnection
from hubmirror.protocol.url import Origin
from hubmirror.transport.connecting import Connector
from hubmirror.transport.http1client import UpstreamConnection, UpstreamResponse

MAX_IDLE = 64
"""
The largest number of idle connections to each origin.
"""

_REPEATABLE = (b"GET", b"HEAD", b"OPTIONS", b"DELETE")

_Key = tuple[Connector, Origin]


class Pool:
    """
    Sends requests to origins.  All origins of a process share one limit, because redirects can lead
    to many origins.

    @ivar connections: the number of connections that are open or being opened, including idle ones.
    """

    def __init__(
        self, reactor: IReactorTime, idleTimeout: float, most: int, overlap: int = 0
    ) -> None:
        """
        @param idleTimeout: the time for which an idle connection is kept, in seconds.
        @param most: the largest number of connections in all.  When one more is needed, the one
            that has been idle for the longest time is closed.
        @param overlap: how many connections may exceed C{most} when none is idle.  With them, an
            exchange that needs a second connection does not have to wait until the response on its
            first one has been discarded.
        """
        self._reactor = reactor
        self._idleTimeout = idleTimeout
        self._most = most
        self._overlap = overlap
        # The idle connections of each origin, in the order in which they became idle.
        self._idle: dict[_Key, dict[UpstreamConnection, None]] = {}
        # All idle connections, each with the time since when it has been idle, in that order.
        self._resting: OrderedDict[UpstreamConnection, tuple[_Key, float]] = OrderedDict()
        self._sweeping: IDelayedCall | None = None
        self._opening = 0
        self._open: set[UpstreamConnection] = set()
        # The connections that the pool has aborted but whose connectionLost has not been called.
        self._ending: set[UpstreamConnection] = set()
        self._closing = False

    @property
    def connections(self) -> int:
        return len(self._open) + self._opening

    def request(
        self,
        connector: Connector,
        origin: Origin,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> Deferred[UpstreamResponse]:
        """
        Send a request to an origin.  If a kept connection turns out to be closed, an idempotent
        request (RFC 9110 section 9.2.2) without a body is sent once more, over a new connection.

        @param connector: opens the connections.  Connectors do not share connections, because they
            may trust different certificates.
        @param target: the request target, which is sent unchanged.
        @return: a deferred that fires with the response when its head has been received.  It fails
            with L{UpstreamFailed<hubmirror.protocol.errors.UpstreamFailed>}, or its subclass
            L{LocalFailure} when there are too many connections.
        """
        key = (connector, origin)

        async def askNew() -> UpstreamResponse:
            connection = await self._connect(key)
            return await connection.send(method, target, origin.authority, headers, body)

        def askAgain(reason: Failure) -> Deferred[UpstreamResponse]:
            reason.trap(StaleConnection)
            if self._closing or body is not None or method not in _REPEATABLE:
                reason.raiseException()
            return Deferred.fromCoroutine(askNew())

        kept = self._takeIdle(key)
        if kept is None:
            return Deferred.fromCoroutine(askNew())
        return kept.send(method, target, origin.authority, headers, body).addErrback(askAgain)

    async def _connect(self, key: _Key) -> UpstreamConnection:
        connector, origin = key
        if self.connections >= self._most:
            if self._resting:
                self._close(next(iter(self._resting)))
            elif self.connections >= self._most + self._overlap:
                raise LocalFailure("the mirror has too many connections to upstreams")
        self._opening += 1
        try:
            connection = await connector.connect(origin, lambda ready: self._keep(key, ready))
        finally:
            self._opening -= 1
        self._open.add(connection)
        connection.closed.addCallback(lambda _: self._forget(connection))
        return connection

    def _takeIdle(self, key: _Key) -> UpstreamConnection | None:
        idle = self._idle.get(key)
        if not idle:
            return None
        # Use the one that became idle last.  Connections that are not needed then reach their idle
        # timeout.
        connection = next(reversed(idle))
        self._leave(connection)
        return connection

    def _keep(self, key: _Key, connection: UpstreamConnection) -> None:
        isFull = self.connections > self._most or len(self._idle.get(key, ())) >= MAX_IDLE
        if isFull or self._closing:
            self._close(connection)
            return
        self._idle.setdefault(key, {})[connection] = None
        self._resting[connection] = (key, self._reactor.seconds())
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(self._idleTimeout, self._sweep)

    def _sweep(self) -> None:
        """
        Close the connections that have been idle for too long.  One timer serves all connections; a
        timer for each use of a connection would cost more than the use itself.
        """
        self._sweeping = None
        now = self._reactor.seconds()
        while self._resting:
            connection, (_key, since) = next(iter(self._resting.items()))
            left = since + self._idleTimeout - now
            if left > 0:
                self._sweeping = self._reactor.callLater(left, self._sweep)
                return
            self._close(connection)

    def _close(self, connection: UpstreamConnection) -> None:
        self._leave(connection)
        if connection in self._open:
            self._open.discard(connection)
            self._ending.add(connection)
        connection.abort()

    def _leave(self, connection: UpstreamConnection) -> None:
        """
        Remove a connection from the idle ones, if it is one of them.
        """
        key, _since = self._resting.pop(connection, (None, 0.0))
        if key is None:
            return
        idle = self._idle[key]
        del idle[connection]
        if not idle:
            del self._idle[key]

    def _forget(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        self._ending.discard(connection)
        self._leave(connection)
        if not self._resting:
            self._stopSweeping()

    def _stopSweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def close(self) -> Deferred[Any]:
        """
        Close all connections.

        @return: a deferred that fires when they are closed.
        """
        self._closing = True
        self._stopSweeping()
        ending = [connection.closed for connection in (*self._open, *self._ending)]
        for connection in list(self._open):
            connection.abort()
        return gatherResults(ending)
