"""
A neighbour that keeps the memory busy, as other programs of the same machine do.

What it copies fits into no cache, so whoever else copies has less of the caches and of the
memory's bandwidth.  As a program it copies until it is ended.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Bytes, several times the last cache's share of one processor.
_SIZE = 256 << 20


@contextmanager
def busyMemory() -> Iterator[None]:
    """For as long as the context lasts, another process copies all the time."""
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
    """Copy forth and back."""
    one, other = bytearray(_SIZE), bytearray(_SIZE)
    print("copying", flush=True)
    while True:
        one[:] = other
        other[:] = one


if __name__ == "__main__":
    main()
