"""
The connections to upstreams: kept open when their answer is done, used again, ended when idle.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
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
        self._idle: dict[Origin, list[UpstreamConnection]] = {}
        self._timers: dict[UpstreamConnection, IDelayedCall] = {}
        self._open: set[UpstreamConnection] = set()
        self._closing = False

    async def request(
        self,
        origin: Origin,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> UpstreamResponse:
        """
        Ask an origin.  A kept connection that turns out to be closed is replaced, once and only
        for what may be asked twice (RFC 9110 9.2.2).

        @param target: goes into the request line as it is.
        @raise UpstreamFailed: when no answer's head comes.
        """
        kept = self._takeIdle(origin)
        if kept is not None:
            try:
                return await kept.send(method, target, origin.authority, headers, body)
            except StaleConnection:
                if self._closing or body is not None or method not in _REPEATABLE:
                    raise
        connection = await self._connector.connect(
            origin, lambda connection: self._keep(origin, connection)
        )
        self._open.add(connection)
        connection.closed.addCallback(lambda _: self._forget(origin, connection))
        return await connection.send(method, target, origin.authority, headers, body)

    def _takeIdle(self, origin: Origin) -> UpstreamConnection | None:
        idle = self._idle.get(origin)
        if not idle:
            return None
        # The latest: those that are not needed then grow old and end.
        connection = idle.pop()
        self._timers.pop(connection).cancel()
        return connection

    def _keep(self, origin: Origin, connection: UpstreamConnection) -> None:
        idle = self._idle.setdefault(origin, [])
        if self._closing or len(idle) >= MAX_IDLE:
            connection.abort()
            return
        idle.append(connection)
        self._timers[connection] = self._reactor.callLater(
            self._idleTimeout, self._expire, origin, connection
        )

    def _expire(self, origin: Origin, connection: UpstreamConnection) -> None:
        self._drop(origin, connection)
        connection.abort()

    def _drop(self, origin: Origin, connection: UpstreamConnection) -> None:
        del self._timers[connection]
        idle = self._idle[origin]
        idle.remove(connection)
        if not idle:
            del self._idle[origin]

    def _forget(self, origin: Origin, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        timer = self._timers.get(connection)
        if timer is not None:
            timer.cancel()
            self._drop(origin, connection)

    def close(self) -> Deferred[Any]:
        """
        End all connections.

        @return: fires when they are closed.
        """
        self._closing = True
        ending = [_closed(connection) for connection in self._open]
        for connection in list(self._open):
            connection.abort()
        return gatherResults(ending)


def _closed(connection: UpstreamConnection) -> Deferred[None]:
    closed: Deferred[None] = Deferred()
    connection.closed.addCallback(closed.callback)
    return closed
