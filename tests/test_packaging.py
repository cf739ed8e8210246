"""Tests of what an installation provides: the plugin for twistd, and types for mypy."""

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.modules import getModule
from twisted.python.usage import Options
from twisted.trial.unittest import SynchronousTestCase


class PluginTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "hubmirror"]

    def test_found(self) -> None:
        """twistd finds exactly one service maker with the name."""
        self.assertEqual([maker.module for maker in self.makers], ["hubmirror.tap"])

    def test_complete(self) -> None:
        """The plugin's module has the two names that twistd requires."""
        [maker] = self.makers
        self.assertIsInstance(maker.options(), Options)
        self.assertTrue(callable(maker.makeService))


class LayoutTests(SynchronousTestCase):
    package = getModule("hubmirror").filePath.parent()

    def test_typed(self) -> None:
        """The package has the marker for types."""
        self.assertTrue(self.package.child("py.typed").isfile())

    def test_twistedIsNotOurs(self) -> None:
        """
        The plugin's folder is not a package: an C{__init__.py} there would hide Twisted's own.
        """
        plugins = getModule("twisted.plugins.hubmirror_plugin").filePath.parent()
        self.assertTrue(plugins.child("hubmirror_plugin.py").isfile())
        self.assertFalse(plugins.child("__init__.py").exists())
        self.assertFalse(plugins.sibling("__init__.py").exists())
