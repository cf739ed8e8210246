"""
The plugin: the command line of C{twistd hubmirror}, and the service that it creates.
"""

from __future__ import annotations

import gc
import mmap
import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.error import CannotListenError
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.reflect import fullyQualifiedName

from hubmirror.config import (
    ConfigError,
    MirrorConfig,
    describeDefault,
    optionName,
    options,
    readFile,
)
from hubmirror.downstream.rates import SIZE as RATES_SIZE
from hubmirror.limits import mostDescriptors
from hubmirror.operations.accesslog import AccessLog, checkAccessLog
from hubmirror.operations.configcheck import describeConfig
from hubmirror.operations.manager import tellManager
from hubmirror.service import HubMirror, MirrorService, makeAdminPort
from hubmirror.worker import AdoptingReactor, Lifeline, ReportPipe, inheritance, readConfig
from hubmirror.workers import Supervisor


def _optionMethod(field: attrs.Attribute[Any]) -> Callable[..., None]:
    """
    Create the C{opt_} method of an option.  L{usage.Options} sees from the number of the method's
    arguments whether the option has a value.
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

    @ivar config: the configuration, once the options are parsed.
    @ivar service: the service that serves it: a mirror, or the supervisor of its workers.
    """

    synopsis = "[options]"
    longdesc = "A streaming mirror of Docker Hub. Without options: the Hub, on 127.0.0.1:5000."

    config: MirrorConfig
    service: MirrorService | Supervisor

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self._file: str | None = None
        self._isCheck = False
        self._inherited = inheritance()
        super().__init__()

    def opt_config(self, path: str) -> None:
        """
        TOML file with options, whose names have "_" for "-"; the command line overrides it
        """
        self._file = os.path.abspath(path)

    def opt_check_config(self) -> None:
        """
        print the resulting configuration, and exit with status 1 if it is invalid
        """
        self._isCheck = True

    def read(self) -> MirrorConfig:
        """
        Read the configuration from the command line and from the present content of the file.  A
        worker's is that of its supervisor, although the file may have changed since.

        @raise ConfigError: when the file can't be read or a value is invalid.
        """
        if self._inherited is not None:
            return _withoutSystemd(readConfig(self._inherited.config))
        return MirrorConfig(**self._values())

    def _values(self) -> dict[str, Any]:
        """
        The options that are set.  Those on the command line override those in the file, but
        registries on the command line are added to those in the file.
        """
        found = self._fromFile()
        inFile = found.get("registries", [])
        named = self.given.get("registries", [])
        names = {each.name for each in inFile}
        registries = [*inFile, *(each for each in named if each.lower() not in names)]
        return {**found, **self.given, **({"registries": registries} if registries else {})}

    def _fromFile(self) -> dict[str, Any]:
        return {} if self._file is None else readFile(self._file)

    def postOptions(self) -> None:
        """
        Create the service, or check the configuration.  An option may name a file that does not
        exist, and C{twistd} prints a C{UsageError} as one line only while it parses options.

        A check is often made by root, for a mirror with another account.  It does not open the
        access log, because a file that it creates would belong to root.
        """
        from twisted.internet import reactor

        try:
            self.config = self.read()
            self.service = self._makeService(reactor)
        except ConfigError as error:
            if self._isCheck or self._file is not None or self._inherited is not None:
                # What twistd says with a UsageError is the whole help first, which would hide the
                # mistake in the journal of a service.
                raise SystemExit(f"hubmirror: {error}") from None
            raise usage.UsageError(str(error)) from None
        if self._isCheck:
            print(describeConfig(self.config, self._fromFile(), self.given), end="")
            raise SystemExit(0)

    def _makeService(self, reactor: Any) -> MirrorService | Supervisor:
        config, inherited = self.config, self._inherited
        if self._isCheck:
            config = _withoutSystemd(config)
            checkAccessLog(config)
        if not isinstance(reactor, SelectReactor):
            _raiseFileLimit(config)
        if inherited is not None:
            listening = AdoptingReactor(reactor, inherited.sockets)
            rates = mmap.mmap(inherited.rates, RATES_SIZE)
            mirror = HubMirror(
                reactor,
                config,
                listening=listening,
                via=inherited.via,
                key=inherited.key,
                rates=rates,
            )
            pipe = ReportPipe(reactor, inherited.reports)
            report = mirror.report or (lambda: {"counters": {}, "histograms": {}})
            lifeline = Lifeline(reactor, lambda: pipe.send(report()))
            mirror.service.closed = lambda: pipe.send({**report(), "closed": True})
            reactor.callWhenRunning(reactor.addReader, lifeline)
            return mirror.service
        # The mirror is created even when workers serve, so that an invalid configuration is
        # reported once, by this process.
        serves = config.workers == 1 and not self._isCheck
        mirror = HubMirror(reactor, config, listeners=None if serves else [])
        if config.workers == 1:
            return mirror.service
        if any(each.startswith("unix:") for each in config.port):
            raise ConfigError("--workers: a unix: port can't be shared; use tcp:, or one process")

        def check(config: MirrorConfig) -> None:
            # The workers write the access log.  If this process kept it open, too, the disk space
            # of a file that has been rotated and removed would not be freed.
            AccessLog(config).close()
            mirror.service.reload(config)

        if not self._isCheck:
            AccessLog(config).close()
        count = config.workers or len(os.sched_getaffinity(0))
        supervisor = Supervisor(
            reactor,
            config,
            mirror.endpoints,
            count,
            self._workerArguments,
            via=mirror.via,
            key=mirror.key,
            check=check,
        )
        if config.admin_port is not None:
            supervisor.adminPort = makeAdminPort(reactor, config.admin_port, supervisor.findStatus)
        return supervisor

    def _workerArguments(self, number: int) -> list[str]:
        """
        The arguments of a worker's C{twistd}: the reactor is that of this process, and so is the
        log, unless it is a file.  Other options have an effect that the worker inherits, such as
        C{--uid} and C{--umask}.  Without a C{twistd}, there are none of these options.
        """
        arguments = ["--nodaemon", "--pidfile="]
        twistd: Any = self.parent
        if twistd is None:
            return [*arguments, "hubmirror"]
        if twistd.get("reactor"):
            arguments.append(f"--reactor={twistd['reactor']}")
        if twistd["logger"]:
            arguments.append(f"--logger={fullyQualifiedName(twistd['logger'])}")
        elif twistd["syslog"]:
            arguments += ["--syslog", f"--prefix={twistd['prefix']}"]
        elif not (twistd["nodaemon"] and twistd["logfile"] in (None, "-")):
            arguments.append(f"--logfile={twistd['logfile'] or 'twistd.log'}.worker-{number}")
        return [*arguments, "hubmirror"]


for _field in options():
    setattr(Options, "opt_" + optionName(_field).replace("-", "_"), _optionMethod(_field))


def _withoutSystemd(config: MirrorConfig) -> MirrorConfig:
    """
    Replace the ports from systemd, which passes its sockets only to the process that it starts.  A
    worker inherits them like any others, and a check does not need them.
    """

    def replaced(description: str) -> str:
        return "tcp:0" if description.startswith("systemd:") else description

    admin = config.admin_port
    return attrs.evolve(
        config,
        port=tuple(map(replaced, config.port)),
        admin_port=None if admin is None else replaced(admin),
    )


def _raiseFileLimit(config: MirrorConfig) -> None:
    """
    Raise the soft limit of open files to what the mirror can use, but not above the hard limit.
    The soft limit is usually 1024 for the sake of programs that use C{select(2)}.  Workers inherit
    the raised limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = mostDescriptors(config)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        # Some systems have a lower limit that getrlimit(2) does not report.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _collectSeldom() -> None:
    """
    Exclude the objects that exist at the start, mostly modules and classes, from cyclic garbage
    collection.  A collection that visits them takes 20 ms, several times a second under load,
    during which every client waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class CommandLineService(MultiService):
    """
    The mirror as a process.

    If a port can't be bound, the process ends with an error in one line and no traceback.  SIGTERM
    and SIGINT drain the mirror and end the process with status 0; a second signal ends it at once.
    SIGHUP reloads the configuration.  The service manager is told when the ports are bound, and
    when the process begins to stop.
    """

    _log = Logger()

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._options = options
        self._isWorker = inheritance() is not None

    def reload(self) -> None:
        """
        Read the configuration again.  If it is invalid, nothing is changed.
        """
        try:
            self._options.service.reload(self._options.read())
        except ConfigError as error:
            for line in str(error).splitlines():
                self._log.error("the configuration stays as it was: {line}", line=line)

    def startService(self) -> None:
        """
        Start, and replace the signal handlers that the reactor installs when it begins to run:
        with Twisted's handlers, the process would not end with status 0.
        """
        from twisted.internet import reactor

        super().startService()
        reactor.callWhenRunning(self._handleSignals, reactor)
        reactor.callWhenRunning(_collectSeldom)
        if not self._isWorker:
            reactor.callWhenRunning(tellManager, "READY=1")

    def stopService(self) -> Any:
        if not self._isWorker:
            tellManager("STOPPING=1")
        return super().stopService()

    def _handleSignals(self, reactor: Any) -> None:
        signals = [signal.SIGTERM, signal.SIGINT]
        if self._isWorker:
            # Ctrl-C reaches every process of a terminal.  A worker ignores it and waits for the
            # supervisor's SIGTERM; a second signal would end it at once.
            signals.remove(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_IGN)

        def stop(number: int, _frame: object) -> None:
            for each in signals:
                signal.signal(each, end)
            reactor.callFromThread(reactor.stop)

        def end(number: int, _frame: object) -> None:
            os._exit(128 + number)

        for each in signals:
            signal.signal(each, stop)

    def privilegedStartService(self) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed
        # SIGHUP is handled before a port is bound, because a script may send it as soon as the port
        # is open, and its default action ends the process.
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(self.reload))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])
        try:
            super().privilegedStartService()
        except (CannotListenError, OSError, OverflowError) as error:
            raise SystemExit(f"hubmirror: {error}") from None


def makeService(options: Options) -> MultiService:
    """
    Create the service for a command line.
    """
    service = CommandLineService(options)
    options.service.setServiceParent(service)
    return service
