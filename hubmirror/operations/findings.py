"""
What the checks of the doctor find, and how one says that it has found something.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Finding:
    """
    What one check has found.

    @ivar check: the check's name.
    @ivar state: C{ok}, C{note} for what is worth knowing, or C{WRONG}.
    @ivar text: one line.
    @ivar remedy: what to do about it; may be empty.
    @ivar registry: the registry that was checked; empty for what concerns all of them.
    """

    check: str
    state: str
    text: str
    remedy: str = ""
    registry: str = ""

    def lines(self) -> list[str]:
        """
        The finding for people.
        """
        lines = [f"{self.state:<5}  {self.check:<10}  {self.text}"]
        return [*lines, f"{'':17}  -> {self.remedy}"] if self.remedy else lines


class Note(Exception):
    """
    A check has found something that is not wrong, but worth knowing.  The text is one line.
    """

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy


class Wrong(Exception):
    """
    A check has failed.  The text is one line.

    @ivar remedy: what to do about it; may be empty.
    """

    def __init__(self, text: str, remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
