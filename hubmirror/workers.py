"""
Several processes on the same ports: a supervisor binds the ports, and starts and restarts the
workers, which serve requests.

A worker runs the plugin under a C{twistd} of its own.  An environment variable describes the
sockets, the memory and the pipes that it inherits (L{hubmirror.worker}).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from hubmirror.admin.metrics import addReport
from hubmirror.admin.status import Status
from hubmirror.config import MirrorConfig, options
from hubmirror.downstream.rates import SIZE as RATES_SIZE
from hubmirror.operations.banner import announce, warn
from hubmirror.transport.proxyprotocol import ProxiedPort
from hubmirror.transport.sharedports import listenShared
from hubmirror.worker import VARIABLE, Inheritance, writeConfig

if TYPE_CHECKING:
    # The module needs prometheus-client, which is optional.
    from hubmirror.admin.site import AdminPort

_TWISTD = "from twisted.scripts.twistd import run; run()"
_LONGEST_DELAY = 30.0
_KILL_AFTER = 5.0
_BACKLOG = 1024
_ASK_EVERY = 5.0
_REPORT_TIMEOUT = 2.0
_MEMORY = "/dev/shm"


class _Worker(ProcessProtocol):
    """
    One worker.  When its process ends, another is started.

    @ivar report: the last report of the process, with the worker's number; C{None} when it has not
        reported yet.
    """

    _log = Logger()

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self._number = number
        self._delay = 1.0
        self._started = 0.0
        self._again: IDelayedCall | None = None
        self._ended: Deferred[None] | None = None
        self._received = b""
        self._asked: list[Deferred[None]] = []
        self.report: dict[str, Any] | None = None

    def start(self) -> None:
        """
        Start the process.
        """
        self._again = None
        self._started = self._supervisor.reactor.seconds()
        try:
            self._supervisor.spawn(self, self._number)
        except OSError as error:
            self._supervisor.ended(self._number)
            self._startLater("could not be started", str(error))

    def ask(self) -> Deferred[None]:
        """
        Ask the process for a report.

        @return: a deferred that fires when the report has been received, or immediately when there
            is no process.
        """
        asked: Deferred[None] = Deferred(self._asked.remove)
        self._asked.append(asked)
        process: Any = self.transport
        if process is None:
            self._answered()
        else:
            # A process that is ending may have closed its standard input.
            with suppress(KeyError):
                process.writeToChild(0, b"?")
        return asked

    def _answered(self) -> None:
        asked, self._asked = self._asked, []
        for each in asked:
            each.callback(None)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            self.report = {**json.loads(line), "worker": self._number}
            if self.report.get("closed"):
                # The worker drains, but this process still has its sockets.
                self._supervisor.ended(self._number)
        if lines:
            self._answered()

    def processEnded(self, reason: Failure) -> None:
        self.transport = None
        report, self.report, self._received = self.report, None, b""
        if report is not None:
            self._supervisor.counted(report)
        self._answered()
        self._supervisor.ended(self._number)
        if self._ended is not None:
            self._ended.callback(None)
            return
        self._startLater("ended", reason.getErrorMessage())

    def _startLater(self, what: str, reason: str) -> None:
        reactor = self._supervisor.reactor
        if reactor.seconds() - self._started > _LONGEST_DELAY:
            self._delay = 1.0
        self._log.error(
            "worker {number} {what} ({reason}); another starts in {delay:g} s",
            number=self._number,
            what=what,
            reason=reason,
            delay=self._delay,
        )
        self._again = reactor.callLater(self._delay, self.start)
        self._delay = min(_LONGEST_DELAY, 2 * self._delay)

    def stop(self) -> Deferred[None]:
        """
        Make the process drain and end.

        @return: a deferred that fires when the process has ended.
        """
        self._ended = Deferred()
        if self._again is not None:
            self._again.cancel()
        if self.transport is None:
            self._ended.callback(None)
        else:
            self.signal("TERM")
        return self._ended

    def signal(self, name: str) -> None:
        """
        Send the process a signal, if there is one.
        """
        process: Any = self.transport
        if process is not None:
            with suppress(ProcessExitedAlready):
                process.signalProcess(name)


class _Listening:
    """
    The sockets of one port, one for each worker.  The kernel distributes connections among them
    (C{SO_REUSEPORT}, socket(7)).  With a single shared socket, every connection would wake up all
    workers, and one worker would accept all connections of a burst.
    """

    def __init__(self, first: socket.socket, count: int) -> None:
        """
        @param first: the socket of the port, which is bound and listening.
        @param count: the number of workers.
        """
        self._first = first
        self._address = first.getsockname()
        self._sockets = [first]
        try:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for _ in range(count - 1):
                self._sockets.append(_another(first, self._address))
        except OSError:
            # All workers share the first socket, for instance when systemd has bound it.
            self.close()

    def take(self, number: int) -> socket.socket:
        """
        The listening socket of a worker; the first worker has number 1.
        """
        if len(self._sockets) == 1:
            return self._sockets[0]
        taken = self._sockets[number - 1]
        taken.listen(_BACKLOG)
        if taken.getsockname() != self._address:
            # A socket whose port the kernel chose gets another port when it listens again.
            taken = self._sockets[number - 1] = _another(taken, self._address)
        return taken

    def giveUp(self, number: int) -> None:
        """
        Stop listening on the socket of a worker that has ended, so that the kernel passes no more
        connections to it.
        """
        if len(self._sockets) > 1:
            with suppress(OSError):
                self._sockets[number - 1].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """
        Close all sockets but the first, which belongs to the port.
        """
        for each in self._sockets:
            if each is not self._first:
                each.close()
        self._sockets = [self._first]


def _another(like: socket.socket, address: Any) -> socket.socket:
    only = None
    if like.family == socket.AF_INET6:
        only = bool(like.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
    return listenShared(like.family, address, _BACKLOG, only)


def _makeFile(name: str) -> FileIO:
    """
    Create a file that only its descriptor leads to, in memory where possible: the file system of a
    container may be read-only.
    """
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create(name), "r+b", buffering=0)
    # Python lacks this function if the C library did when Python was built.
    folder = _MEMORY if os.path.isdir(_MEMORY) else None
    return TemporaryFile(buffering=0, dir=folder)


class Supervisor(Service):
    """
    Binds the ports and keeps the workers running.

    @ivar adminPort: the admin port, which shows the status of all workers; may be C{None}.
    @ivar ports: the ports.  This process itself accepts no connections on them.
    """

    def __init__(
        self,
        reactor: Any,
        config: MirrorConfig,
        endpoints: Sequence[IStreamServerEndpoint],
        count: int,
        arguments: Callable[[int], Sequence[str]],
        *,
        via: str,
        key: bytes,
        check: Callable[[MirrorConfig], object],
    ) -> None:
        """
        @param endpoints: the endpoints whose ports the workers share.
        @param count: the number of workers.
        @param arguments: returns the arguments of a worker's C{twistd}, given the worker's number.
        @param via: the name in C{Via} that all workers share.
        @param key: the key of the hashes that stand for the identities of clients.
        @param check: raises L{ConfigError} when a worker could not use a configuration.
        """
        self.reactor = reactor
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._arguments = arguments
        self._via = via
        self._check = check
        self._config = config
        self._atStart = {
            field.name: getattr(config, field.name)
            for field in options()
            if field.metadata["atStart"]
        }
        self.adminPort: AdminPort | None = None
        self._listening: list[_Listening] = []
        self._rates, self._shared = _makeFile("rates"), _makeFile("config")
        self._rates.truncate(RATES_SIZE)
        writeConfig(self._shared.fileno(), config)
        self._key = key
        self._counted: dict[str, Any] = {}
        self._asking = LoopingCall(self._ask)
        self._asking.clock = reactor
        self._workers = [_Worker(self, number + 1) for number in range(count)]

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        @raise CannotListenError: when a port is in use, or the process may not bind it.
        """
        super().privilegedStartService()
        nobody = Factory()
        nobody.noisy = False
        if self.adminPort is not None:
            self.adminPort.start()
        for endpoint in self._endpoints:
            problems: list[Failure] = []
            endpoint.listen(nobody).addCallback(self._bound).addErrback(problems.append)
            for problem in problems:
                problem.raiseException()

    def _bound(self, port: Any) -> None:
        if isinstance(port, ProxiedPort):
            # Stopping the wrapper accepts the connections that wait, which are for workers.
            port = port.original
        port.stopReading()
        self.ports.append(port)
        self._listening.append(_Listening(port.socket, len(self._workers)))

    def startService(self) -> None:
        super().startService()
        announce(self._config, self.ports)
        for worker in self._workers:
            worker.start()
        if self.adminPort is not None:
            self._asking.start(_ASK_EVERY, now=False)

    def _ask(self) -> Deferred[Any]:
        """
        Ask all workers for reports.

        @return: a deferred that fires when all reports have been received, or after
            L{_REPORT_TIMEOUT} seconds.
        """
        asked = gatherResults([worker.ask() for worker in self._workers], consumeErrors=True)
        return asked.addTimeout(_REPORT_TIMEOUT, self.reactor).addErrback(lambda _: None)

    def findStatus(self) -> Deferred[Status]:
        """
        Ask all workers for reports, and combine them to a status.  If a worker does not report in
        time, its last report is used.
        """
        return self._ask().addCallback(lambda _: self._status())

    def _status(self) -> Status:
        reports = [worker.report for worker in self._workers if worker.report is not None]
        return Status(reports, key=self._key, before=self._counted, expected=len(self._workers))

    def counted(self, report: dict[str, Any]) -> None:
        """
        Keep the counts of a process that has ended.
        """
        addReport(self._counted, report)

    def spawn(self, protocol: ProcessProtocol, number: int) -> None:
        """
        Start a worker's process.
        """
        mine = [listening.take(number) for listening in self._listening]
        sockets = [(each.fileno(), each.family) for each in mine]
        rates, config = self._rates.fileno(), self._shared.fileno()
        kept = {fd: fd for fd in (rates, config, *(fd for fd, _family in sockets))}
        reports = max(kept) + 1
        environment = dict(os.environ)
        environment[VARIABLE] = Inheritance(
            sockets, self._via, reports, rates, self._key, config
        ).encode()
        # A worker inherits SIGHUP blocked, and unblocks it once it has a handler.  So a reload
        # while the worker starts does not end it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            self.reactor.spawnProcess(
                protocol,
                sys.executable,
                [sys.executable, "-c", _TWISTD, *self._arguments(number)],
                env=environment,
                childFDs={0: "w", 1: 1, 2: 2, reports: "r", **kept},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reload(self, config: MirrorConfig) -> None:
        """
        Make all workers use another configuration, but not its options that take effect only at the
        start: a worker that is started later has to fit the sockets and the other workers.

        @raise ConfigError: when the configuration can't be used; then nothing is changed.
        """
        self._check(config)
        self._config = attrs.evolve(config, **self._atStart)
        writeConfig(self._shared.fileno(), self._config)
        for worker in self._workers:
            worker.signal("HUP")
        warn(self._config)

    def ended(self, number: int) -> None:
        """
        Stop listening on the sockets of a worker that has closed them, or has no process.
        """
        for listening in self._listening:
            listening.giveUp(number)

    def stopService(self) -> Deferred[Any]:
        """
        Stop listening, and let the workers drain.

        @return: a deferred that fires when all workers have ended.
        """
        super().stopService()
        if self._asking.running:
            self._asking.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ended = gatherResults([worker.stop() for worker in self._workers])
        kill = self.reactor.callLater(self._config.drain_timeout + _KILL_AFTER, self._kill)
        listening, self._listening = self._listening, []
        for each in listening:
            each.close()
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        await ended
        if kill.active():
            kill.cancel()
        if self.adminPort is not None:
            await self.adminPort.stop()
        self._rates.close()
        self._shared.close()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.signal("KILL")
