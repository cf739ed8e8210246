"""
C{python -m hubmirror}: commands other than the mirror itself, which is C{twistd hubmirror}.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from hubmirror import __version__
from hubmirror.config import ConfigError, MirrorConfig
from hubmirror.config.known import HUB
from hubmirror.operations import demo, doctor
from hubmirror.operations.clientconfig import CLIENTS, Unusable, describe, readURL, write
from hubmirror.operations.discovery import registriesOf


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    @param arguments: the command line, by default that of the process.
    @return: the exit status.
    @raise SystemExit: raised by argparse, and by C{task.react} in commands that use the network.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        options.run(options)
    except Unusable as error:
        print(f"hubmirror {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m hubmirror",
        description="A streaming mirror of Docker Hub. The mirror itself: twistd -n hubmirror",
    )
    parser.add_argument("--version", action="version", version=f"hubmirror {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command")

    command = commands.add_parser(
        "demo", help="see it work, with a Hub that is made here; no network needed"
    )
    command.set_defaults(run=demo.run)

    command = commands.add_parser(
        "doctor",
        help="check a mirror, or the connection to the Hub",
        description="Checks a mirror as its clients would use it; without a URL, the Hub as a"
        " mirror would. Takes one or two of the pulls that the Hub grants.",
    )
    command.add_argument("url", nargs="?", metavar="URL", help="of the mirror")
    command.add_argument("--ca-file", metavar="FILE", help="PEM bundle to verify certificates with")
    command.add_argument("--repository", default="library/alpine", help="default: %(default)s")
    command.add_argument("--tag", default="latest", help="default: %(default)s")
    command.add_argument(
        "--registry",
        metavar="NAME",
        action="append",
        default=[],
        help="a registry to check as well; by default those that the mirror names",
    )
    command.add_argument("--json", action="store_true", help="for programs: all findings as JSON")
    command.set_defaults(run=doctor.run)

    command = commands.add_parser(
        "client-config",
        help="the settings with which a client uses a mirror",
        description=f"Prints the settings with which a client uses a mirror. The clients:"
        f" {', '.join(CLIENTS)}.",
    )
    command.add_argument("url", metavar="URL", help="of the mirror, such as https://mirror.example")
    command.add_argument("client", metavar="CLIENT", help="which client")
    command.add_argument(
        "--registry",
        metavar="NAME",
        action="append",
        help="a registry whose images are pulled through the mirror; may be given more than once;"
        " by default those that the mirror names",
    )
    command.add_argument(
        "--config", metavar="FILE", help="the mirror's configuration file, to learn them there"
    )
    command.add_argument(
        "--write", action="store_true", help="put the files in place; what was there is kept"
    )
    command.set_defaults(run=_clientConfig)
    return parser


def _clientConfig(options: Namespace) -> None:
    mirror = readURL(options.url)
    if options.registry:
        registries = options.registry
    elif options.config:
        try:
            config = MirrorConfig.fromFile(options.config)
        except ConfigError as error:
            raise Unusable(str(error)) from None
        registries = [each.name for each in config.allRegistries()]
    else:
        try:
            registries = registriesOf(mirror)
        except OSError as error:
            registries = [HUB.name]
            print(
                f"{mirror.authority} can't be asked for its registries ({error}): these are"
                f" settings for {HUB.name} alone; name others with --registry",
                file=sys.stderr,
            )
    if options.write:
        for line in write(options.client, mirror, registries, Path("/")):
            print(line)
    else:
        print(describe(options.client, mirror, registries), end="")


if __name__ == "__main__":
    sys.exit(main())
