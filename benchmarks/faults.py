"""
Simulate each fault of tests.faults.table many times, over TLS on
loopback, and print a table of what the client received.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from twisted.internet.task import react

from tests.faults.loopback import Stand
from tests.faults.table import FAULTS, Fault

_TITLES = ("The CDN ...", "tried", "whole", "aborted", "bytes lost")


async def attempt(reactor: Any, fault: Fault) -> tuple[bool, int]:
    """
    Pull the blob once.

    @return: whether the response ended properly, and, if so, how many of its bytes were missing or
        wrong.
    """
    stand = Stand(reactor)
    try:
        got = await stand.suffer(fault)
    finally:
        await stand.stop()
    if not got.isWhole:
        return False, 0
    wanted = fault.wanted(stand.blob)
    wrong = sum(a != b for a, b in zip(got.body, wanted, strict=False)) if got.body != wanted else 0
    return True, wrong + abs(len(got.body) - len(wanted))


async def tryAll(reactor: Any, times: int) -> None:
    """
    Simulate each fault C{times} times, and print the table.
    """
    rows = [_TITLES]
    totals = [0, 0, 0, 0]
    for fault in FAULTS:
        results = [await attempt(reactor, fault) for _ in range(times)]
        whole = sum(isWhole for isWhole, _ in results)
        figures = [times, whole, times - whole, sum(lost for _, lost in results)]
        totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
        rows.append((fault.name, *map(str, figures)))
        print(*rows[-1], file=sys.stderr, flush=True)
    rows.append(("together", *map(str, totals)))
    print(table(rows))


def table(rows: list[tuple[str, ...]]) -> str:
    """
    Format rows as a table in reStructuredText; the first row is the header.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    first, *others = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([rule, first, rule, *others, rule])


def main() -> None:
    """
    Run the command.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="that each is tried; by default 10")
    react(tryAll, [parser.parse_args().times])


if __name__ == "__main__":
    main()
