"""
A worker's side of the supervisor (L{hubmirror.workers}): the listening sockets and the
configuration that it inherits, and the pipes to the supervisor.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_SH, LOCK_UN, lockf
from io import BytesIO
from typing import Any, cast

import attrs
from twisted.internet import fdesc
from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.config import MirrorConfig

VARIABLE = "HUBMIRROR_WORKER"
"""
The environment variable with a worker's L{Inheritance}.
"""


@attrs.frozen
class Inheritance:
    """
    What a worker inherits from the supervisor.

    @ivar sockets: the file descriptor and address family of each listening socket, in the order of
        the ports.
    @ivar via: the mirror's name in C{Via}, which all workers share.
    @ivar reports: the file descriptor of a pipe to the supervisor, for reports.
    @ivar rates: the file descriptor of the memory of L{hubmirror.downstream.rates}, which all
        workers share.
    @ivar key: the key of the hashes that stand for the identities of clients, which all workers
        share.
    @ivar config: the file descriptor of the memory for L{readConfig}, which all workers share.
    """

    sockets: Sequence[tuple[int, int]]
    via: str
    reports: int
    rates: int
    key: bytes
    config: int

    def encode(self) -> str:
        """
        The value for the environment variable.
        """
        return json.dumps(
            [self.sockets, self.via, self.reports, self.rates, self.key.hex(), self.config]
        )


def inheritance() -> Inheritance | None:
    """
    Read the environment variable; C{None} when this process is not a worker.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return None
    sockets, via, reports, rates, key, config = json.loads(value)
    sockets = [(fd, family) for fd, family in sockets]
    return Inheritance(sockets, via, reports, rates, bytes.fromhex(key), config)


def writeConfig(fd: int, config: MirrorConfig) -> None:
    """
    Replace the configuration in a file that processes share.
    """
    with _locked(fd, LOCK_EX):
        os.ftruncate(fd, 0)
        file = BytesIO()
        _Pickler(file).dump(config)
        os.pwrite(fd, file.getvalue(), 0)


def readConfig(fd: int) -> MirrorConfig:
    """
    Read what L{writeConfig} has written.
    """
    with _locked(fd, LOCK_SH):
        config: MirrorConfig = pickle.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    return config


class _Pickler(pickle.Pickler):
    """
    Pickles options as values by name.  A worker may be of a newer version of the mirror than its
    supervisor: it ignores options that it does not know, and further ones have their defaults.
    """

    def reducer_override(self, value: Any) -> Any:
        if attrs.has(type(value)):
            return _make, (type(value), attrs.asdict(value, recurse=False))
        return NotImplemented


def _make(cls: type[Any], values: dict[str, Any]) -> Any:
    known = attrs.fields_dict(cls)
    return cls(**{name: value for name, value in values.items() if name in known})


@contextmanager
def _locked(fd: int, how: int) -> Iterator[None]:
    lockf(fd, how)
    try:
        yield
    finally:
        lockf(fd, LOCK_UN)


class AdoptingReactor:
    """
    A reactor whose C{listenTCP} uses the next inherited socket instead of binding one.
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
    A worker's standard input, which is a pipe from the supervisor.  The supervisor writes a byte to
    request a report.  When the supervisor ends, the pipe is closed, and the worker ends, too.
    """

    def __init__(self, reactor: Any, asked: Callable[[], None]) -> None:
        """
        @param asked: called when the supervisor requests a report.
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
        # The reactor expects an exception here, although the interface declares a Failure.
        return cast(Failure, CONNECTION_DONE)

    def connectionLost(self, reason: Failure) -> None:
        """
        End the worker when the supervisor has ended.  The reactor calls this when it stops, too.
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
        Send a report.  It has C{closed} when the worker accepts no more connections.
        """
        self.write(json.dumps(report).encode() + b"\n")
