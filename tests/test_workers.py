"""Tests of several processes on the same ports, as with C{twistd -n hubmirror --workers 2}."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from unittest.mock import Mock, call, patch

import attrs
from twisted.internet.defer import succeed
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hubmirror import MirrorConfig
from hubmirror.config import Account, ConfigError, RegistryConfig
from hubmirror.downstream.rates import SIZE as RATES_SIZE
from hubmirror.testing.ca import Authority
from hubmirror.worker import (
    VARIABLE,
    AdoptingReactor,
    Inheritance,
    inheritance,
    readConfig,
    writeConfig,
)
from hubmirror.workers import Supervisor, _Listening
from tests.config.test_options import GOOD

#: A registry that can't be reached, so that a test does not depend on a network, nor reach the Hub.
NO_REGISTRY = "http://127.0.0.1:9"
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


class InheritanceTests(SynchronousTestCase):
    def test_none(self) -> None:
        self.assertIsNone(inheritance())

    def test_passedOn(self) -> None:
        given = Inheritance(
            [(7, socket.AF_INET), (8, socket.AF_INET6)], "hubmirror-1", 9, 10, b"\x00key", 11
        )
        self.patch(os, "environ", {VARIABLE: given.encode()})
        self.assertEqual(inheritance(), given)


class ConfigTests(SynchronousTestCase):
    """Tests of the configuration that a worker inherits."""

    def write(self, config: MirrorConfig) -> int:
        fd = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        writeConfig(fd, config)
        return fd

    def test_everyOption(self) -> None:
        for name, value, _ in GOOD:
            config = MirrorConfig(**{name: value})
            self.assertEqual(readConfig(self.write(config)), config, (name, value))

    def test_upgraded(self) -> None:
        """
        A worker of another version of the mirror has its own options: those that the supervisor
        does not know have their defaults.
        """
        full = RegistryConfig(
            name="a.example",
            hosts=["a.mirror.example"],
            account=[Account(username="me", password_file="password")],
        )
        fd = self.write(MirrorConfig(registries=[full], resumes=7))
        classes: list[type[Any]] = [MirrorConfig, RegistryConfig]
        for cls in classes:
            fields = [field for field in attrs.fields(cls) if field.name not in ("proxy", "url")]
            names = {each.name: attrs.field(default=each.default) for each in fields}
            newer = attrs.make_class(
                cls.__name__, {**names, "new": attrs.field(default=9)}, kw_only=True
            )
            self.patch(sys.modules[cls.__module__], cls.__name__, newer)
        found: Any = readConfig(fd)
        [registry] = found.registries
        self.assertEqual((found.resumes, found.new, registry.new), (7, 9, 9))
        self.assertEqual((registry.hosts, registry.account), (full.hosts, full.account))


class Adopter:
    """A reactor that only records the adopted sockets."""

    def __init__(self) -> None:
        self.adopted: list[tuple[int, int, Any]] = []

    def adoptStreamPort(self, fd: int, family: int, factory: Any) -> None:
        self.adopted.append((fd, family, factory))


class AdoptingTests(SynchronousTestCase):
    def test_inOrder(self) -> None:
        """
        Whatever the arguments are, each port uses the next inherited socket, and closes it.
        """
        reactor, factory = Adopter(), Factory()
        closed: list[int] = []
        self.patch(os, "close", closed.append)
        adopting = AdoptingReactor(reactor, [(7, 2), (8, 10)])
        adopting.listenTCP(5000, factory, backlog=50, interface="127.0.0.1")
        adopting.listenTCP(0, factory)
        self.assertEqual(reactor.adopted, [(7, 2, factory), (8, 10, factory)])
        self.assertEqual(closed, [7, 8])


class ListeningTests(SynchronousTestCase):
    """Tests of how the kernel distributes the connections to a port."""

    def listening(self, family: socket.AddressFamily, address: Any) -> socket.socket:
        first = socket.socket(family)
        self.addCleanup(first.close)
        first.bind(address)
        first.listen()
        first.setblocking(False)
        return first

    def connections(self, address: Any, *sockets: socket.socket) -> list[int]:
        """How many of a hundred connections each socket gets."""
        clients = [socket.create_connection(address, timeout=30) for _ in range(100)]
        counts = []
        for each in sockets:
            counts.append(0)
            with contextlib.suppress(OSError):
                while True:
                    each.accept()[0].close()
                    counts[-1] += 1
        for client in clients:
            client.close()
        return counts

    def test_dealtOut(self) -> None:
        """
        Each worker gets a share of the connections; that of a worker that has ended goes to the
        others.
        """
        first = self.listening(socket.AF_INET, ("127.0.0.1", 0))
        address = first.getsockname()
        listening = _Listening(first, 2)
        self.addCleanup(listening.close)
        sockets = [listening.take(number) for number in (1, 2)]
        self.assertEqual([each.getsockname() for each in sockets], [address] * 2)
        for left in (0, 1):
            counts = self.connections(address, *sockets)
            self.assertEqual(sum(counts), 100)
            self.assertGreater(min(counts), 10)
            listening.giveUp(left + 1)
            self.assertEqual(self.connections(address, *sockets)[1 - left], 100)
            sockets[left] = listening.take(left + 1)

    def test_shared(self) -> None:
        """
        A port that can't be bound twice has one socket for all workers, and stays open when a
        worker ends.
        """
        path = self.mktemp()
        first = self.listening(socket.AF_UNIX, path)
        listening = _Listening(first, 3)
        self.assertEqual([listening.take(number) for number in (1, 2, 3)], [first] * 3)
        listening.giveUp(2)
        listening.close()
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(path)
            first.accept()[0].close()


class Process:
    def __init__(self) -> None:
        self.signals: list[str] = []
        self.isEnding = False

    def signalProcess(self, name: str) -> None:
        if self.isEnding:
            raise ProcessExitedAlready
        self.signals.append(name)

    def writeToChild(self, fd: int, data: bytes) -> None:
        if self.isEnding:
            raise KeyError(fd)


class SpawningClock(Clock):
    """A reactor that records the processes that are started."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[tuple[Any, list[str]]] = []
        self.inherited: list[Any] = []

    def spawnProcess(
        self, protocol: Any, program: str, arguments: list[str], env: dict[str, str], **_: Any
    ) -> None:
        with patch.dict(os.environ, env):
            self.inherited.append(inheritance())
        protocol.makeConnection(Process())
        self.spawned.append((protocol, arguments[3:]))


class SupervisorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = SpawningClock()
        self.checked: list[MirrorConfig] = []
        self.supervisor = self.makeSupervisor()
        self.supervisor.startService()

    def makeSupervisor(self) -> Supervisor:
        return Supervisor(
            self.clock,
            MirrorConfig(port=(), drain_timeout=10),
            [],
            2,
            lambda number: [f"--number={number}"],
            via="hubmirror-1",
            key=b"key",
            check=self.checked.append,
        )

    def test_rates(self) -> None:
        """The table of rates needs no folder for temporary files."""
        self.patch(tempfile, "tempdir", "/nonexistent")
        self.makeSupervisor().startService()
        first, second = (each.rates for each in self.clock.inherited[-2:])
        self.assertEqual(first, second)
        self.assertEqual(os.fstat(first).st_size, RATES_SIZE)

    def test_noMemfd(self) -> None:
        """What the workers share needs no function that Python may have been built without."""
        if hasattr(os, "memfd_create"):
            self.addCleanup(setattr, os, "memfd_create", os.memfd_create)
            del os.memfd_create
        self.makeSupervisor().startService()
        inherited = self.clock.inherited[-1]
        self.assertEqual(os.fstat(inherited.rates).st_size, RATES_SIZE)
        self.assertEqual(readConfig(inherited.config), MirrorConfig(port=(), drain_timeout=10))

    def test_reloaded(self) -> None:
        """
        A configuration that is accepted is that of all workers, also of later ones, except for what
        takes effect only at the start.
        """
        shared = self.clock.inherited[0].config
        before = readConfig(shared)
        self.assertEqual(before, MirrorConfig(port=(), drain_timeout=10))
        new = MirrorConfig(
            port=["ssl:443"],
            admin_port="tcp:9090",
            read_only=True,
            allow_client=["192.0.2.0/24"],
            allow_redirects_to=["https://cdn.example", "10.0.0.0/8"],
            client_requests="10/1m",
            resolver="192.0.2.1",
            registries=[
                RegistryConfig(
                    name="ghcr.io",
                    fallback=["https://a.example"],
                    account=[Account(username="me", password_file="password")],
                )
            ],
        )
        self.supervisor.reload(new)
        self.assertEqual(self.checked, [new])
        self.assertEqual(readConfig(shared), attrs.evolve(new, port=(), admin_port=None))
        self.patch(self.supervisor, "_check", Mock(side_effect=ConfigError("no")))
        self.assertRaises(ConfigError, self.supervisor.reload, before)
        self.assertTrue(readConfig(shared).read_only)

    def end(self, index: int) -> None:
        self.clock.spawned[index][0].processEnded(Failure(ProcessTerminated(1)))

    def test_started(self) -> None:
        self.assertEqual(
            [arguments for _, arguments in self.clock.spawned], [["--number=1"], ["--number=2"]]
        )

    def test_replaced(self) -> None:
        """A worker that dies is replaced after a delay, which grows to half a minute."""
        for delay in (1, 2, 4, 8, 16, 30, 30):
            count = len(self.clock.spawned)
            self.end(count - 1)
            self.clock.advance(delay - 0.1)
            self.assertEqual(len(self.clock.spawned), count)
            self.clock.advance(0.1)
            self.assertEqual(self.clock.spawned[-1][1], ["--number=2"])

    def test_shared(self) -> None:
        """All workers have the same name and key, including those that replace others."""
        self.end(1)
        self.clock.advance(1)
        self.assertEqual(len(self.clock.inherited), 3)
        for inherited in self.clock.inherited:
            self.assertEqual((inherited.via, inherited.key), ("hubmirror-1", b"key"))

    def test_noProcess(self) -> None:
        """When the system can't start a process, that is tried again."""
        self.end(1)
        failing = patch.object(
            self.clock, "spawnProcess", side_effect=BlockingIOError("no process")
        )
        listening = Mock()
        listening.take.return_value.fileno.return_value = 0
        listening.take.return_value.family = socket.AF_INET
        self.supervisor._listening.append(listening)
        with failing, capturedLogs() as logs:
            self.clock.advance(1)
        # Nobody would accept the connections of a socket that listens meanwhile.
        self.assertEqual(listening.method_calls, [call.take(2), call.giveUp(2)])
        self.assertEqual(
            [formatEvent(event) for event in logs],
            ["worker 2 could not be started (no process); another starts in 2 s"],
        )
        self.assertEqual(len(self.clock.spawned), 2)
        self.clock.advance(2)
        self.assertEqual(self.clock.spawned[-1][1], ["--number=2"])

    def test_closed(self) -> None:
        """
        When a worker drains that was not told to by the supervisor, no more connections are passed
        to it.
        """
        listening = Mock()
        self.supervisor._listening.append(listening)
        protocol, _ = self.clock.spawned[1]
        report = {"counters": {}, "histograms": {}}
        protocol.childDataReceived(6, json.dumps(report).encode() + b"\n")
        self.assertEqual(listening.method_calls, [])
        protocol.childDataReceived(6, json.dumps({**report, "closed": True}).encode() + b"\n")
        self.assertEqual(listening.method_calls, [call.giveUp(2)])

    def test_reportsNumbered(self) -> None:
        """A worker has the same number, whichever others have reported."""
        report = {"counters": {}, "histograms": {}}
        for index, (protocol, _) in enumerate(self.clock.spawned):
            protocol.childDataReceived(6, json.dumps({**report, "pid": index}).encode() + b"\n")
        self.end(0)
        found = self.supervisor.findStatus()
        self.clock.advance(2)
        [left] = self.successResultOf(found).reports
        self.assertEqual((left["worker"], left["pid"]), (2, 1))

    def test_reportsLate(self) -> None:
        """Workers that don't report in time don't keep the status from being shown."""
        found = self.supervisor.findStatus()
        self.assertNoResult(found)
        self.clock.advance(2)
        self.successResultOf(found)

    def test_reportsNever(self) -> None:
        """A worker that is ending can't be asked, nor be sent a signal."""
        for protocol, _ in self.clock.spawned:
            protocol.transport.isEnding = True
        found = self.supervisor.findStatus()
        self.supervisor.reload(MirrorConfig(port=()))
        for index in (0, 1):
            self.end(index)
        self.successResultOf(found)

    def test_delayBeginsAnew(self) -> None:
        """A worker that has run for long is replaced after a second again."""
        self.end(1)
        self.clock.advance(1)
        self.clock.advance(31)
        self.end(2)
        self.clock.advance(1)
        self.assertEqual(len(self.clock.spawned), 4)

    def test_drained(self) -> None:
        """All workers are stopped together, and the service has stopped when all have ended."""
        stopping = self.supervisor.stopService()
        for protocol, _ in self.clock.spawned:
            self.assertEqual(protocol.transport.signals, ["TERM"])
        self.end(0)
        self.assertNoResult(stopping)
        self.end(1)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_killed(self) -> None:
        """A worker that does not end in time is killed."""
        stopping = self.supervisor.stopService()
        process = self.clock.spawned[0][0].transport
        self.end(1)
        self.clock.advance(14.9)
        self.assertEqual(process.signals, ["TERM"])
        self.clock.advance(0.1)
        self.assertEqual(process.signals, ["TERM", "KILL"])
        self.end(0)
        self.successResultOf(stopping)

    def test_stoppedWhileWaiting(self) -> None:
        """A worker that is waiting to be replaced is not started when the service stops."""
        self.end(0)
        stopping = self.supervisor.stopService()
        self.end(1)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BindingTests(SynchronousTestCase):
    def test_defect(self) -> None:
        """A port that can't be shared ends the start; no worker would ever serve it."""
        endpoint: Any = Mock()
        endpoint.listen.return_value = succeed(object())
        supervisor = Supervisor(
            SpawningClock(),
            MirrorConfig(port=()),
            [endpoint],
            2,
            lambda number: [],
            via="hubmirror-1",
            key=b"key",
            check=Mock(),
        )
        self.assertRaises(AttributeError, supervisor.privilegedStartService)


class CommandCase(SynchronousTestCase):
    """Tests with real processes.  Each wait ends with a line of the log, or with the process."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(
            lambda: [each.unlink() for each in self.folder.iterdir()] and self.folder.rmdir()
        )
        authority = Authority()
        (self.folder / "server.pem").write_bytes(authority.serverPEM(["127.0.0.1"]))
        (self.folder / "ca.pem").write_bytes(authority.pem)
        self.trust = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))

    def start(self, *options: str, given: socket.socket | None = None) -> None:
        """
        Start the process.

        @param given: a socket that it gets in the same way as from systemd.
        """
        self.process = subprocess.Popen(
            [
                *("sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh"),
                *(*TWISTD, "--nodaemon", "--pidfile=", "hubmirror", *options),
            ],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "LISTEN_FDS": "1",
                "LISTEN_FDNAMES": "mirror.socket",
            },
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            close_fds=given is None,
            preexec_fn=None if given is None else lambda: os.dup2(given.fileno(), 3) and None,
        )
        self.addCleanup(self.end, self.process)

    def end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)

    def said(self, pattern: str) -> re.Match[str]:
        assert self.process.stdout is not None
        lines = []
        # The processes that are left in its process group are ended, so that the pipe is closed.
        watchdog = threading.Timer(60, os.killpg, [self.process.pid, signal.SIGKILL])
        watchdog.start()
        try:
            for line in self.process.stdout:
                lines.append(line)
                found = re.search(pattern, line)
                if found is not None:
                    return found
        finally:
            watchdog.cancel()
        raise AssertionError(f"nothing like {pattern} was said, but:\n{''.join(lines)}")

    def ready(self, ports: int) -> None:
        """Wait until workers listen on so many ports in all."""
        for _ in range(ports):
            self.said(r"MirrorSite .*starting on")

    def workers(self) -> list[int]:
        """The process IDs of the workers, in the order of their start."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(child) for child in children.read_text().split()]

    def assertServes(self, connection: HTTPConnection) -> None:
        connection.request("GET", "/v1/_ping")
        self.assertEqual(connection.getresponse().read(), b"true")
        connection.close()


class WorkersTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.start(
            "--workers=2", "--port=tcp:0:interface=127.0.0.1", "--port=ssl:0:interface=127.0.0.1"
        )
        self.ports = [int(self.said(r"listening on \w+://127\.0\.0\.1:(\d+)")[1]) for _ in "12"]
        self.ready(4)

    def assertAllServe(self) -> None:
        plain, tls = self.ports
        self.assertServes(HTTPConnection("127.0.0.1", plain, timeout=30))
        self.assertServes(HTTPSConnection("127.0.0.1", tls, timeout=30, context=self.trust))

    def test_replaced(self) -> None:
        self.assertAllServe()
        first, second = self.workers()
        os.kill(first, signal.SIGKILL)
        self.said("worker . ended")
        self.assertAllServe()
        self.ready(2)
        self.assertAllServe()
        self.assertIn(second, self.workers())
        self.assertEqual(len(self.workers()), 2)

    def test_stopped(self) -> None:
        workers = self.workers()
        self.process.terminate()
        self.assertEqual(self.process.wait(timeout=30), 0)
        for worker in workers:
            self.assertFalse(Path(f"/proc/{worker}").exists())

    def test_orphaned(self) -> None:
        """
        If the supervisor is killed, the workers end, too: its output ends when all of them have
        closed it.
        """
        self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.read()
        with self.assertRaises(ConnectionRefusedError):
            self.assertAllServe()


class FollowedTests(CommandCase):
    def test_followed(self) -> None:
        """
        A mirror starts on the port of another one, which then ends; meanwhile each connection is
        served.
        """
        options = ("--workers=2", "--reuse-port", f"--registry-url={NO_REGISTRY}")
        self.start("--port=ssl:0:interface=127.0.0.1", *options)
        port = int(self.said(r"listening on https://127\.0\.0\.1:(\d+)")[1])
        self.ready(2)
        first = self.process
        self.start(f"--port=ssl:{port}:interface=127.0.0.1", *options)
        self.ready(2)
        for _ in range(20):
            self.assertPinged(port)
        first.terminate()
        first.communicate(timeout=30)
        self.assertEqual(first.returncode, 0)
        for _ in range(20):
            self.assertPinged(port)

    def assertPinged(self, port: int) -> None:
        self.assertServes(HTTPSConnection("127.0.0.1", port, timeout=30, context=self.trust))


class InterruptedTests(CommandCase):
    def test_interrupted(self) -> None:
        """
        Ctrl-C sends SIGINT to all processes of a terminal; requests in progress end normally all
        the same. Meanwhile connections are refused, so that a load balancer uses another mirror.
        """
        with closing(socket.socket()) as registry:
            registry.bind(("127.0.0.1", 0))
            registry.listen()
            registry.settimeout(30)
            url = f"http://127.0.0.1:{registry.getsockname()[1]}"
            self.start("--workers=2", "--port=tcp:0:interface=127.0.0.1", f"--registry-url={url}")
            port = int(self.said(r"listening on http://127\.0\.0\.1:(\d+)")[1])
            self.ready(2)
            client = HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/v2/")
            upstream, _ = registry.accept()
            with upstream:
                os.killpg(self.process.pid, signal.SIGINT)
                # The supervisor and each worker.
                for _ in range(3):
                    self.said("Port .* Closed")
                self.assertRefused(port)
                upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.assertEqual(client.getresponse().read(), b"ok")
            client.close()
        self.assertEqual(self.process.wait(timeout=30), 0)

    def assertRefused(self, port: int) -> None:
        """
        The log tells that a port is closed right before it is.  A connection that arrives at that
        moment is reset.
        """
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue
        self.fail("connections are not refused")


class DrainingTests(CommandCase):
    def test_draining(self) -> None:
        """
        While a worker drains that got a signal of its own, all connections go to the others.
        """
        with closing(socket.socket()) as registry:
            registry.bind(("127.0.0.1", 0))
            registry.listen()
            registry.settimeout(30)
            url = f"http://127.0.0.1:{registry.getsockname()[1]}"
            self.start(
                "--workers=2",
                "--port=tcp:0:interface=127.0.0.1",
                "--drain-timeout=300",
                f"--registry-url={url}",
            )
            port = int(self.said(r"listening on http://127\.0\.0\.1:(\d+)")[1])
            self.ready(2)
            self.assertEqual(len(self.sockets(port, "0A")), 2)
            client = HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/v2/")
            upstream, peer = registry.accept()
            with upstream:
                [connection] = self.sockets(peer[1], "01")
                [draining] = [each for each in self.workers() if connection in self.opened(each)]
                os.kill(draining, signal.SIGTERM)
                self.said("Port .* Closed")
                deadline = time.monotonic() + 30
                while len(self.sockets(port, "0A")) != 1:
                    self.assertLess(time.monotonic(), deadline)
                for _ in range(20):
                    self.assertServes(HTTPConnection("127.0.0.1", port, timeout=30))
                self.assertIn(draining, self.workers())
                upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                self.assertEqual(client.getresponse().read(), b"ok")
            client.close()
            self.said("worker . ended")

    def sockets(self, port: int, state: str) -> list[str]:
        """The sockets with a local port and a state (C{proc_net_tcp(5)})."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        local = f"0100007F:{port:04X}"
        return [f"socket:[{row[9]}]" for row in rows if (row[1], row[3]) == (local, state)]

    def opened(self, process: int) -> list[str]:
        """The files that a process has open."""
        found = []
        for each in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(each))
        return found


class ManagedTests(CommandCase):
    def test_told(self) -> None:
        """
        The service manager is told when clients can connect, and when the process begins to stop,
        also with workers, which tell it nothing.
        """
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            path = str(self.folder / "notify")
            manager.bind(path)
            manager.settimeout(60)
            with closing(socket.socket()) as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            with patch.dict(os.environ, NOTIFY_SOCKET=path):
                self.start("--workers=2", f"--port=tcp:{port}:interface=127.0.0.1")
            self.assertEqual(manager.recv(100), b"READY=1")
            self.assertServes(HTTPConnection("127.0.0.1", port, timeout=30))
            self.process.terminate()
            self.assertEqual(manager.recv(100), b"STOPPING=1")
            self.assertEqual(self.process.wait(timeout=30), 0)
            manager.setblocking(False)
            self.assertRaises(BlockingIOError, manager.recv, 100)


class ActivatedTests(CommandCase):
    """Tests of a socket from systemd (C{sd_listen_fds(3)})."""

    def activated(self, *options: str) -> None:
        with closing(socket.socket()) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            self.start("--port=systemd:domain=INET:index=0", *options, given=listening)
        # The connection waits in the socket's queue until a process accepts it.
        self.assertServes(HTTPConnection("127.0.0.1", port, timeout=30))
        self.process.terminate()
        self.assertEqual(self.process.wait(timeout=30), 0)

    def test_activated(self) -> None:
        self.activated()

    def test_workers(self) -> None:
        self.activated("--workers=2")
