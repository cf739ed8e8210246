"""Tests of the messages to the service manager."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from unittest.mock import patch

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.operations.manager import tellManager


class ManagerTests(SynchronousTestCase):
    def told(self, address: str, name: str) -> bytes:
        """What a manager is told that listens at an address, which has a name in the variable."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.setblocking(False)
            with patch.dict(os.environ, NOTIFY_SOCKET=name):
                tellManager("READY=1")
            return manager.recv(100)

    def test_path(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "notify")
            self.assertEqual(self.told(path, path), b"READY=1")

    def test_abstract(self) -> None:
        name = f"hubmirror-test-{os.getpid()}"
        self.assertEqual(self.told("\0" + name, "@" + name), b"READY=1")

    def test_noManager(self) -> None:
        """Without the variable there is nobody to tell, and nothing to complain about."""
        for environment in ({}, {"NOTIFY_SOCKET": ""}):
            with patch.dict(os.environ, environment, clear=True), capturedLogs() as logged:
                tellManager("READY=1")
            self.assertEqual(logged, [])

    def test_gone(self) -> None:
        """A manager that does not listen is a warning, and no reason to end."""
        with (
            patch.dict(os.environ, NOTIFY_SOCKET="/nonexistent/notify"),
            capturedLogs() as logged,
        ):
            tellManager("READY=1")
        [line] = map(formatEvent, logged)
        self.assertIn("can't send READY=1 to the service manager: ", line)
