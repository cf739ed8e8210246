"""
Tests of a release, except for the upload: the changelog is built as a draft, and the package is
checked.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.programs import ROOT, require


class ReleaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        require("unshare")
        # The build writes into the folder that is built.
        self.folder = Path(self.mktemp()).absolute()
        shutil.copytree(
            ROOT,
            self.folder,
            ignore=shutil.ignore_patterns(".git", ".venv", "_trial_temp*", "dist", "build"),
        )

    def run_(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_changelog(self) -> None:
        """The draft contains every change note."""
        notes = self.folder / "changelog.d"
        (notes / "+new.feature.rst").write_text("Something new can be done.\n")
        draft = " ".join(self.run_("towncrier", "build", "--draft", "--version", "9.9.9").split())
        self.assertIn("9.9.9", draft)
        for fragment in notes.glob("*.*.rst"):
            for line in fragment.read_text().splitlines():
                self.assertIn(" ".join(line.split())[:60], draft)

    def test_package(self) -> None:
        """The package passes C{twine check}."""
        self.run_("build", "--outdir", "dist")
        self.run_("twine", "check", "--strict", *map(str, (self.folder / "dist").iterdir()))
