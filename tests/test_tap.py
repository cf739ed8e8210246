"""Tests of the command line of C{twistd hubmirror}."""

import gc
import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, redirect_stdout
from typing import Any
from unittest.mock import Mock

import attrs
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.python.usage import UsageError
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hubmirror import MirrorConfig, tap
from hubmirror.config import ConfigError, optionName, options
from hubmirror.testing.ca import Authority


class ParsingTests(SynchronousTestCase):
    """Tests of how the options become the configuration."""

    def setUp(self) -> None:
        self.patch(tap, "HubMirror", Mock())

    def parse(self, *arguments: str) -> Any:
        parsed = tap.Options()
        parsed.parseOptions(list(arguments))
        return parsed.config

    def refused(self, *arguments: str) -> str:
        text = str(self.assertRaises(UsageError, self.parse, *arguments))
        self.assertNotIn("\n", text)
        return text

    def test_none(self) -> None:
        self.assertEqual(self.parse(), MirrorConfig())

    def test_file(self) -> None:
        """
        The command line overrides the file, and adds registries to it, each time that the file is
        read.
        """
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(
                'resumes = 3\nstall_timeout = 4\n[registry."ghcr.io"]\nhosts = ["a.example"]\n'
            )
        parsed = tap.Options()
        parsed.parseOptions(
            ["--config", path, "--resumes=7", "--registry=quay.io", "--registry=ghcr.io"]
        )
        for config in (parsed.config, parsed.read(), parsed.read()):
            self.assertEqual((config.resumes, config.stall_timeout), (7, 4.0))
            self.assertEqual([each.name for each in config.registries], ["ghcr.io", "quay.io"])
            self.assertEqual(config.registries[0].hosts, ("a.example",))

    def test_badFile(self) -> None:
        """The error has a line for each problem, without the help."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("resumes = -1\nx = 1\n")
        text = str(self.assertRaises(SystemExit, self.parse, "--config", path))
        self.assertRegex(text, r"\Ahubmirror: ")
        self.assertEqual(len(text.splitlines()), 2)

    def test_values(self) -> None:
        parsed = self.parse(
            "--public-url=https://mirror.example",
            "--registry-url",
            "https://registry.example",
            "--auth-url=https://auth.example/token",
            "--search-url=https://index.example",
            "--failover-on=503",
            "--ca-file=ca.pem",
            "--resolver=1.1.1.1",
            "--proxy=http://proxy.example:3128",
            "--connect-timeout=1",
            "--response-timeout=2",
            "--stall-timeout=3",
            "--idle-timeout=4",
        )
        expected = MirrorConfig(
            public_url="https://mirror.example",
            registry_url="https://registry.example",
            auth_url="https://auth.example/token",
            search_url="https://index.example",
            failover_on=[503],
            ca_file="ca.pem",
            resolver="1.1.1.1",
            proxy="http://proxy.example:3128",
            connect_timeout=1,
            response_timeout=2,
            stall_timeout=3,
            idle_timeout=4,
        )
        self.assertEqual(parsed, expected)

    def test_flags(self) -> None:
        parsed = self.parse("--read-only", "--no-cors", "--no-forwarded")
        self.assertEqual(parsed, MirrorConfig(read_only=True, no_cors=True, no_forwarded=True))
        self.assertEqual(self.parse("--page", "false"), MirrorConfig(page=False))
        self.refused("--read-only=yes")

    def test_repeated(self) -> None:
        """Values of a repeated option are added in order; the first port replaces the default."""
        for name, values in (
            ("port", ["ssl:443", "tcp6:5000"]),
            ("fallback", ["https://a.example", "https://b.example"]),
            ("allow-redirects-to", ["https://cdn.example", "10.0.0.0/8"]),
            ("trusted-proxy", ["10.0.0.1", "10.0.0.2"]),
        ):
            parsed = self.parse(*(f"--{name}={value}" for value in values))
            self.assertEqual(parsed, MirrorConfig(**{name.replace("-", "_"): values}), name)

    def test_usage(self) -> None:
        for arguments, advice in (
            (["--port=5000"], "--port: "),
            (["--idle-timeout=never"], "--idle-timeout: "),
            (["--registry-url"], "registry-url"),
            (["--unknown"], "unknown"),
            (["argument"], "argument"),
        ):
            self.assertIn(advice, self.refused(*arguments))

    def test_help(self) -> None:
        """The help has every option, with its default if there is one."""
        shown = io.StringIO()
        self.patch(os, "environ", {**os.environ, "COLUMNS": "80"})
        with redirect_stdout(shown):
            self.assertRaises(SystemExit, self.parse, "--help")
        text = " ".join(shown.getvalue().split())
        for field in options():
            self.assertIn(f"--{optionName(field)}", text)
        for default in (
            "[default: tcp:5000:interface=127.0.0.1]",
            "[default: https://registry-1.docker.io]",
            "[default: 429,502,503,504]",
            "[default: 75]",
        ):
            self.assertIn(default, text)


class FileTests(SynchronousTestCase):
    """Files and endpoints in options must be usable; otherwise there is an error of one line."""

    def setUp(self) -> None:
        self.addCleanup(os.chdir, os.getcwd())
        folder = self.mktemp()
        os.mkdir(folder)
        os.chdir(folder)

    def write(self, name: str, content: bytes) -> None:
        with open(name, "wb") as file:
            file.write(content)

    def refused(self, *arguments: str) -> str:
        text = str(self.assertRaises(UsageError, tap.Options().parseOptions, arguments))
        self.assertNotIn("\n", text)
        return text

    def test_noCertificate(self) -> None:
        text = self.refused("--port=ssl:443")
        self.assertRegex(text, r"there is no \S*server\.pem here")
        self.assertIn("privateKey=", text)

    def test_certificate(self) -> None:
        """C{--port ssl:443} works without changes if there is a server.pem."""
        self.write("server.pem", Authority().serverPEM(["mirror.example"]))
        tap.Options().parseOptions(["--port", "ssl:443"])

    def test_badEndpoints(self) -> None:
        self.write("server.pem", b"no PEM")
        for description in ("ssl:443", "telnet:23", "tcp:many", "tcp:5000:colour=red"):
            self.assertIn(f"--port {description}: ", self.refused(f"--port={description}"))

    def test_notBalanced(self) -> None:
        """The PROXY protocol is never left out silently."""
        for option, description in (
            ("port", "unix:mirror.sock"),
            ("port", "systemd:domain=INET:index=0"),
            ("port", "haproxy:tcp:5000"),
            ("admin-port", "tcp:9090"),
        ):
            text = self.refused(f"--{option}=haproxy:{description}")
            self.assertIn(f"--{option} haproxy:{description}: haproxy: can only", text)
        for description in ("tcp:5000", "tcp6:5000"):
            tap.Options().parseOptions([f"--port=haproxy:{description}"])

    def test_notShared(self) -> None:
        text = self.refused("--port=unix:mirror.sock", "--workers=2")
        self.assertIn("--workers: a unix: port can't be shared", text)

    def test_supervisorsAccessLog(self) -> None:
        """
        A supervisor tests whether the access log can be opened, but does not keep it open: it would
        keep the disk space of a file that has been rotated and removed.
        """
        parsed = tap.Options()
        path = os.path.abspath("access.log")
        parsed.parseOptions(["--workers=2", f"--access-log-file={path}"])
        os.unlink(path)
        parsed.service.reload(parsed.config)
        self.assertTrue(os.path.exists(path))
        opened = {os.path.realpath(f"/dev/fd/{fd}") for fd in os.listdir("/dev/fd")}
        self.assertNotIn(path, opened)
        wrong = attrs.evolve(parsed.config, access_log_file="missing/access.log", resumes=7)
        self.assertRaises(ConfigError, parsed.service.reload, wrong)
        self.assertEqual(parsed.service._config.resumes, parsed.config.resumes)
        self.assertIn(
            "--access-log-file: missing/access.log can't be written",
            self.refused("--workers=2", "--access-log-file=missing/access.log"),
        )

    def test_noSocket(self) -> None:
        for which in ("index=0", "name=mirror"):
            text = self.refused(f"--port=systemd:domain=INET:{which}")
            self.assertIn("systemd has given this process no such socket", text)

    def test_noSocketChecked(self) -> None:
        """A check is made by another process than the one to which systemd gives the sockets."""
        for option in ("port", "admin-port"):
            shown = io.StringIO()
            given = f"--{option}=systemd:domain=INET:name=mirror"
            with redirect_stdout(shown):
                ended = self.assertRaises(
                    SystemExit, tap.Options().parseOptions, [given, "--check-config"]
                )
            self.assertEqual(ended.code, 0)
            self.assertIn('"systemd:domain=INET:name=mirror"', shown.getvalue())

    def test_caFile(self) -> None:
        self.assertIn("can't be read", self.refused("--ca-file=missing.pem"))
        self.write("empty.pem", b"")
        self.assertIn("no PEM certificates", self.refused("--ca-file=empty.pem"))


class WorkerArgumentsTests(SynchronousTestCase):
    """The command line of a worker."""

    def arguments(self, *twistd: str, reactor: str | None = None) -> list[str]:
        parsed, parent = tap.Options(), ServerOptions()
        parent.parseOptions(twistd)
        if reactor is not None:
            # Parsing the option would install the reactor in this process.
            parent["reactor"] = reactor
        parsed.parent = parent
        arguments = parsed._workerArguments(3)
        self.assertEqual(
            (arguments[:2], arguments[-1]), (["--nodaemon", "--pidfile="], "hubmirror")
        )
        return arguments[2:-1]

    def test_log(self) -> None:
        """Workers log where the supervisor logs, but each into a file of its own."""
        for given, expected in (
            (["-n"], []),
            (["-n", "--logfile=-"], []),
            (["-n", "--logfile=a.log"], ["--logfile=a.log.worker-3"]),
            ([], ["--logfile=twistd.log.worker-3"]),
            (["--syslog", "--prefix=mirror"], ["--syslog", "--prefix=mirror"]),
            (
                ["--syslog", "--logger=twisted.logger.textFileLogObserver"],
                ["--logger=twisted.logger._file.textFileLogObserver"],
            ),
        ):
            self.assertEqual(self.arguments(*given), expected)

    def test_noParent(self) -> None:
        """Options that another program than twistd has parsed say nothing about reactor and log."""
        self.assertEqual(
            tap.Options()._workerArguments(3), ["--nodaemon", "--pidfile=", "hubmirror"]
        )

    def test_reactor(self) -> None:
        self.assertEqual(self.arguments("-n", reactor="poll"), ["--reactor=poll"])


class ServiceTests(TestCase):
    """The services of command lines, on real ports of 127.0.0.1."""

    def setUp(self) -> None:
        self.handlers: dict[int, Any] = {}
        self.patch(signal, "signal", self.handlers.__setitem__)
        self.patch(reactor, "callWhenRunning", lambda call, *rest: call(*rest))
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)

    def makeService(self, *arguments: str) -> Any:
        parsed = tap.Options()
        parsed.parseOptions(list(arguments))
        service = tap.makeService(parsed)
        self.addCleanup(maybeDeferred, service.stopService)
        return service

    def test_listens(self) -> None:
        service = self.makeService("--port=tcp:0:interface=127.0.0.1")
        service.privilegedStartService()
        service.startService()
        [mirror] = service
        [port] = mirror.ports
        with closing(socket.create_connection(("127.0.0.1", port.getHost().port), 5)):
            pass

    def test_signals(self) -> None:
        """The first signal lets requests in progress end, the second does not."""
        for first, second in ((signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGINT)):
            self.makeService("--port=tcp:0:interface=127.0.0.1").startService()
            stopped: list[bool] = []
            self.patch(reactor, "stop", lambda stopped=stopped: stopped.append(True))
            self.patch(reactor, "callFromThread", lambda call: call())
            self.handlers[first](first, None)
            self.assertEqual(stopped, [True])
            ended: list[int] = []
            self.patch(os, "_exit", ended.append)
            self.handlers[second](second, None)
            self.assertEqual(ended, [128 + second])

    def test_garbage(self) -> None:
        """Objects that exist at the start are excluded from garbage collection."""
        self.makeService("--port=tcp:0:interface=127.0.0.1").startService()
        self.assertGreater(gc.get_freeze_count(), 1000)

    def test_taken(self) -> None:
        """A port that is taken ends the process with one line."""
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            number = taken.getsockname()[1]
            service = self.makeService(f"--port=tcp:{number}:interface=127.0.0.1")
            text = str(self.assertRaises(SystemExit, service.privilegedStartService))
        self.assertRegex(text, rf"\Ahubmirror: [^\n]*127\.0\.0\.1:{number}[^\n]*\Z")


class FileLimitTests(SynchronousTestCase):
    """Tests of the soft limit of open files, in a process whose limits are 256 and 600."""

    def softLimit(self, *lines: str) -> int:
        """The soft limit after running some Python code."""
        program = "; ".join(
            ["import resource", *lines, "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"]
        )
        done = subprocess.run(
            [
                *("sh", "-c", 'ulimit -S -n 256; ulimit -H -n 600; exec "$@"', "sh"),
                *(sys.executable, "-c", program),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(done.stdout)

    def test_raised(self) -> None:
        """The limit is raised as far as allowed, but not further than is useful."""
        parse = "from hubmirror.tap import Options; Options().parseOptions({})"
        self.assertEqual(self.softLimit(parse.format([])), 600)
        limits = ["--max-connections=100", "--max-upstream-connections=100"]
        self.assertEqual(self.softLimit(parse.format(limits)), 301)

    def test_select(self) -> None:
        """The limit is not raised for select(2), which can't use descriptors above 1024."""
        install = "from twisted.internet import selectreactor; selectreactor.install()"
        parse = "from hubmirror.tap import Options; Options().parseOptions([])"
        self.assertEqual(self.softLimit(install, parse), 256)

    def test_embedded(self) -> None:
        """The process of an embedder is not changed."""
        make = "from hubmirror import HubMirror, MirrorConfig; from twisted.internet import reactor"
        self.assertEqual(self.softLimit(make, "HubMirror(reactor, MirrorConfig(port=()))"), 256)
