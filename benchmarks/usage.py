"""
Measures the resources of a program in all of its processes, with Linux's C{/proc}.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1024 * 1024


class Usage:
    """
    The resources of a process and all of its descendants.

    @param pid: the ID of the process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu(self) -> float:
        """The CPU time so far, user and system, in seconds."""
        # The number of a process's CPU clock is computed as in clock_getcpuclockid(3).
        # /proc/PID/stat has the same sum in steps of 10 ms, which is too coarse for a thousand
        # requests.
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self._pids())

    def memory(self) -> float:
        """The memory in use in MiB: PSS, in which memory that processes share counts once."""
        return sum(_kib(pid, "smaps_rollup", "Pss:") for pid in self._pids()) / 1024

    def resetPeak(self) -> None:
        """Reset L{peak}."""
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """The sum of the processes' peak resident memory, in MiB."""
        return sum(_kib(pid, "status", "VmHWM:") for pid in self._pids()) / 1024

    def sockets(self) -> int:
        """The number of open sockets."""
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
    """The number of established IPv4 connections to a port of this machine."""
    # proc(5): the second column is the local address, the fourth the state; 1 is ESTABLISHED.
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def settled(value: Callable[[], float], tolerance: float, timeout: float = 20) -> float:
    """
    Wait until a value does not change for a second, and return it.

    @param tolerance: the difference that counts as no change.
    @param timeout: seconds after which the value is returned in any case.
    """
    deadline = time.monotonic() + timeout
    before = value()
    while True:
        time.sleep(1)
        now = value()
        if abs(now - before) <= tolerance or time.monotonic() > deadline:
            return now
        before = now
