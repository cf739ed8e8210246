"""How Sphinx builds these pages: ``make docs``."""

from importlib.metadata import version as installedVersion

project = "hubmirror"
author = "hubmirror contributors"
copyright = "2026, hubmirror contributors"
release = version = installedVersion("hubmirror")

exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"hubmirror {release}"
