"""
What is there at the moment, and a word when nothing is any more.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class Crowd(set[Any]):
    """
    The requests under way, or the connections that there are.  They leave by C{discard}.
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
