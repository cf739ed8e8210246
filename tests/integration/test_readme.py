"""
Tests of the commands in the README, in a network namespace of their own, where all ports are free
and there is no network.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.ca import CertificateAuthority
from tests.integration.mirror import TWISTD
from tests.integration.programs import (
    ROOT,
    CommandFailed,
    Server,
    require,
    run,
)

#: Runs a command with no network except loopback, and with a hosts file that has none of the Hub's
#: names.
_ALONE = (
    *("unshare", "--net", "--mount", "sh", "-c"),
    'ip link set lo up && mount --bind "$0" /etc/hosts && exec "$@"',
)

_ASK = """
import json, sys, urllib.request, urllib.error, ssl
url, bundle = sys.argv[1:]
context = ssl.create_default_context(cafile=bundle)
try:
    answer = urllib.request.urlopen(url, timeout=20, context=context)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


class ReadmeTests(SynchronousTestCase):
    def setUp(self) -> None:
        require("unshare", "nsenter", "setpriv", "ip")
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.authority = CertificateAuthority(self.folder)
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n")
        self.alone = [*_ALONE, str(hosts)]

    def start(self, port: int, *options: str) -> Server:
        """Start C{twistd -n hubmirror} with these options, and wait for its port."""
        command = [*self.alone, *TWISTD, *options]
        server = Server("twistd", command, self.folder, ready=lambda: self.listens(server, port))
        self.addCleanup(server.stop)
        server.start()
        return server

    def listens(self, server: Server, port: int) -> bool:
        """Whether the server listens in its namespace."""
        if _namespace(server.pid) == _namespace(os.getpid()):
            return False
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5)"
        try:
            self.inside(server, ["-c", script])
        except CommandFailed:
            return False
        return True

    def ask(self, server: Server, url: str) -> tuple[int, str]:
        """The status and body of a response."""
        answer = self.inside(server, ["-c", _ASK, url, str(self.authority.bundle)])
        status, body = json.loads(answer)
        return status, body

    def inside(self, server: Server, arguments: Sequence[str]) -> str:
        """Run Python in the server's network namespace."""
        return run(["nsenter", f"--net=/proc/{server.pid}/ns/net", sys.executable, *arguments])

    def test_documented(self) -> None:
        """These commands are in the README."""
        readme = ROOT / "README.md"
        for command in ("twistd -n hubmirror\n", "twistd -n hubmirror --port ssl:443\n"):
            self.assertIn(command, readme.read_text())

    def test_withoutOptions(self) -> None:
        """
        C{twistd -n hubmirror} mirrors the Hub on 127.0.0.1:5000.  It starts although the Hub's
        names do not resolve.
        """
        server = self.start(5000)
        self.assertEqual(self.ask(server, "http://127.0.0.1:5000/v1/_ping"), (200, "true"))
        status, body = self.ask(server, "http://127.0.0.1:5000/v2/")
        self.assertEqual(status, 502)
        self.assertTrue(json.loads(body)["errors"][0]["code"])
        self.assertIn("registry-1.docker.io: the name does not resolve", server.output())

    def test_tls(self) -> None:
        """C{twistd -n hubmirror --port ssl:443} uses C{server.pem} in the working directory."""
        shutil.copy(self.authority.server("localhost", "127.0.0.1"), self.folder / "server.pem")
        server = self.start(443, "--port", "ssl:443")
        self.assertEqual(self.ask(server, "https://127.0.0.1/v1/_ping"), (200, "true"))

    def test_severalPorts(self) -> None:
        """Ports for IPv4, IPv6 and TLS work side by side."""
        shutil.copy(self.authority.server("localhost", "127.0.0.1"), self.folder / "server.pem")
        ports = ["tcp:5000", r"tcp:5001:interface=\:\:1", "ssl:443"]
        server = self.start(443, *(f"--port={port}" for port in ports))
        for origin in ("http://127.0.0.1:5000", "http://[::1]:5001", "https://127.0.0.1"):
            self.assertEqual(self.ask(server, f"{origin}/v1/_ping"), (200, "true"), origin)

    def test_tlsWithoutCertificate(self) -> None:
        """Without a certificate the process ends, and its last line states what to do."""
        failure = self.assertRaises(CommandFailed, self.runAlone, [*TWISTD, "--port", "ssl:443"])
        self.assertNotIn("Traceback", failure.output)
        self.assertIn("server.pem", failure.output.strip().splitlines()[-1])

    def test_portTaken(self) -> None:
        """If a port is in use, the process ends at once, and its last line names the port."""
        server = self.start(5000)
        command = ["nsenter", f"--net=/proc/{server.pid}/ns/net", *TWISTD, "--pidfile="]
        failure = self.assertRaises(CommandFailed, run, command, timeout=30)
        self.assertIn("5000", failure.output)

    def runAlone(self, command: Sequence[str]) -> None:
        run([*self.alone, *command], timeout=30)


def _namespace(pid: int) -> str:
    """The network namespace of a process."""
    return os.readlink(f"/proc/{pid}/ns/net")
