"""
Several processes on the same ports: a supervisor binds them, and starts and restarts the workers,
which serve.

A worker runs the plugin under a twistd of its own, with the same options.  Its environment has the
sockets that it inherits and the common name in C{Via}.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IReadDescriptor,
    IStreamServerEndpoint,
)
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.config import MirrorConfig
from hubmirror.operations.banner import announce

VARIABLE = "HUBMIRROR_WORKER"
_TWISTD = "from twisted.scripts.twistd import run; run()"
_LONGEST_DELAY = 30.0
_KILL_AFTER = 5.0
_BACKLOG = 1024


@attrs.frozen
class Inheritance:
    """
    What a worker inherits from the supervisor.

    @ivar sockets: file descriptor and address family of each listening socket, in the order of
        the ports.
    @ivar via: the name in C{Via}.
    """

    sockets: Sequence[tuple[int, int]]
    via: str

    def encode(self) -> str:
        """
        The value of the environment variable.
        """
        return json.dumps([self.sockets, self.via])


def inheritance() -> Inheritance | None:
    """
    What this process has inherited; C{None} when it is not a worker.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        return None
    sockets, via = json.loads(value)
    return Inheritance([(fd, family) for fd, family in sockets], via)


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
        Listen on the next socket.
        """
        fd, family = next(self._sockets)
        return self._reactor.adoptStreamPort(fd, family, factory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IReadDescriptor)
class Lifeline:
    """
    The standard input of a worker.  It carries no data; it is closed when the supervisor, which has
    its other end, is gone, and the worker then ends, too.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def fileno(self) -> int:
        return 0

    def logPrefix(self) -> str:
        return "lifeline"

    def doRead(self) -> Failure | None:
        # The reactor wants an exception, whatever its interface says of a failure.
        ended: Any = CONNECTION_DONE
        return None if os.read(self.fileno(), 1024) else ended

    def connectionLost(self, reason: Failure) -> None:
        """
        The other end is gone, or the reactor is stopping.
        """
        if self._reactor.running:
            os.kill(os.getpid(), signal.SIGTERM)


class _Worker(ProcessProtocol):
    """
    One worker, which is restarted whenever it ends.
    """

    _log = Logger()

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self._number = number
        self._delay = 1.0
        self._started = 0.0
        self._again: IDelayedCall | None = None
        self._ended: Deferred[None] | None = None

    def start(self) -> None:
        """
        Start the process.
        """
        self._again = None
        self._started = self._supervisor.reactor.seconds()
        self._supervisor.spawn(self, self._number)

    def processEnded(self, reason: Failure) -> None:
        self.transport = None
        self._supervisor.ended(self._number)
        if self._ended is not None:
            self._ended.callback(None)
            return
        reactor = self._supervisor.reactor
        if reactor.seconds() - self._started > _LONGEST_DELAY:
            self._delay = 1.0
        self._log.error(
            "worker {number} ended ({reason}); another starts in {delay:g} s",
            number=self._number,
            reason=reason.getErrorMessage(),
            delay=self._delay,
        )
        self._again = reactor.callLater(self._delay, self.start)
        self._delay = min(_LONGEST_DELAY, 2 * self._delay)

    def stop(self) -> Deferred[None]:
        """
        Have the process drain and end.

        @return: a deferred that fires when it has ended.
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
            process.signalProcess(name)


class _Listening:
    """
    The sockets of one port, one for each worker.  The kernel distributes connections among them
    (C{SO_REUSEPORT}, socket(7)).  With a single shared socket, every connection would wake up all
    workers, and one worker would accept all connections of a burst.
    """

    def __init__(self, first: socket.socket, count: int) -> None:
        """
        @param first: bound, and listening.
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
        The socket of a worker, the first of which is 1.
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
        Stop the socket of a worker that has ended from getting connections.
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
    made = socket.socket(like.family, like.type)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        if like.family == socket.AF_INET6:
            only = like.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class Supervisor(Service):
    """
    Binds the ports and keeps the workers running.

    @ivar ports: the ports, on which this process itself accepts no connections.
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
        check: Callable[[MirrorConfig], object],
    ) -> None:
        """
        @param arguments: of a worker's twistd, by its number.
        @param check: makes what a worker would make of a configuration.
        @param via: their common name in C{Via}.
        """
        self.reactor = reactor
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._arguments = arguments
        self._via = via
        self._check = check
        self._config = config
        self._listening: list[_Listening] = []
        self._workers = [_Worker(self, number + 1) for number in range(count)]

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        @raise CannotListenError: when one is taken, or may not be bound.
        """
        super().privilegedStartService()
        nobody = Factory()
        nobody.noisy = False
        for endpoint in self._endpoints:
            problems: list[Failure] = []
            endpoint.listen(nobody).addCallbacks(self._bound, problems.append)
            for problem in problems:
                problem.raiseException()

    def _bound(self, port: Any) -> None:
        port.stopReading()
        self.ports.append(port)
        self._listening.append(_Listening(port.socket, len(self._workers)))

    def startService(self) -> None:
        super().startService()
        announce(self._config, self.ports)
        for worker in self._workers:
            worker.start()

    def spawn(self, protocol: ProcessProtocol, number: int) -> None:
        """
        Start a worker's process.
        """
        mine = [listening.take(number) for listening in self._listening]
        sockets = [(each.fileno(), each.family) for each in mine]
        environment = dict(os.environ)
        environment[VARIABLE] = Inheritance(sockets, self._via).encode()
        # A worker begins with SIGHUP blocked, and gets one that comes meanwhile when it can handle it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        try:
            self.reactor.spawnProcess(
                protocol,
                sys.executable,
                [sys.executable, "-c", _TWISTD, *self._arguments(number)],
                env=environment,
                childFDs={0: "w", 1: 1, 2: 2, **{fd: fd for fd, _family in sockets}},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reload(self, config: MirrorConfig) -> None:
        """
        Have all workers read the configuration again.

        @raise ConfigError: when it can't work; no worker is told then.
        """
        self._check(config)
        self._config = config
        for worker in self._workers:
            worker.signal("HUP")

    def ended(self, number: int) -> None:
        """
        A worker's process has ended.
        """
        for listening in self._listening:
            listening.giveUp(number)

    def stopService(self) -> Deferred[Any]:
        """
        Stop listening, and let the workers drain.

        @return: fires when all have ended.
        """
        super().stopService()
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

    def _kill(self) -> None:
        for worker in self._workers:
            worker.signal("KILL")
