"""
Small bodies, read whole or thrown away, and the watch over those that are passed on.
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
Bytes of a body that is read whole, or to its end so that its connection can be kept.
"""

DISCARD_TIME = 5.0
"""
Seconds that a body gets to end which is read only so that its connection can be kept.
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
    A body of at most L{MAX_SHORT_BODY} bytes.

    @param timeout: seconds for all of it.
    @return: fails with L{BodyFailed}.
    """

    def timedOut(_: object, timeout: float) -> NoReturn:
        raise BodyFailed(f"a short body took more than {timeout:g} s")

    small = _ShortBody()
    response.deliverBody(small)
    return small.done.addTimeout(timeout, reactor, timedOut)


def discard(response: IResponse, reactor: IReactorTime) -> None:
    """
    Read a short body that nobody wants, so that its connection can be kept; end one that is long
    or takes more than L{DISCARD_TIME}.
    """
    readShortBody(response, reactor, DISCARD_TIME).addErrback(lambda _: None)


class StallWatch:
    """
    Notices when nothing comes for a while, or too little, from an upstream that may send.  A
    slow client must not look like a stalled upstream: time in which it made us wait is not
    counted.
    """

    def __init__(
        self, reactor: IReactorTime, seconds: float, floor: float, stalled: Callable[[], None]
    ) -> None:
        """
        @param seconds: without a byte, or below the floor.
        @param floor: bytes for each second.
        @param stalled: called once, when it happens.
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
        From now on bytes are expected.
        """
        self.stop()
        self._restart()
        self._call = self._reactor.callLater(self._seconds, self._check)

    def stop(self) -> None:
        """
        They no longer are.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def received(self, size: int) -> None:
        """
        Some came.
        """
        self._alive = self._reactor.seconds()
        self._bytes += size

    def pause(self) -> None:
        """
        The upstream is made to wait.
        """
        self._paused = True

    def resume(self) -> None:
        """
        It may send again.
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
