"""Prints the lowest version that pyproject.toml allows of each package, as constraints for pip."""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

project = tomllib.loads(Path(__file__, "../../pyproject.toml").resolve().read_text())["project"]
extras = project["optional-dependencies"]
for requirement in project["dependencies"] + extras["admin"] + extras["unit"]:
    found = re.match(r"([A-Za-z0-9-]+)(?:\[.*\])?>=([0-9.]+)", requirement)
    if found:
        print(f"{found[1]}=={found[2]}")
