"""
What a worker gets from its supervisor (L{hubmirror.workers}): sockets that are listened on already,
and the pipes by which the two know of each other.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, cast

import attrs
from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

VARIABLE = "HUBMIRROR_WORKER"
"""
The variable in a worker's environment that says what it inherits.
"""


@attrs.frozen
class Inheritance:
    """
    What a worker inherits from the supervisor.

    @ivar sockets: file descriptor and address family of each listening socket, in the order of
        the ports.
    @ivar via: the name in C{Via}.
    @ivar reports: the file descriptor of a pipe to the supervisor, for reports.
    @ivar rates: that of the memory of L{hubmirror.downstream.rates}, which all workers share.
    """

    sockets: Sequence[tuple[int, int]]
    via: str
    reports: int
    rates: int

    def encode(self) -> str:
        """
        The value of the environment variable.
        """
        return json.dumps([self.sockets, self.via, self.reports, self.rates])


def inheritance() -> Inheritance | None:
    """
    What this process has inherited; C{None} when it is not a worker.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return None
    sockets, via, reports, rates = json.loads(value)
    return Inheritance([(fd, family) for fd, family in sockets], via, reports, rates)


class AdoptingReactor:
    """
    A reactor whose C{listenTCP} and C{listenSSL} take the next inherited socket instead of binding
    one.
    """

    def __init__(self, reactor: Any, sockets: Sequence[tuple[int, int]]) -> None:
        self._reactor = reactor
        self._sockets = iter(sockets)

    def listenTCP(self, port: int, factory: Any, *_: Any, **__: Any) -> Any:
        """
        Listen on the next socket.  The port has a descriptor of its own: as long as this one were
        open too, the kernel would take connections in that nobody accepts while the worker drains.
        """
        fd, family = next(self._sockets)
        port = self._reactor.adoptStreamPort(fd, family, factory)
        os.close(fd)
        return port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IReadDescriptor)
class Lifeline:
    """
    The standard input of a worker.  The supervisor, which has its other end, writes a byte when it
    wants a report.  It is closed when the supervisor is gone, and the worker then ends, too.
    """

    def __init__(self, reactor: Any, asked: Callable[[], None]) -> None:
        """
        @param asked: called when a report is wanted.
        """
        self._reactor = reactor
        self._asked = asked

    def fileno(self) -> int:
        return 0

    def logPrefix(self) -> str:
        return "lifeline"

    def doRead(self) -> Failure | None:
        if os.read(self.fileno(), 1024):
            self._asked()
            return None
        # The reactor wants an exception, whatever its interface says of a failure.
        return cast(Failure, CONNECTION_DONE)

    def connectionLost(self, reason: Failure) -> None:
        """
        The other end is gone, or the reactor is stopping.
        """
        if self._reactor.running:
            os.kill(os.getpid(), signal.SIGTERM)


class ReportPipe(FileDescriptor):
    """
    A worker's end of the pipe for reports, which are lines of JSON.
    """

    def __init__(self, reactor: Any, fd: int) -> None:
        super().__init__(reactor)
        self._fd = fd
        self.connected = 1
        fdesc.setNonBlocking(fd)

    def fileno(self) -> int:
        return self._fd

    def writeSomeData(self, data: bytes) -> Any:
        return fdesc.writeToFD(self._fd, data)

    def send(self, report: object) -> None:
        """
        Send a report.
        """
        self.write(json.dumps(report).encode() + b"\n")
