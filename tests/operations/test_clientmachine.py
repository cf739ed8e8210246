"""Tests of the doctor's checks of the settings of a machine's clients."""

import json
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from hubmirror.operations.clientmachine import ClientMachine, dockerVersion

MIRROR = "https://mirror.example"
DAEMON = "etc/docker/daemon.json"
HOSTS = "etc/docker/certs.d/docker.io/hosts.toml"
LOGIN = "root/.docker/config.json"
NAMES_MIRROR = json.dumps({"registry-mirrors": [MIRROR + "/"]})
OF_MIRROR = f'[host."{MIRROR}"]'
OF_ANOTHER = '[host."https://other.example"]'
LOGGED_IN = json.dumps({"auths": {"https://index.docker.io/v1/": {}}})


class ClientMachineTests(SynchronousTestCase):
    def examine(
        self,
        files: dict[str, str],
        docker: tuple[int, ...] | None = (29, 1),
        url: str = MIRROR,
        **environment: str,
    ) -> list[tuple[str, str]]:
        """
        The check and state of each finding on a machine with these files.
        """
        root = Path(self.mktemp())
        for name, text in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        machine = ClientMachine(root, environment, docker)
        self.findings = list(machine.examine(url))
        return [(finding.check, finding.state) for finding in self.findings]

    def test_noDocker(self) -> None:
        """A machine without dockerd has no findings."""
        self.assertEqual(self.examine({}, None), [])

    def test_settings(self) -> None:
        """
        Which of the two files is used depends on the version, and that file must name the mirror.
        """
        for files, docker, state, text in [
            ({}, (29, 1), "WRONG", "does not name the mirror"),
            ({DAEMON: NAMES_MIRROR}, (20, 10), "ok", "daemon.json names"),
            ({DAEMON: NAMES_MIRROR}, (29, 1), "ok", "daemon.json names"),
            ({DAEMON: NAMES_MIRROR, HOSTS: OF_ANOTHER}, (28, 5), "ok", "daemon.json names"),
            ({DAEMON: NAMES_MIRROR, HOSTS: OF_ANOTHER}, (29, 0), "WRONG", "overrides"),
            ({DAEMON: NAMES_MIRROR, HOSTS: OF_ANOTHER}, None, "WRONG", "overrides"),
            ({HOSTS: OF_MIRROR}, (29, 0), "ok", "hosts.toml names"),
            ({HOSTS: OF_MIRROR}, (28, 0), "WRONG", "registry-mirrors in daemon.json does not"),
            ({DAEMON: "{"}, (29, 1), "WRONG", "does not name the mirror"),
            ({DAEMON: "[]"}, (29, 1), "WRONG", "does not name the mirror"),
            ({DAEMON: '{"registry-mirrors": null}'}, (29, 1), "WRONG", "does not name"),
            ({HOSTS: f'[host."{MIRROR}0"]'}, (29, 0), "WRONG", "overrides"),
            (
                {DAEMON: json.dumps({"registry-mirrors": [MIRROR + "/old"]})},
                (29, 1),
                "WRONG",
                f"has {MIRROR}/old, which is another URL",
            ),
        ]:
            self.assertEqual(self.examine(files, docker), [("settings", state)], files)
            self.assertIn(text, self.findings[0].text)

    def test_login(self) -> None:
        """A login for the Hub is noted, wherever it is stored."""
        found = [("settings", "ok"), ("login", "note")]
        self.assertEqual(
            self.examine({DAEMON: NAMES_MIRROR, LOGIN: LOGGED_IN}, HOME="/root"), found
        )
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "config.json").write_text(LOGGED_IN)
        self.assertEqual(self.examine({DAEMON: NAMES_MIRROR}, DOCKER_CONFIG=str(folder)), found)
        other = json.dumps({"auths": {"https://other.example": {}}})
        self.assertEqual(self.examine({DAEMON: NAMES_MIRROR, LOGIN: other}), [("settings", "ok")])

    def test_plainLoopback(self) -> None:
        """A mirror without TLS on loopback must be listed if other insecure ones are."""
        for url in ("http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000"):
            host = url.removeprefix("http://")
            for insecure, docker, state in [
                ([], (29, 10), "ok"),
                (None, (29, 10), "ok"),
                (["other:80"], (29, 9), "ok"),
                (["other:80"], (29, 10), "WRONG"),
                (["other:80", host], (29, 10), "ok"),
            ]:
                settings = {"registry-mirrors": [url], "insecure-registries": insecure}
                self.assertEqual(
                    self.examine({DAEMON: json.dumps(settings)}, docker, url),
                    [("settings", "ok"), ("insecure", state)],
                    (url, insecure, docker),
                )

    def test_version(self) -> None:
        """The version of the daemon, if one responds."""
        folder = Path(self.mktemp())
        folder.mkdir()
        program = folder / "docker"
        for says, version in [
            ("echo 29.1.3", (29, 1)),
            ("echo none", None),
            ("exit 1", None),
        ]:
            program.write_text(f"#!/bin/sh\n{says}\n")
            program.chmod(0o755)
            self.patch(os, "environ", {"PATH": f"{folder.absolute()}:/bin"})
            self.assertEqual(dockerVersion(), version)
        self.patch(os, "environ", {"PATH": "/nowhere"})
        self.assertIsNone(dockerVersion())
