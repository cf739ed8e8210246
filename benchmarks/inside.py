"""
Reports the memory and timers of a running mirror.  C{python -m benchmarks.inside FILE ...} runs
C{twistd ...}, which then writes a report to the file at each SIGUSR1.

Because the mirror is started in this way, it needs no such function itself.
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
    """The C type C{struct mallinfo2} (mallinfo(3))."""

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
    Create a report, which can be converted to JSON.

    @return: C{blocks}: the blocks in use of Python's allocator; C{bytes}: the bytes in use of
        malloc; C{timers}: the number of the reactor's timers, by the function that they call;
        C{types}: the number of objects, by type.
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
    """Run the command."""
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
