"""Tests of which module of hubmirror may import which, and of the public names."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name

from twisted.python.modules import getModule
from twisted.trial.unittest import SynchronousTestCase

import hubmirror

#: What each part of hubmirror may import besides itself; "" is the package itself, with its public
#: names. A part is a module, or a package without those of its modules that have a line of their
#: own.
ALLOWED = {
    "protocol": set(),
    "config": {"config.file", "protocol"},
    # This module reads the file, which is the only thing in the package that is not pure.
    "config.file": {"config", "protocol"},
    "exchange": {"protocol"},
    "limits": {"config"},
    "transport": {"protocol"},
    # The modules that serve requests do not import it.
    "admin": {
        "config",
        "downstream",
        "exchange",
        "protocol",
        "transport",
        "upstream",
        "upstream.policy",
    },
    "upstream.policy": {"config", "protocol"},
    "upstream": {"config", "exchange", "protocol", "transport", "upstream.policy"},
    "downstream": {
        "config",
        "exchange",
        "protocol",
        "transport",
        "upstream",
        "upstream.policy",
    },
    "operations": {"config", "exchange", "protocol"},
    "registries": {
        "config",
        "downstream",
        "limits",
        "transport",
        "upstream",
        "upstream.policy",
    },
    "page": {
        "config",
        "downstream",
        "exchange",
        "operations",
        "protocol",
        "upstream",
        "upstream.policy",
    },
    "listening": {"config", "transport"},
    "service": {
        "admin",
        "config",
        "downstream",
        "exchange",
        "limits",
        "listening",
        "operations",
        "page",
        "protocol",
        "registries",
        "transport",
    },
    "worker": {"config"},
    "workers": {"admin", "config", "downstream", "operations", "transport", "worker"},
    "": {"config", "service"},
    "tap": {
        "config",
        "config.file",
        "downstream",
        "limits",
        "operations",
        "service",
        "worker",
        "workers",
    },
    "testing": set(),
    # Programs of their own, which no module of a mirror imports.
    "operations.diagnosis": {"operations", "transport"},
    "operations.reaching": {"operations", "protocol", "transport"},
    "operations.examination": {
        "operations",
        "operations.diagnosis",
        "operations.reaching",
        "protocol",
    },
    "operations.clientmachine": {"operations", "protocol"},
    "operations.doctor": {
        "config",
        "operations",
        "operations.clientmachine",
        "operations.examination",
        "transport",
    },
    "operations.demo": {"operations", "testing"},
    "__main__": {"", "config", "operations", "operations.demo", "operations.doctor"},
}

#: The parts that only compute, and the imports that they must not have. A name includes all modules
#: below it.
PURE = {"protocol", "config", "limits", "upstream.policy"}
IMPURE = {
    "asyncio",
    "http.client",
    "io",
    "os",
    "pathlib",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "treq",
    "twisted.internet",
    "twisted.python.filepath",
    "twisted.web.client",
    "urllib.request",
}

FILES = {module.name: module.filePath for module in getModule("hubmirror").walkModules()}


def findImports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """
    Find the imports of a module, including those within functions.

    @param package: the package of the module, to which relative imports are relative.
    @return: the line and the full name of each import.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"


def importsOf(module: str) -> Iterator[tuple[str, str]]:
    """
    Find the imports of a module of hubmirror: the place (file and line) and the full name of each.
    """
    path = FILES[module]
    package = module if path.basename() == "__init__.py" else module.rpartition(".")[0]
    for line, name in findImports(path.getContent().decode(), package):
        yield f"{path.path}:{line}", name


def partOf(name: str) -> str:
    """Find the part to which a module of hubmirror, or a name in one, belongs."""
    part = name.removeprefix("hubmirror").removeprefix(".")
    while part not in ALLOWED:
        part = part.rpartition(".")[0]
    return part


def isUnder(name: str, ancestors: set[str]) -> bool:
    """Whether a name is one of some others or below one of them."""
    return any(f"{name}.".startswith(f"{ancestor}.") for ancestor in ancestors)


class ReaderTests(SynchronousTestCase):
    """Tests of the functions above."""

    def test_spellings(self) -> None:
        """Every form of import is found."""
        for statement, name in [
            ("import hubmirror.tap", "hubmirror.tap"),
            ("import hubmirror.tap as t", "hubmirror.tap"),
            ("from hubmirror import tap", "hubmirror.tap"),
            ("from hubmirror.tap import Options", "hubmirror.tap.Options"),
            ("from . import agents", "hubmirror.upstream.agents"),
            ("from ..tap import Options", "hubmirror.tap.Options"),
            ("def f():\n    from twisted.internet import reactor", "twisted.internet.reactor"),
        ]:
            found = [name for _, name in findImports(statement, "hubmirror.upstream")]
            self.assertEqual(found, [name], statement)

    def test_parts(self) -> None:
        """The innermost part counts."""
        for name, part in [
            ("hubmirror.upstream.policy.order", "upstream.policy"),
            ("hubmirror.upstream.agents", "upstream"),
            ("hubmirror.MirrorConfig", ""),
            ("hubmirror", ""),
        ]:
            self.assertEqual(partOf(name), part)


class ImportTests(SynchronousTestCase):
    def assertNothing(self, faults: list[str]) -> None:
        if faults:
            self.fail("\n".join(faults))

    def test_everyModuleIsListed(self) -> None:
        """Every module must be given its place in L{ALLOWED}."""
        homeless = [name for name in FILES if name != "hubmirror" and not partOf(name)]
        self.assertNothing([f"{FILES[name].path}: ALLOWED has no part for it" for name in homeless])

    def test_direction(self) -> None:
        """No part imports one that is not allowed."""
        self.assertNothing(
            [
                f"{place} imports {name}: '{partOf(module)}' may not know '{partOf(name)}'"
                for module in FILES
                for place, name in importsOf(module)
                if isUnder(name, {"hubmirror"})
                and partOf(name) not in ALLOWED[partOf(module)] | {partOf(module)}
            ]
        )

    def test_pure(self) -> None:
        """The parts that only compute import nothing that does I/O or waits."""
        self.assertNothing(
            [
                f"{place} imports {name}: '{partOf(module)}' is pure"
                for module in FILES
                if partOf(module) in PURE
                for place, name in importsOf(module)
                if isUnder(name, IMPURE)
            ]
        )

    def test_reactorByName(self) -> None:
        """Only the plugin uses the global reactor; all other modules are passed one."""
        self.assertNothing(
            [
                f"{place} imports the global reactor"
                for module in FILES
                if partOf(module) != "tap"
                for place, name in importsOf(module)
                if isUnder(name, {"twisted.internet.reactor"})
            ]
        )

    def test_reactorByImport(self) -> None:
        """Importing a module installs no reactor, so that an embedder can still choose one."""
        names = ", ".join(name for name in FILES if partOf(name) != "__main__")
        code = f"import {names}, sys; assert 'twisted.internet.reactor' not in sys.modules"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)


class PublicNamesTests(SynchronousTestCase):
    def test_exported(self) -> None:
        """
        The public names are a promise: adding one is a decision, and removing one breaks programs.
        """
        self.assertEqual(
            sorted(hubmirror.__all__), ["HubMirror", "MirrorConfig", "__version__", "makeSite"]
        )
        for name in hubmirror.__all__:
            self.assertTrue(hasattr(hubmirror, name), name)
