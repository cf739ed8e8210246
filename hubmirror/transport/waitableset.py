"""
A set that can be waited on until it is empty.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class WaitableSet(set[Any]):
    """
    The requests in progress, or the open connections.  Members are removed with C{discard}, the
    only method that notices when the set becomes empty.
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
        @return: fires when none is left.
        """
        empty: Deferred[None] = Deferred()
        if self:
            self._waiting.append(empty)
        else:
            empty.callback(None)
        return empty
