"""
Tests that the READMEs in both languages correspond.
"""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[1]


def shapeOf(name: str) -> list[str]:
    """
    What both READMEs have in common, in order: the levels of headings, blocks of code, the names of
    files and commands, and the number of items in each list.
    """
    text = (ROOT / name).read_text("utf-8")
    pattern = r"^```.*?^```|^#+ |^\* |`[^`\n]+`"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


class ReadmeTests(SynchronousTestCase):
    maxDiff = None

    def test_alike(self) -> None:
        self.assertEqual(shapeOf("README.zh.md"), shapeOf("README.md"))

    def test_eachNamesTheOther(self) -> None:
        self.assertIn("(README.zh.md)", (ROOT / "README.md").read_text("utf-8"))
        self.assertIn("(README.md)", (ROOT / "README.zh.md").read_text("utf-8"))
