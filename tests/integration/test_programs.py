"""
What is missing is said, and never taken for a success.
"""

from __future__ import annotations

import os

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
        """Where C{HUBMIRROR_NO_SKIP=1} it is a failure."""
        self.patch(os, "environ", {**os.environ, "HUBMIRROR_NO_SKIP": "1"})
        self.assertRaises(AssertionError, programs.require, "no-such-program")
