"""Tests of the command line of ``python -m hubmirror``."""

import json
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import hubmirror
from hubmirror.__main__ import main

ROOT = Path(hubmirror.__file__).parent.parent


class MainTests(SynchronousTestCase):
    def run_(self, *arguments: str) -> tuple[int, str, str]:
        """The status, standard output and standard error of a command."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = end.code
        return status, out.getvalue(), err.getvalue()

    def test_help(self) -> None:
        """The help lists the commands; it installs no reactor."""
        code = (
            "import runpy, sys; sys.argv = ['hubmirror', '--help']\n"
            "try: runpy.run_module('hubmirror', run_name='__main__')\n"
            "except SystemExit as end: assert not end.code\n"
            "assert 'twisted.internet.reactor' not in sys.modules"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        for command in ("demo", "doctor", "client-config"):
            self.assertIn(command, done.stdout)

    def test_version(self) -> None:
        self.assertEqual(self.run_("--version"), (0, f"hubmirror {hubmirror.__version__}\n", ""))

    def test_noCommand(self) -> None:
        """Without a command, the help is printed, and the status is 2."""
        status, out, err = self.run_()
        self.assertEqual((status, out), (2, ""))
        self.assertIn("client-config", err)

    def test_clientConfig(self) -> None:
        """The command prints only the settings."""
        with patch("hubmirror.__main__.registriesOf", return_value=["docker.io"]):
            status, out, err = self.run_("client-config", "https://mirror.example", "docker")
        self.assertEqual((status, err), (0, ""))
        self.assertIn('"https://mirror.example"', out)
        self.assertIn("/etc/docker/daemon.json", out)

    def test_registriesOfTheConfiguration(self) -> None:
        """The registries are those of the configuration file, and the mirror is not asked."""
        path = Path(self.mktemp())
        path.write_text('[registry."ghcr.io"]\n')
        command = ("client-config", "https://mirror.example", "podman", "--config", str(path))
        with patch("hubmirror.__main__.registriesOf", side_effect=AssertionError):
            status, out, err = self.run_(*command)
        self.assertEqual((status, err), (0, ""))
        for location in ("mirror.example", "mirror.example/ghcr.io"):
            self.assertIn(f'[[registry.mirror]]\nlocation = "{location}"\n', out)
        path.write_text("resumes = -1\n")
        status, out, err = self.run_(*command)
        self.assertEqual((status, out), (2, ""))
        self.assertRegex(err, rf"\Ahubmirror client-config: {path}:1: resumes.*\n\Z")

    def test_write(self) -> None:
        """The files are written below C{/}, and only their names are printed."""
        root = Path(self.mktemp())
        root.mkdir()
        command = ("client-config", "https://mirror.example", "podman", "--registry", "ghcr.io")
        _, settings, _ = self.run_(*command)
        self.assertEqual(list(root.iterdir()), [])
        with patch("hubmirror.__main__.Path", return_value=root) as made:
            status, out, err = self.run_(*command, "--write")
        made.assert_called_once_with("/")
        self.assertEqual((status, err), (0, ""))
        [path] = [each for each in root.rglob("*") if each.is_file()]
        self.assertIn(path.read_text(), settings)
        self.assertIn('location = "mirror.example/ghcr.io"', path.read_text())
        self.assertRegex(out, rf"\A.*{path.name}.*\n\Z")

    def test_mirrorUnreachable(self) -> None:
        """Settings for the Hub are printed, and that the mirror may have further registries."""
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            status, out, err = self.run_("client-config", url, "docker")
        self.assertEqual(status, 0)
        self.assertIn(url, out)
        self.assertRegex(err, r"\A127\.0\.0\.1:.* alone; name others with --registry\n\Z")

    def test_unusable(self) -> None:
        """If the arguments are invalid, the command prints one line, and the status is 2."""
        for arguments, text in [
            (("client-config", "https://m", "rkt", "--registry", "ghcr.io"), "not for 'rkt'"),
            (("client-config", "mirror.example", "docker"), "not an absolute URL"),
            (("client-config", "https://m/?x", "docker"), "without user information"),
            (("doctor", "mirror.example"), "not an absolute URL"),
            (("doctor", "https://m", "--ca-file", "/nowhere"), "--ca-file: /nowhere"),
        ]:
            status, out, err = self.run_(*arguments)
            self.assertEqual((status, out), (2, ""), arguments)
            self.assertRegex(err, rf"\Ahubmirror {arguments[0]}: .*{text}.*\n\Z")

    def test_doctor(self) -> None:
        """For a mirror that can't be reached, there is one finding, and the status is 1."""
        done = subprocess.run(
            [sys.executable, "-m", "hubmirror", "doctor", "http://127.0.0.1:1"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("WRONG  connection  connection refused", done.stdout)

    def test_doctorAsJSON(self) -> None:
        """The finding as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "hubmirror", "doctor", "http://127.0.0.1:1", "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        found = json.loads(done.stdout)
        self.assertEqual((found["url"], found["ok"]), ("http://127.0.0.1:1", False))
        findings = [(each["check"], each["state"]) for each in found["findings"][:2]]
        self.assertEqual(findings, [("name", "ok"), ("connection", "WRONG")])
        self.assertEqual(found["findings"][1]["registry"], "docker.io")
        self.assertIn("check whether the server listens", found["findings"][1]["remedy"])
