"""Tests of the log messages of a mirror that starts."""

import socket
import sys

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import Account, MirrorConfig, RegistryConfig
from hubmirror.operations.banner import announce


class FakePort:
    def __init__(self, address: IAddress) -> None:
        self.address = address

    def getHost(self) -> IAddress:
        return self.address


LOOPBACK = FakePort(IPv4Address("TCP", "127.0.0.1", 40001))
ANY = FakePort(IPv4Address("TCP", "0.0.0.0", 40002))
ANY6 = FakePort(IPv6Address("TCP", "::", 40003))
SOCKET = FakePort(UNIXAddress("/run/mirror"))


class AnnounceTests(SynchronousTestCase):
    def announced(
        self, ports: list[FakePort], terminal: bool | None = False, **options: object
    ) -> list[str]:
        with capturedLogs() as events:
            announce(MirrorConfig(**options), ports, terminal)
        return [formatEvent(event) for event in events]

    def test_ports(self) -> None:
        """Each port is logged with its actual number, or with its description."""
        self.assertEqual(
            self.announced(
                [LOOPBACK, ANY, ANY6, SOCKET],
                port=["tcp:0:interface=127.0.0.1", "ssl:0", "tcp6:0", "unix:/run/mirror"],
            )[:-1],
            [
                "listening on http://127.0.0.1:40001",
                "listening on https://0.0.0.0:40002",
                "listening on http://[::]:40003",
                "listening on unix:/run/mirror",
            ],
        )

    def test_upstreams(self) -> None:
        """The registry and the fallbacks are logged without paths, which may be secret."""
        for options, text in [
            ({}, "mirroring https://registry-1.docker.io"),
            (
                {"fallback": ["https://a.example/secret", "http://b.example"]},
                "mirroring https://registry-1.docker.io, and when that fails https://a.example,"
                " and when that fails http://b.example",
            ),
        ]:
            self.assertEqual(self.announced([LOOPBACK], **options)[-1], text)

    def test_registries(self) -> None:
        """Each registry has a line, with the URL that its table gives."""
        hub = RegistryConfig(name="docker.io", url="https://hub.example")
        quay = RegistryConfig(name="quay.io", fallback=["https://a.example"])
        self.assertEqual(
            self.announced([LOOPBACK], registries=[quay, hub], read_only=True)[1:],
            [
                "mirroring https://hub.example, without pushes",
                "mirroring https://quay.io, and when that fails https://a.example, without pushes",
            ],
        )

    def test_accounts(self) -> None:
        """
        There is a warning if everybody can use an account, in one line for all registries.
        """
        account = Account(username="me", password_file="/run/password")
        registries = [
            RegistryConfig(name=name, account=[account]) for name in ("docker.io", "ghcr.io")
        ]
        for options, names in (
            ({"registries": registries}, "docker.io, ghcr.io"),
            ({"registries": registries[:1], "deny_client": ["192.0.2.1"]}, "docker.io"),
            ({"registries": registries, "allow_client": ["192.0.2.0/24"]}, None),
            ({"registries": registries, "secret_path": "hard-to-guess"}, None),
            ({"registries": ["ghcr.io"]}, None),
        ):
            lines = self.announced([LOOPBACK], **options)
            warnings = [line for line in lines if line.startswith("everybody")]
            self.assertEqual(len(warnings), names is not None, options)
            for warning in warnings:
                self.assertIn(f"what its accounts at {names} can read", warning)

    def test_embedded(self) -> None:
        """A mirror without ports logs nothing."""
        self.assertEqual(self.announced([], terminal=True, port=[]), [])

    def test_settings(self) -> None:
        """On a terminal, the settings for dockerd and containerd are logged."""
        [*_, settings] = self.announced([LOOPBACK], terminal=True)
        for part in (
            "/etc/docker/daemon.json",
            '"http://127.0.0.1:40001"',
            "/etc/containerd/certs.d/docker.io/hosts.toml",
            '[host."http://127.0.0.1:40001"]',
        ):
            self.assertIn(part, settings)

    def test_secretPath(self) -> None:
        """There are no settings without the secret path, and those with it are not logged."""
        options = {"secret_path": "k3/hard-to-guess"}
        [*_, settings] = lines = self.announced([LOOPBACK], terminal=True, **options)
        self.assertIn("client-config http://127.0.0.1:40001/SECRET-PATH CLIENT", settings)
        self.assertNotIn("hard-to-guess", "".join(lines))
        self.assertNotIn("daemon.json", settings)

    def test_settingsForOthers(self) -> None:
        """
        The settings for a port on all addresses have the machine's name, which other machines can
        use.
        """
        self.patch(socket, "gethostname", lambda: "mirrorhost")
        for description, port, url in [
            ("ssl:0", ANY, "https://mirrorhost:40002"),
            ("tcp6:0", ANY6, "http://mirrorhost:40003"),
        ]:
            [*_, settings] = self.announced([port], terminal=True, port=[description])
            self.assertIn(f'[host."{url}"]', settings)

    def test_publicURL(self) -> None:
        """If there is a public URL, the settings have that."""
        for description, port in [("ssl:0", ANY), ("unix:/run/mirror", SOCKET)]:
            [*_, settings] = self.announced(
                [port], terminal=True, port=[description], public_url="https://mirror.example"
            )
            self.assertIn('[host."https://mirror.example"]', settings)

    def test_noSettings(self) -> None:
        """A mirror whose URL no client can use starts all the same."""
        lines = self.announced([SOCKET], terminal=True, port=["unix:/run/mirror"])
        self.assertTrue(lines[-1].startswith("mirroring"))
        lines = self.announced([LOOPBACK], terminal=True, public_url="https://mirror.example/%41")
        self.assertTrue(lines[-1].startswith("no settings"))

    def test_noTerminal(self) -> None:
        """
        The process's own standard output decides whether there is a terminal, not twistd's
        replacement.
        """

        class Output:
            def isatty(self) -> bool:
                return answer

        self.patch(sys, "__stdout__", Output())
        answer = True
        self.assertIn("daemon.json", self.announced([LOOPBACK], terminal=None)[-1])
        answer = False
        self.assertNotIn("daemon.json", self.announced([LOOPBACK], terminal=None)[-1])
        self.patch(sys, "__stdout__", None)
        self.assertNotIn("daemon.json", self.announced([LOOPBACK], terminal=None)[-1])
