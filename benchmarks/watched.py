"""
A mirror whose memory and timers can be examined while it is idle (L{benchmarks.inside}).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.clients import HOST
from benchmarks.servers import Certificates, Hub, behind, listens
from benchmarks.usage import MIB, Usage, settled
from tests.integration.programs import Server, eventually, freePort

#: The mirror's C{idle-timeout} in seconds.  It is shorter than the default because L{Watched.rest}
#: waits for it.
_IDLE = 10
_TIMEOUT = 60


@dataclass(frozen=True)
class Doors:
    """
    The ports of the mirror.

    @ivar tls: the port with TLS.
    @ivar plain: the port without TLS.
    @ivar bundle: the file with the CA certificate, in PEM.
    """

    tls: int
    plain: int
    bundle: Path


@dataclass(frozen=True)
class Rest:
    """
    The resources of an idle mirror.

    @ivar memory: the memory of the process in MiB.
    @ivar blocks: the blocks in use of Python's allocator.
    @ivar allocated: the memory in use of malloc in MiB.  Small Python objects are not part of it.
    @ivar files: the number of open files, including sockets.
    @ivar timers: the number of the reactor's timers, by the function that they call.
    @ivar types: the number of objects, by type.
    """

    TITLES = ("MiB", "blocks", "MiB of malloc", "files", "timers")

    memory: float
    blocks: int
    allocated: float
    files: int
    timers: Counter[str]
    types: Counter[str]

    def cells(self) -> list[str]:
        """The cells of a table's row, in the order of L{TITLES}."""
        counts = map(str, (self.files, sum(self.timers.values())))
        return [f"{self.memory:.1f}", str(self.blocks), f"{self.allocated:.1f}", *counts]


class Watched:
    """
    A mirror, which the caller has to start.

    @param options: further options of hubmirror.
    @ivar doors: the ports.
    """

    def __init__(
        self, folder: Path, hub: Hub, certificates: Certificates, options: Sequence[str]
    ) -> None:
        folder.mkdir()
        self._file = folder / "look.json"
        self._files = 0
        self.doors = Doors(freePort(), freePort(), certificates.bundle)
        pem = certificates.server
        command = [
            *(sys.executable, "-m", "benchmarks.inside", str(self._file), "-n", "hubmirror"),
            f"--port=ssl:{self.doors.tls}:interface={HOST}:privateKey={pem}:certKey={pem}",
            f"--port=tcp:{self.doors.plain}:interface={HOST}",
            *behind(hub, certificates),
            f"--search-url=https://{hub.host}:{hub.ports['cdn']}",
            f"--idle-timeout={_IDLE}",
            *options,
        ]
        self._server = Server(
            "mirror", command, folder, ready=lambda: listens(HOST, self.doors.tls)
        )

    def start(self) -> None:
        """Start the mirror, or restart it if it runs."""
        self._server.stop()
        self._server.start()
        self._files = self.files()

    def stop(self) -> None:
        """Stop the mirror, and wait until it has ended."""
        self._server.stop()

    def memory(self) -> float:
        """The memory in use, in MiB."""
        return Usage(self._server.pid).memory()

    def files(self) -> int:
        """The number of open files."""
        return len(os.listdir(f"/proc/{self._server.pid}/fd"))

    def defects(self) -> int:
        """The number of critical messages in the log, which stand for defects."""
        return self._server.output().count("#critical]")

    def rest(self) -> Rest:
        """
        Wait until all connections are closed, including idle ones, but at most L{_TIMEOUT}
        seconds.  Then examine the mirror.
        """
        deadline = time.monotonic() + _TIMEOUT
        while self.files() > self._files and time.monotonic() < deadline:
            time.sleep(0.5)
        memory = settled(self.memory, 0.25)
        self._file.unlink(missing_ok=True)
        os.kill(self._server.pid, signal.SIGUSR1)
        eventually(self._file.exists, "a look into the mirror", _TIMEOUT)
        seen: dict[str, Any] = json.loads(self._file.read_text())
        return Rest(
            memory,
            seen["blocks"],
            seen["bytes"] / MIB,
            self.files(),
            Counter(seen["timers"]),
            Counter(seen["types"]),
        )
