"""
Runs a mirror in a process of its own, with C{twistd hubmirror}.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

PATIENCE = 5.0
"""
Seconds that a mirror has to end after SIGTERM, before it is killed.
"""

_COMMAND = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
_LISTENING = re.compile(rb"listening on (https?://\S+)")


class NotRunning(Exception):
    """
    The mirror's process ended before it was listening.  The text has the last line of its output.
    """


class Twistd(ProcessProtocol):
    """
    The process of a mirror.

    @ivar listening: fires with the URL when the mirror listens, or fails with L{NotRunning}.
    @ivar pid: the process ID.
    """

    def __init__(self, reactor: Any, folder: str, options: Sequence[str]) -> None:
        """
        @param folder: the working directory, which has the C{server.pem} of C{ssl:} ports.
        @param options: the options of C{twistd hubmirror}.
        """
        self.listening: Deferred[str] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._reactor = reactor
        self._output = b""
        self._process = reactor.spawnProcess(
            self,
            _COMMAND[0],
            [*_COMMAND, "-n", "--pidfile=", "hubmirror", *options],
            # The process must use this copy of hubmirror, which may not be installed.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            path=folder,
        )
        self.pid: int = self._process.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._output = (self._output + data)[-4096:]
        found = _LISTENING.search(self._output)
        if found is not None and not self.listening.called:
            self.listening.callback(found[1].decode("ascii"))

    def processEnded(self, reason: Failure) -> None:
        if not self.listening.called:
            lines = self._output.decode("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "nothing")
            self.listening.errback(NotRunning(f"twistd ended, and said last: {last.strip()}"))
        self._ended.callback(None)

    async def stop(self) -> None:
        """
        Stop the process, and wait until it has ended.
        """
        self._signal("TERM")
        killing = self._reactor.callLater(PATIENCE, self._signal, "KILL")
        await self._ended
        if killing.active():
            killing.cancel()

    def _signal(self, name: str) -> None:
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(name)
