"""
Reading or discarding short response bodies, and detecting a body that has stalled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from hubmirror.protocol.errors import BodyFailed

MAX_SHORT_BODY = 64 * 1024
"""
The largest body, in bytes, that is read into memory, or that is read to its end only to reuse the
connection.
"""

DISCARD_TIME = 5.0
"""
The time, in seconds, in which a discarded body has to end for its connection to be reused.
"""


class _ShortBody(Protocol):
    transport: Any

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._stop())
        self._pieces: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > MAX_SHORT_BODY:
            self._stop()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if self.done.called:
            return
        if self._size <= MAX_SHORT_BODY and reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._pieces))
        else:
            self.done.errback(BodyFailed("a body that should be short is broken or too long"))

    def _stop(self) -> None:
        self.transport.stopProducing()


def readShortBody(response: IResponse, reactor: IReactorTime, timeout: float) -> Deferred[bytes]:
    """
    Read a body of at most L{MAX_SHORT_BODY} bytes.

    @param timeout: the time for the whole body, in seconds.
    @return: a deferred that fires with the body, or fails with L{BodyFailed} when it breaks, is too
        long or takes too long.
    """

    def timedOut(_: object, timeout: float) -> NoReturn:
        raise BodyFailed(f"a short body took more than {timeout:g} s")

    small = _ShortBody()
    response.deliverBody(small)
    return small.done.addTimeout(timeout, reactor, timedOut)


def discard(response: IResponse, reactor: IReactorTime) -> None:
    """
    Discard a response.  A short body is read to its end, so that the connection can be reused.  If
    the body is longer than L{MAX_SHORT_BODY} or takes longer than L{DISCARD_TIME}, the connection
    is closed.
    """
    readShortBody(response, reactor, DISCARD_TIME).addErrback(lambda _: None)


class StallWatch:
    """
    Detects that a sender has stalled: that for some time it has sent nothing, or has sent below a
    minimum rate.  The time during which the sender is paused does not count, so that a slow
    receiver does not look like a stalled sender.
    """

    def __init__(
        self, reactor: IReactorTime, seconds: float, floor: float, stalled: Callable[[], None]
    ) -> None:
        """
        @param seconds: the time without a byte, or below the minimum rate, that counts as stalled.
        @param floor: the minimum rate, in bytes per second.
        @param stalled: called once, when the sender has stalled.
        """
        self._reactor = reactor
        self._seconds = seconds
        self._least = floor * seconds
        self._stalled = stalled
        self._paused = False
        self._call: IDelayedCall | None = None
        self._restart()

    def _restart(self) -> None:
        self._alive = self._since = self._reactor.seconds()
        self._bytes = 0

    def start(self) -> None:
        """
        Start to watch the sender.
        """
        self.stop()
        self._restart()
        self._call = self._reactor.callLater(self._seconds, self._check)

    def stop(self) -> None:
        """
        Stop watching.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def received(self, size: int) -> None:
        """
        Count received bytes.

        @param size: their number.
        """
        self._alive = self._reactor.seconds()
        self._bytes += size

    def pause(self) -> None:
        """
        Stop the clock: the sender has been paused.
        """
        self._paused = True

    def resume(self) -> None:
        """
        Restart the clock: the sender has been resumed.
        """
        if self._paused:
            self._paused = False
            self._restart()

    def _check(self) -> None:
        self._call = None
        now = self._reactor.seconds()
        if self._paused:
            self._restart()
        elif now - self._alive >= self._seconds:
            self._stalled()
            return
        elif now - self._since >= self._seconds:
            if self._bytes < self._least:
                self._stalled()
                return
            self._since, self._bytes = now, 0
        due = min(self._alive, self._since) + self._seconds - now
        self._call = self._reactor.callLater(due, self._check)
