"""
A set that can report when it becomes empty.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class WaitableSet(set[Any]):
    """
    A set of requests in progress or of open connections.  Members must be removed with L{discard},
    the only method that notices when the set becomes empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[Deferred[None]] = []

    def discard(self, member: Any) -> None:
        super().discard(member)
        if not self:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)

    def whenEmpty(self) -> Deferred[None]:
        """
        @return: a deferred that fires when the set is empty.
        """
        empty: Deferred[None] = Deferred()
        if self:
            self._waiting.append(empty)
        else:
            empty.callback(None)
        return empty
