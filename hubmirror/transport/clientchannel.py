"""
When and how a client's connection is closed, with either version of HTTP.

Data that was written may still be in the transport, or in the system's buffers, which hold several
megabytes.  The system drops them when the connection is aborted, and also when the client sends
anything, such as WINDOW_UPDATE, to a socket that is already closed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import TimeoutMixin

from hubmirror.transport.closingports import FIRST_REQUEST

# The time in seconds without data from the client after which Twisted's own TLS waits no longer for
# its close_notify.
_GOODBYE = 3.0


class ClientChannel(Protocol, TimeoutMixin):
    """
    A connection of a client.

    @ivar site: the C{MirrorSite} that serves the requests.
    @ivar full: whether the transport has paused this channel.
    """

    transport: Any

    site: Any = None
    full = False
    _idleTimeout: Any
    _closing = False
    # Whether TLS waits for the client's close_notify, and until when data from the client extends
    # that.
    _lingering = False
    _until = 0.0
    # The longest time for that in seconds, besides client-timeout.  With HTTP/1.1, a client that
    # goes on sending does not necessarily read.
    _longestGoodbye = 2 * _GOODBYE

    def _now(self) -> float:
        seconds: float = self.site.reactor.seconds()
        return seconds

    def isSecure(self) -> bool:
        return ISSLTransport.providedBy(self.transport)

    def _rest(self) -> None:
        """
        Limit the time for which the connection may be without a request, or, while the transport is
        full, the time for which the client may accept nothing of the last response.
        """
        timeout = self._idleTimeout
        if self.full:
            timeout = self.site.clientTimeout
        elif self.site.closing:
            timeout = min(timeout, FIRST_REQUEST)
        self.setTimeout(timeout)

    def _leave(self) -> None:
        """
        Close the connection when all written data has been sent, or when the client accepts none of
        it for C{client-timeout}.
        """
        self._closing = True
        # The transport tells its producer when everything has been sent.
        self.transport.loseConnection()
        if self.full:
            self.setTimeout(self.site.clientTimeout)
        else:
            self._allSent()

    def _allSent(self) -> None:
        """
        Wait for the client to close the connection, too.
        L{BulkTLS<hubmirror.transport.tls.BulkTLS>} closes it three seconds after the client's last
        data.  With Twisted's own TLS, this channel does the same.  In either case, this channel
        limits the time for a client that goes on sending.
        """
        timeout = self.site.clientTimeout
        self._lingering = self.isSecure()
        if self._lingering:
            timeout = min(timeout, self._longestGoodbye)
            self._until = self._now() + timeout
            if self.site.plain:
                timeout = _GOODBYE
        self.setTimeout(timeout)
        self.transport.unregisterProducer()

    def _receivedLate(self) -> None:
        """
        The client has sent data on a connection that is being closed: it may still be reading.
        """
        if self._lingering and self._now() < self._until:
            self.resetTimeout()

    def _leaveTimedOut(self) -> None:
        if self._lingering:
            self._lingering = False
            self.setTimeout(self.site.clientTimeout)
            # Close the connection below TLS.
            self.transport.transport.loseConnection()
        else:
            self.abortConnection()

    def abortConnection(self) -> None:
        """
        Close the connection immediately, so that the client does not take a partial response for a
        complete one.
        """
        self._closing = True
        self.transport.abortConnection()
