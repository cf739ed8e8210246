"""
Detecting a receiver that accepts no data.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class PauseWatch:
    """
    Detects that a receiver has stalled: that it has paused its sender for too long.  One timer
    serves all pauses, because a slow receiver causes thousands of them.
    """

    def __init__(self, reactor: IReactorTime, seconds: float, stalled: Callable[[], None]) -> None:
        """
        @param seconds: how long one pause may last.
        @param stalled: called when a pause has lasted for so long.
        """
        self._reactor = reactor
        self._seconds = seconds
        self._stalled = stalled
        self._since: float | None = None
        self._call: IDelayedCall | None = None

    def pause(self) -> None:
        """
        The sender has been paused.
        """
        self._since = self._reactor.seconds()
        if self._call is None:
            self._call = self._reactor.callLater(self._seconds, self._check)

    def resume(self) -> None:
        """
        The sender has been resumed.
        """
        self._since = None

    def stop(self) -> None:
        """
        Stop watching.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _check(self) -> None:
        self._call = None
        now = self._reactor.seconds()
        left = (now if self._since is None else self._since) + self._seconds - now
        if left > 0:
            self._call = self._reactor.callLater(left, self._check)
        else:
            self._stalled()
