"""
The plugin: the command line of C{twistd hubmirror}, and the service that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.error import CannotListenError
from twisted.python import usage

from hubmirror.config import ConfigError, MirrorConfig, describeDefault, options
from hubmirror.service import HubMirror


def _optionMethod(field: attrs.Attribute[Any]) -> Callable[..., None]:
    """
    The C{opt_} method of an option.  How many arguments it takes tells C{usage} whether the
    option has a value.
    """
    name = field.name

    def flag(self: Options) -> None:
        self.given[name] = True

    def value(self: Options, value: str) -> None:
        self.given[name] = value

    def repeated(self: Options, value: str) -> None:
        self.given.setdefault(name, []).append(value)

    if field.metadata["repeats"]:
        method: Callable[..., None] = repeated
    else:
        method = flag if field.default is False else value
    method.__doc__ = _help(field)
    return method


def _help(field: attrs.Attribute[Any]) -> str:
    text: str = field.metadata["help"]
    if field.metadata["repeats"]:
        text += "; may be given more than once"
    default = describeDefault(field)
    return f"{text} [default: {default}]" if default else text


class Options(usage.Options):
    """
    The options of L{MirrorConfig}, on the command line.

    @ivar mirror: what they ask for, once they are parsed.
    """

    synopsis = "[options]"
    longdesc = "A streaming mirror of Docker Hub. Without options: the Hub, on 127.0.0.1:5000."

    mirror: HubMirror

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        super().__init__()

    def postOptions(self) -> None:
        """
        The mirror is made here, since C{twistd} shows a C{UsageError} in one line only as long as
        it reads options, and some of them name files that must be there.
        """
        from twisted.internet import reactor

        try:
            self.mirror = HubMirror(reactor, MirrorConfig(**self.given))
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


for _field in options():
    setattr(Options, f"opt_{_field.name}", _optionMethod(_field))


class CommandLineService(MultiService):
    """
    Ends the process with one line, without a traceback, when a port can't be had.
    """

    def privilegedStartService(self) -> None:
        try:
            super().privilegedStartService()
        except CannotListenError as error:
            raise SystemExit(f"hubmirror: {error}") from None


def makeService(options: Options) -> MultiService:
    """
    The service of a command line.
    """
    service = CommandLineService()
    options.mirror.service.setServiceParent(service)
    return service
