"""
A relay that observes a client's limit on bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from hubmirror.downstream.relay import Relay

_LEAST = 0.01
"""
A pause of at most this time, in seconds, is left out, because it would cost more than it brings.
The bytes count nevertheless, so that a later pause is longer.
"""


class PacedRelay(Relay):
    """
    A relay that pauses the upstream when its client has received more than its bandwidth allows.
    """

    def __init__(self, *args: Any, spend: Callable[[int], float]) -> None:
        """
        @param args: the parameters of L{Relay}.
        @param spend: called with the number of bytes that are sent.  It returns the time, in
            seconds, for which no more should be sent.
        """
        super().__init__(*args)
        self._spend = spend
        self._resting: IDelayedCall | None = None
        self._isPausedByClient = False

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        seconds = self._spend(len(data))
        if seconds > _LEAST and not self.done.called and self._resting is None:
            transport: Any = self.transport
            transport.pauseProducing()
            self._resting = self._reactor.callLater(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = None
        if not self._isPausedByClient:
            super().resumeProducing()

    def pauseProducing(self) -> None:
        self._isPausedByClient = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._isPausedByClient = False
        if self._resting is None:
            super().resumeProducing()
        else:
            # The client accepts data; the current pause does not count towards its timeout.
            self._watch.resume()

    def _end(self, *args: Any) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        super()._end(*args)
