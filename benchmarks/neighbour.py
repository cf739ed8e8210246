"""
A process that keeps the memory busy, like other programs on the same machine.

It copies blocks that are too large for the caches of the processor, so that other processes have
less of the caches and of the memory's bandwidth.  The program runs until it is killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: The size of a block in bytes, which is several times one processor's share of the last cache.
_SIZE = 256 << 20


@contextmanager
def busyMemory() -> Iterator[None]:
    """Let another process copy blocks until the context ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.neighbour"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    """Copy between two blocks, back and forth."""
    one, other = bytearray(_SIZE), bytearray(_SIZE)
    print("copying", flush=True)
    while True:
        one[:] = other
        other[:] = one


if __name__ == "__main__":
    main()
