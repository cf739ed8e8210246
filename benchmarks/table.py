"""
Formats the figures as a table in reStructuredText.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping


class Table:
    """
    The table: medians over the rounds, with a row for each figure and a column for each proxy.  The
    last columns are the ratios of the first proxy to each of the others.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, list[float]]] = {}

    def add(self, proxy: str, figures: Mapping[str, float]) -> None:
        """Add the figures of one round."""
        for row, value in figures.items():
            self._rows.setdefault(row, {}).setdefault(proxy, []).append(value)

    def __str__(self) -> str:
        proxies = list(next(iter(self._rows.values())))
        first, *others = proxies
        lines = [["", *proxies, *(f"/ {other}" for other in others)]]
        for row, found in self._rows.items():
            medians = {proxy: statistics.median(values) for proxy, values in found.items()}
            ratios = [_ratio(medians[first], medians[other]) for other in others]
            lines.append([row, *(_number(medians[proxy]) for proxy in proxies), *ratios])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rule = "  ".join("=" * width for width in widths)
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        # In reStructuredText, a row with an empty first cell continues the row before.
        text[0] = "\\" + text[0][1:]
        return "\n".join([rule, text[0], rule, *text[1:], rule])


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float, other: float) -> str:
    return f"{value / other:.2f}" if other else "-"
