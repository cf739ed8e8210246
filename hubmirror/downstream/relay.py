"""
Relays the body of a response to a client.  The relay is the only object between the two
connections.  It queues nothing: when the client's connection is full, the upstream's is paused.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from zope.interface import implementer

from hubmirror.exchange import Exchange, Outcome
from hubmirror.transport.pausewatch import PauseWatch


def abortRequest(request: Any) -> None:
    """
    Abort the response to a client, so that the client can't mistake it for a complete one.
    HTTP/1.1 aborts the connection, HTTP/2 resets the stream.
    """
    channel = request.channel
    if channel is not None:
        (channel if hasattr(channel, "abortConnection") else channel.transport).abortConnection()


@implementer(IPushProducer)
class Relay(Protocol):
    """
    Receives the body of one response and writes it to one request.

    @ivar done: a deferred that fires with the outcome.  Cancel it when the client has left: the
        reset of an HTTP/2 stream does not stop the producer.
    """

    def __init__(
        self,
        request: Any,
        exchange: Exchange,
        reactor: IReactorTime,
        clientTimeout: float,
        length: int | None,
    ) -> None:
        """
        @param request: the request, whose response head has been set.
        @param clientTimeout: the time for which the client may accept no data, in seconds.
        @param length: the length of the body in bytes; C{None} when it is not known.
        """
        self.done: Deferred[Outcome] = Deferred(lambda _: self.stopProducing())
        self._request: Any = request
        self._exchange = exchange
        self._reactor = reactor
        self._length = length
        # A client that accepts nothing occupies an upstream's connection.
        self._watch = PauseWatch(reactor, clientTimeout, lambda: self._stop(Outcome.CLIENT_STALLED))

    def connectionMade(self) -> None:
        self._request.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._exchange.sent += len(data)
        self._request.write(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        whole = reason.check(ResponseDone) and (
            self._length is None or self._length == self._exchange.sent
        )
        self._end(Outcome.COMPLETE if whole else Outcome.BROKEN)

    # Called by the client's connection

    def pauseProducing(self) -> None:
        self._watch.pause()
        transport: Any = self.transport
        transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._watch.resume()
        transport: Any = self.transport
        transport.resumeProducing()

    def stopProducing(self) -> None:
        """
        The client's connection has been lost.
        """
        self._stop(Outcome.CLIENT_LEFT)

    def _stop(self, outcome: Outcome) -> None:
        if not self.done.called:
            self._end(outcome)
            transport: Any = self.transport
            transport.stopProducing()

    def _end(self, outcome: Outcome) -> None:
        if self.done.called:
            return
        self._watch.stop()
        if outcome is not Outcome.CLIENT_LEFT:
            self._request.unregisterProducer()
            if outcome is Outcome.COMPLETE:
                self._request.finish()
            else:
                abortRequest(self._request)
        # The upstream's connection still refers to this relay, which must not keep the client's
        # connection in memory.
        self._request = None
        self.done.callback(outcome)
