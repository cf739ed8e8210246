"""How Sphinx builds these pages: ``make docs``."""

from importlib.metadata import version as installedVersion
from pathlib import Path

from hubmirror.config import describeDefault, optionName, options

project = "hubmirror"
author = "hubmirror contributors"
copyright = "2026, hubmirror contributors"
release = version = installedVersion("hubmirror")

exclude_patterns = ["_build", "_options.rst"]
nitpicky = True

html_theme = "furo"
html_title = f"hubmirror {release}"

# The table of options is made from the options themselves.
rows = [
    f'   "``{optionName(field)}``'
    f'{" R" * field.metadata["repeats"]}{" S" * field.metadata["atStart"]}",'
    f' "{describeDefault(field)}", "{field.metadata["help"].replace("*", chr(92) + "*")}"'
    for field in options()
]
table = [".. csv-table::", '   :header: "option", "default", "meaning"', ""]
Path(__file__, "..", "_options.rst").resolve().write_text("\n".join([*table, *rows, ""]))
