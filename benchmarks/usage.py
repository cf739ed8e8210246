"""
What a program uses, all its processes together: CPU, memory, sockets. Linux tells.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024


class Usage:
    """
    A program's processes: the one that was started, and all that it started in turn.

    @param pid: of the one that was started.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system."""
        # The process's CPU clock, as clock_getcpuclockid(3) makes its number: /proc/PID/stat has
        # the same sum in steps of 10 ms, too coarse for a thousand requests.
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self._pids())

    def memory(self) -> float:
        """MiB of memory now: PSS, in which what processes share counts once."""
        return sum(_kib(pid, "smaps_rollup", "Pss:") for pid in self._pids()) / 1024

    def resetPeak(self) -> None:
        """Let L{peak} begin anew."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """MiB that were resident at most, each process by itself."""
        return sum(_kib(pid, "status", "VmHWM:") for pid in self._pids()) / 1024

    def sockets(self) -> int:
        """How many sockets are open."""
        return sum(_sockets(pid) for pid in self._pids())

    def _pids(self) -> list[int]:
        pids = [self._pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return pids


def _kib(pid: int, file: str, field: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise LookupError(f"no {field} in /proc/{pid}/{file}")


def _sockets(pid: int) -> int:
    folder = f"/proc/{pid}/fd"
    found = 0
    for fd in os.listdir(folder):
        try:
            found += os.readlink(f"{folder}/{fd}").startswith("socket:")
        except FileNotFoundError:  # closed while we looked
            continue
    return found


def connections(port: int) -> int:
    """How many clients are connected to a port of this machine, IPv4."""
    # proc(5): the second column is the local address, the fourth the state; 1 is ESTABLISHED.
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def settled(value: Callable[[], float], tolerance: float, timeout: float = 20) -> float:
    """
    Wait until a value stays as it is for a second, and give it.

    @param timeout: seconds, after which it counts as it is.
    """
    deadline = time.monotonic() + timeout
    before = value()
    while True:
        time.sleep(1)
        now = value()
        if abs(now - before) <= tolerance or time.monotonic() > deadline:
            return now
        before = now
