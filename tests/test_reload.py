"""
Tests of a new configuration while the mirror runs: it applies to later requests, and only if it is
valid.
"""

from __future__ import annotations

import os
import signal
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.web.http_headers import Headers

from hubmirror import MirrorConfig
from hubmirror.config import Account, ConfigError, RegistryConfig
from tests.test_workers import NO_REGISTRY, CommandCase
from tests.wire.support import MemoryCase, answer


class ReloadTests(MemoryCase):
    def reload(self, **options: object) -> None:
        config = MirrorConfig(
            **{"port": (), "registry_url": "https://other.example", **options}  # type: ignore[arg-type]
        )
        self.mirror.service.reload(config)

    def test_upstream(self) -> None:
        """Later requests use the new upstream, and a request in progress ends with the old one."""
        before = self.send(b"/v2/o/a/manifests/1")
        self.reload()
        self.send(b"/v2/o/a/manifests/1")
        self.assertEqual(
            [origin.host for origin in self.network.origins], [b"hub.example", b"other.example"]
        )
        self.network.lines[0].says(answer(200, b"{}"))
        self.assertEqual(self.answered(before).status, 200)

    def test_cors(self) -> None:
        """A request in progress keeps the settings with which it began."""
        clients = [self.send(b"/v2/o/%d/manifests/1" % number) for number in range(2)]
        self.reload(no_cors=True)
        served, broken = self.network.lines
        served.says(answer(200, b"{}"))
        broken.says(b"no response\r\n\r\n")
        for client, status in zip(clients, (200, 502), strict=True):
            got = self.answered(client)
            self.assertEqual(got.status, status)
            self.assertEqual(got.values(b"Access-Control-Allow-Origin"), [b"*"])

    def test_registries(self) -> None:
        self.assertEqual(self.local(b"/v2/ghcr.test/o/a/manifests/1").status, 404)
        self.reload(registries=["ghcr.test"])
        self.send(b"/v2/ghcr.test/o/a/manifests/1")
        self.assertEqual(self.network.origins[-1].host, b"ghcr.test")

    def test_readOnly(self) -> None:
        self.reload(read_only=True)
        got = self.local(b"/v2/o/a/blobs/uploads/", method=b"POST")
        self.assertEqual(got.status, 405)

    def test_health(self) -> None:
        """What is known of an upstream that stays is kept."""
        self.network.refuses.add(b"hub.example")
        options = {"fallback": ["https://f.example"], "auth_url": "https://auth.example/token"}
        self.reload(registry_url="https://hub.example", **options)
        self.send(b"/v2/o/a/manifests/1")
        self.network.refuses.clear()
        self.reload(registry_url="https://hub.example", resumes=1, **options)
        self.send(b"/v2/o/a/manifests/1")
        self.assertEqual(self.network.origins[-1].host, b"f.example")

    def test_identity(self) -> None:
        """A client has the same identity at a changed upstream, as in other processes."""
        mirror = self.mirror.service._mirror
        client = Headers({"Authorization": ["Bearer x"]})
        quotas = [mirror.settings.registries[b"docker.io"].quotas]
        self.reload()
        quotas.append(mirror.settings.registries[b"docker.io"].quotas)
        self.assertIsNot(*quotas)
        self.assertEqual(*(each.identity(client) for each in quotas))

    def test_wrong(self) -> None:
        """An invalid configuration changes nothing."""
        account = Account(username="me", password_file=self.mktemp())
        with self.assertRaises(ConfigError):
            self.reload(registries=[RegistryConfig(name="ghcr.test", account=[account])])
        self.send(b"/v2/o/a/manifests/1")
        self.assertEqual(self.network.origins[-1].host, b"hub.example")

    def test_atStart(self) -> None:
        """Changed options that take effect only at the start are logged."""
        for options, expected in (
            ({"port": ["tcp:1"], "max_head": "8k", "read_only": True}, {"port", "max-head"}),
            ({"max_head": "8k"}, {"max-head"}),
            ({"max_head": "8k"}, {"max-head"}),
            ({"read_only": True}, set()),
        ):
            with capturedLogs() as logs:
                self.reload(**options)
            warnings = [formatEvent(event) for event in logs if event["log_level"].name == "warn"]
            names = {name for each in warnings for name in str(each).partition(": ")[2].split(", ")}
            self.assertEqual(names & {"port", "max-head", "read-only"}, expected)


class HangUpTests(CommandCase):
    """
    Tests of SIGHUP.
    """

    def configure(self, text: str) -> None:
        (self.folder / "mirror.toml").write_text(text)

    def begin(self, *options: str) -> int:
        self.configure("read_only = false\n")
        self.start("--config=mirror.toml", "--port=tcp:0:interface=127.0.0.1", *options)
        return int(self.said(r"listening on \w+://127\.0\.0\.1:(\d+)")[1])

    def allowed(self, port: int) -> str:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("TRACE", "/v2/")
        allowed = connection.getresponse().headers["Allow"]
        connection.close()
        return str(allowed)

    def test_changed(self) -> None:
        port = self.begin()
        self.assertIn("PUT", self.allowed(port))
        self.configure("read_only = true\n")
        os.kill(self.process.pid, signal.SIGHUP)
        self.said("the configuration has been read again")
        self.assertNotIn("PUT", self.allowed(port))

    def test_wrong(self) -> None:
        port = self.begin()
        self.assertIn("PUT", self.allowed(port))
        self.configure("read_only = 1\nx = 2\n")
        os.kill(self.process.pid, signal.SIGHUP)
        self.said(r"stays as it was: .*mirror.toml:1: read_only")
        self.said(r"stays as it was: .*mirror.toml:2: x")
        self.assertIn("PUT", self.allowed(port))

    def test_account(self) -> None:
        """A mirror that becomes open to everybody warns."""
        self.begin()
        self.becomeOpen()

    def test_accountOfWorkers(self) -> None:
        self.begin("--workers=2")
        self.ready(2)
        self.becomeOpen()

    def becomeOpen(self) -> None:
        password = Path(self.folder, "password")
        password.write_text("secret\n")
        self.configure(f'[registry."ghcr.io"]\nusername = "me"\npassword_file = "{password}"\n')
        os.kill(self.process.pid, signal.SIGHUP)
        self.said("everybody who can reach this mirror can read .* at ghcr.io")

    def test_workers(self) -> None:
        """All workers read the configuration again, or none."""
        port = self.begin("--workers=2")
        self.ready(2)
        self.configure("x = 1\n")
        os.kill(self.process.pid, signal.SIGHUP)
        self.said("stays as it was: .*there is no such option")
        self.configure("read_only = true\n")
        os.kill(self.process.pid, signal.SIGHUP)
        for _ in "123":
            self.said("the configuration has been read again")
        for _ in range(8):
            self.assertNotIn("PUT", self.allowed(port))

    def test_replaced(self) -> None:
        """
        A worker that replaces another one has the configuration that the others have, whatever the
        file says by now, and the sockets of the ports at the start.
        """
        ports = 'port = ["tcp:0:interface=127.0.0.1", "ssl:0:interface=127.0.0.1"]\n'
        self.configure(ports)
        self.start(
            "--config=mirror.toml",
            "--workers=2",
            "--admin-port=tcp:0:interface=127.0.0.1",
            f"--registry-url={NO_REGISTRY}",
        )
        plain, tls = (int(self.said(r"listening on \w+://127\.0\.0\.1:(\d+)")[1]) for _ in range(2))
        self.ready(4)
        self.configure("x = 1\n")
        self.replace()
        self.assertIn("PUT", self.allowed(plain))
        self.configure("read_only = true\n" + ports.replace("tcp:0", "ssl:0"))
        os.kill(self.process.pid, signal.SIGHUP)
        self.said("these take effect when the mirror is started again: port")
        for _ in "12":
            self.said("the configuration has been read again")
        self.configure("x = 1\n")
        self.replace()
        for _ in range(8):
            self.assertNotIn("PUT", self.allowed(plain))
            self.assertServes(HTTPSConnection("127.0.0.1", tls, timeout=30, context=self.trust))

    def replace(self) -> None:
        """Kill the worker that has run for longer, and wait until another one listens."""
        os.kill(self.workers()[0], signal.SIGKILL)
        self.said("worker . ended")
        self.ready(2)

    def test_whileStarting(self) -> None:
        """A signal while workers start ends none of them."""
        port = self.begin("--workers=2")
        self.configure("read_only = true\n")
        os.kill(self.process.pid, signal.SIGHUP)
        for _ in "123":
            self.said("the configuration has been read again")
        for _ in range(8):
            self.assertNotIn("PUT", self.allowed(port))


class CheckTests(CommandCase):
    def check(self, text: str, *options: str) -> tuple[int, str]:
        (self.folder / "mirror.toml").write_text(text)
        self.start("--config=mirror.toml", "--check-config", *options)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output

    def test_good(self) -> None:
        """C{--check-config} prints every value and its source, and starts nothing."""
        Path(self.folder, "password").write_text("hunter2\n")
        status, output = self.check(
            'resumes = 7\n[registry."quay.io"]\nusername = "me"\npassword_file = "password"\n',
            "--read-only",
        )
        self.assertEqual(status, 0)
        for line in (
            "resumes = 7  # file",
            "read_only = true  # command line",
            "stall_timeout = 15  # default",
            '[registry."docker.io"]',
            'url = "https://registry-1.docker.io"',
            '[registry."quay.io"]',
            'username = "me"',
        ):
            self.assertIn(line + "\n", output)
        self.assertNotIn("hunter2", output)

    def test_wrong(self) -> None:
        status, _ = self.check("resumes = -1\n")
        self.assertEqual(status, 1)

    def test_accessLog(self) -> None:
        """A check makes no file, which would belong to whoever checks, and not to the mirror."""
        text = '[log]\naccess_log_file = "access.log"\n'
        status, _ = self.check(text)
        self.assertEqual(status, 0)
        self.assertFalse((self.folder / "access.log").exists())
        status, _ = self.check(text.replace('"access', '"missing/access'))
        self.assertEqual(status, 1)

    def test_certificate(self) -> None:
        """A key that does not belong to the certificate is found without a client."""
        (self.folder / "ca-key.pem").write_bytes((self.folder / "server.pem").read_bytes())
        status, _ = self.check(
            "", "--port=ssl:0:privateKey=server.pem:certKey=ca.pem:interface=127.0.0.1"
        )
        self.assertEqual(status, 1)
