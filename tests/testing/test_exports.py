"""
Tests that the package does not use the mirror: a fault of the mirror would otherwise be in both.
"""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import hubmirror.testing


class ExportTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name in hubmirror.testing.__all__:
            self.assertTrue(hasattr(hubmirror.testing, name), name)

    def test_importsNothingOfTheMirror(self) -> None:
        for path in Path(hubmirror.testing.__file__).parent.glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.ImportFrom):
                    self.assertEqual(node.level, 0, f"{path}: a relative import")
                    names = [node.module]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    if name.partition(".")[0] == "hubmirror":
                        self.assertTrue(name.startswith("hubmirror.testing."), f"{path}: {name}")
