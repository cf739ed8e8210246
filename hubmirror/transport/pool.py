"""
The connections to upstreams: kept open when their answer is done, used again, ended when idle.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer

from hubmirror.protocol.errors import StaleConnection
from hubmirror.protocol.url import Origin
from hubmirror.transport.connecting import Connector
from hubmirror.transport.http1client import UpstreamConnection, UpstreamResponse

MAX_IDLE = 64
"""
Idle connections kept for each origin.
"""

_REPEATABLE = (b"GET", b"HEAD", b"OPTIONS", b"DELETE")


class Pool:
    """
    Sends requests to origins.
    """

    def __init__(self, reactor: IReactorTime, connector: Connector, idleTimeout: float) -> None:
        """
        @param idleTimeout: seconds that an idle connection is kept.
        """
        self._reactor = reactor
        self._connector = connector
        self._idleTimeout = idleTimeout
        # Those of an origin by the time since when they are idle, the longest first.
        self._idle: dict[Origin, dict[UpstreamConnection, float]] = {}
        self._sweeping: IDelayedCall | None = None
        self._open: set[UpstreamConnection] = set()
        self._closing = False

    def request(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> Deferred[UpstreamResponse]:
        """
        Ask an origin.  A kept connection that turns out to be closed is replaced, once and only
        for what may be asked twice (RFC 9110 9.2.2).

        @param target: goes into the request line as it is.
        @return: fails with L{UpstreamFailed} when no answer's head comes.
        """

        async def askNew() -> UpstreamResponse:
            connection = await self._connector.connect(
                origin, lambda connection: self._keep(origin, connection)
            )
            self._open.add(connection)
            connection.closed.addCallback(lambda _: self._forget(origin, connection))
            return await connection.send(method, target, origin.authority, headers, body)

        def askAgain(reason: Failure) -> Deferred[UpstreamResponse]:
            reason.trap(StaleConnection)
            if self._closing or body is not None or method not in _REPEATABLE:
                reason.raiseException()
            return Deferred.fromCoroutine(askNew())

        kept = self._takeIdle(origin)
        if kept is None:
            return Deferred.fromCoroutine(askNew())
        return kept.send(method, target, origin.authority, headers, body).addErrback(askAgain)

    def _takeIdle(self, origin: Origin) -> UpstreamConnection | None:
        idle = self._idle.get(origin)
        if not idle:
            return None
        # The latest: those that are not needed then grow old and end.
        connection, _since = idle.popitem()
        return connection

    def _keep(self, origin: Origin, connection: UpstreamConnection) -> None:
        idle = self._idle.setdefault(origin, {})
        if self._closing or len(idle) >= MAX_IDLE:
            connection.abort()
            return
        idle[connection] = self._reactor.seconds()
        if self._sweeping is None:
            self._sweeping = self._reactor.callLater(self._idleTimeout, self._sweep)

    def _sweep(self) -> None:
        """
        End those that have been idle for too long.  One timer for all of them: one for each use of
        a connection would cost more than the use.
        """
        self._sweeping = None
        now = self._reactor.seconds()
        oldest = now
        for idle in self._idle.values():
            for connection, since in list(idle.items()):
                if now - since >= self._idleTimeout:
                    del idle[connection]
                    connection.abort()
                else:
                    oldest = min(oldest, since)
                    break
        if any(self._idle.values()):
            self._sweeping = self._reactor.callLater(oldest + self._idleTimeout - now, self._sweep)

    def _forget(self, origin: Origin, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(origin, {})
        idle.pop(connection, None)
        if not idle:
            self._idle.pop(origin, None)
        if not self._idle:
            self._stopSweeping()

    def _stopSweeping(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None

    def close(self) -> Deferred[Any]:
        """
        End all connections.

        @return: fires when they are closed.
        """
        self._closing = True
        self._stopSweeping()
        ending = [connection.closed for connection in self._open]
        for connection in list(self._open):
            connection.abort()
        return gatherResults(ending)
