"""
Closing a port without losing the connections that have been established with it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.internet.tcp import Port

FIRST_REQUEST = 3.0
"""
Seconds in which a connection that has not had a request yet gets one when its port is closed.
Clients repeat a request whose connection was closed only if it was not the first on it (Go's
C{net/http}, C{shouldRetryRequest}).
"""

_MOST = 4096
"""
Connections that are accepted at most; Linux limits a backlog to about that (listen(2)).
"""


def closePort(reactor: IReactorTime, port: IListeningPort) -> Deferred[Any]:
    """
    Accept the connections that wait in the backlog, and stop listening.

    Closing the socket would reset these connections.  Their clients see a connection that was
    established and then lost, which they do not repeat as they would a refused one.

    @return: a deferred that fires when the port is closed.
    """
    # stopListening closes the socket in the next iteration, and this call precedes that.
    reactor.callLater(0, _acceptWaiting, port)
    return maybeDeferred(port.stopListening)


def _acceptWaiting(port: IListeningPort) -> None:
    if isinstance(port, Port) and port.connected:
        port.numberAccepts = _MOST
        port.doRead()
