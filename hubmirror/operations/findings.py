"""
The findings of the doctor's checks, and the exceptions by which a check reports one.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Finding:
    """
    The result of one check.

    @ivar check: the check's name.
    @ivar state: C{ok}, C{note} (worth knowing, but not wrong), or C{WRONG}.
    @ivar text: one line.
    @ivar remedy: what to do about it; may be empty.
    @ivar registry: the registry that was checked; empty when the check concerns all registries.
    """

    check: str
    state: str
    text: str
    remedy: str = ""
    registry: str = ""

    def lines(self) -> list[str]:
        """
        Describe the finding in one or two lines.
        """
        lines = [f"{self.state:<5}  {self.check:<10}  {self.text}"]
        return [*lines, f"{'':17}  -> {self.remedy}"] if self.remedy else lines


class Note(Exception):
    """
    A check has found something that is not wrong, but worth knowing.  The text is one line.

    @ivar remedy: what to do about it; may be empty.
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
