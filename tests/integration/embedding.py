"""
A program with a mirror of several registries in it: C{python -m tests.integration.embedding FILE
OPTIONS}.  The file has the settings of each registry, by its name, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.python.log import startLogging

from hubmirror import HubMirror
from hubmirror.config import Account, RegistryConfig
from hubmirror.tap import Options


def main(path: Path, *arguments: str) -> None:
    """Run until a signal comes."""
    startLogging(sys.stdout)
    options = Options()
    options.parseOptions(arguments)
    registries = [
        RegistryConfig(
            name=name, account=[Account(**each) for each in settings.pop("account", ())], **settings
        )
        for name, settings in json.loads(path.read_text()).items()
    ]
    service = HubMirror(reactor, attrs.evolve(options.config, registries=registries)).service
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
