"""
A look into a running mirror: C{python -m benchmarks.inside FILE ...} is C{twistd ...} that at each
SIGUSR1 writes to a file what the process holds.

It is a way to start the mirror, so that the mirror itself needs no door for this.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class _Allocated(ctypes.Structure):
    """C{struct mallinfo2} (mallinfo(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Allocated


def look() -> dict[str, Any]:
    """
    What the process holds, as JSON has it: C{blocks} of Python's allocator; C{bytes} of malloc,
    without those that it keeps free; C{timers} of the reactor by what they call; and objects by
    C{types}.
    """
    from twisted.internet import reactor

    timed: Any = reactor
    gc.collect()
    allocated = _mallinfo2()
    return {
        "blocks": sys.getallocatedblocks(),
        "bytes": allocated.uordblks + allocated.hblkhd,
        "timers": Counter(_name(call.func) for call in timed.getDelayedCalls()),
        "types": _types(gc.get_objects()),
    }


def _name(function: Any) -> str:
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name


def _types(objects: Iterable[object]) -> Counter[str]:
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects)


def main() -> None:
    """The command."""
    file = Path(sys.argv.pop(1))

    def tell(_number: int, _frame: object) -> None:
        written = file.with_suffix(".part")
        written.write_text(json.dumps(look()))
        os.replace(written, file)

    signal.signal(signal.SIGUSR1, tell)
    from twisted.scripts.twistd import run

    run()


if __name__ == "__main__":
    main()
