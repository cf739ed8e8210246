"""
Tests of the support for real programs: what is missing is reported, and never counts as success.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.integration import programs


class RequireTests(SynchronousTestCase):
    def setUp(self) -> None:
        packages = {**programs.PACKAGES, "no-such-program": "its-package"}
        self.patch(programs, "PACKAGES", packages)

    def test_missing(self) -> None:
        """A missing program skips the test, which names its Debian package."""
        self.patch(os, "environ", {**os.environ, "HUBMIRROR_NO_SKIP": ""})
        skip = self.assertRaises(SkipTest, programs.require, "no-such-program")
        self.assertIn("no-such-program (Debian package its-package)", str(skip))

    def test_missingWhereNothingMayBe(self) -> None:
        """With C{HUBMIRROR_NO_SKIP=1} a missing program is a failure."""
        self.patch(os, "environ", {**os.environ, "HUBMIRROR_NO_SKIP": "1"})
        self.assertRaises(AssertionError, programs.require, "no-such-program")


class SurroundingsTests(SynchronousTestCase):
    def test_environment(self) -> None:
        """A program gets nothing of the machine's environment except C{PATH}."""
        settings = dict.fromkeys(("http_proxy", "REGISTRY_HTTP_ADDR", "DOCKER_HOST", "TZ"), "x")
        self.patch(os, "environ", {"PATH": "/programs", **settings})
        given = programs.environment({"MORE": "1"})
        self.assertEqual((given["PATH"], given["MORE"]), ("/programs", "1"))
        self.assertNotIn("x", given.values())

    def test_folders(self) -> None:
        """
        A client gets the hosts file of the test, and no settings for registries of the machine.
        """
        programs.require("unshare", "mount")
        hosts = Path(self.mktemp())
        hosts.write_text("127.0.0.1 hub.test\n")
        show = "cat /etc/hosts; ls -A /etc/containers/registries.conf.d 2>/dev/null || true"
        command = programs.withHosts(hosts.resolve(), ["sh", "-c", show])
        shown = programs.run(command)
        self.assertEqual(shown, hosts.read_text())
