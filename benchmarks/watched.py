"""
A mirror that can be looked into, and what it holds when nothing is asked of it.
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

#: Seconds that the mirror keeps what is idle: less than by default, since they are waited for.
_IDLE = 10
_CLOSE_TIMEOUT = 60


@dataclass(frozen=True)
class Doors:
    """
    Where the mirror is reached, and how.

    @ivar tls: the port with TLS.
    @ivar plain: the one without.
    @ivar bundle: the CA certificate, PEM.
    """

    tls: int
    plain: int
    bundle: Path


@dataclass(frozen=True)
class Rest:
    """
    The mirror when nothing is asked of it.

    @ivar memory: MiB.
    @ivar blocks: of Python's allocator that are in use.
    @ivar allocated: MiB that are in use of malloc, which has what is no small object of Python.
    @ivar files: that are open, sockets among them.
    @ivar timers: of the reactor, by what they call.
    @ivar types: of the objects.
    """

    TITLES = ("MiB", "blocks", "MiB of malloc", "files", "timers")

    memory: float
    blocks: int
    allocated: float
    files: int
    timers: Counter[str]
    types: Counter[str]

    def cells(self) -> list[str]:
        """Under L{TITLES}."""
        counts = map(str, (self.files, sum(self.timers.values())))
        return [f"{self.memory:.1f}", str(self.blocks), f"{self.allocated:.1f}", *counts]


class Watched:
    """
    A mirror, not started yet.

    @ivar doors: where it is reached.
    @param options: beyond those that it needs here.
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
        """Start it, anew where it runs."""
        self._server.stop()
        self._server.start()
        self._files = self.files()

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._server.stop()

    def memory(self) -> float:
        """MiB now."""
        return Usage(self._server.pid).memory()

    def files(self) -> int:
        """How many are open now."""
        return len(os.listdir(f"/proc/{self._server.pid}/fd"))

    def defects(self) -> int:
        """How many its log tells of: each is critical."""
        return self._server.output().count("#critical]")

    def rest(self) -> Rest:
        """
        Wait until the connections are gone, the idle ones too, but not for ever; then look.
        """
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        while self.files() > self._files and time.monotonic() < deadline:
            time.sleep(0.5)
        memory = settled(self.memory, 0.25)
        self._file.unlink(missing_ok=True)
        os.kill(self._server.pid, signal.SIGUSR1)
        eventually(self._file.exists, "a look into the mirror", _CLOSE_TIMEOUT)
        seen: dict[str, Any] = json.loads(self._file.read_text())
        return Rest(
            memory,
            seen["blocks"],
            seen["bytes"] / MIB,
            self.files(),
            Counter(seen["timers"]),
            Counter(seen["types"]),
        )
