"""
The access log: one line for each exchange, without credentials, signed queries or the secret path.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from twisted.logger import Logger

from hubmirror.config import ConfigError, MirrorConfig
from hubmirror.exchange import Exchange, Outcome

_SHOWN = frozenset(b"service scope n page last digest from mount q artifactType ns".split())
_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")
_NOT_IN_QUOTES = re.compile(rb'[^\x20-\x7e]|["\\]')
_STANDARD_OUTPUT = "-"
_CLIENT_LEFT = 499

_log = Logger()


def shownTarget(target: bytes) -> str:
    """
    Remove from a request target what must not be logged: user information, and the values of query
    parameters that may be secret, such as the signed state of an upload.
    """
    if not target.startswith(b"/") and b"@" in target:
        target = b"...@" + target.rpartition(b"@")[2]
    path, mark, query = target.partition(b"?")
    pairs = []
    for pair in query.split(b"&"):
        name, equals, _value = pair.partition(b"=")
        if pair and name not in _SHOWN:
            pair = name + b"=..." if equals else b"..."
        pairs.append(pair)
    text = path + mark + b"&".join(pairs)
    return _UNPRINTABLE.sub(lambda match: b"\\x%02x" % match[0][0], text).decode("ascii")


def textLine(exchange: Exchange) -> str:
    """
    Describe an exchange in the format C{text}.
    """
    client = "-" if exchange.client is None else exchange.client
    method = exchange.method.decode("ascii", "backslashreplace")
    size = exchange.sent + exchange.received
    line = f"{client} {method} {shownTarget(exchange.target)} {exchange.status or '-'} {size}B"
    line += f" {1000 * (exchange.seconds or 0):.0f}ms"
    if exchange.upstream is not None:
        line += f" from {exchange.upstream}"
    if exchange.outcome is not None:
        line += f" {exchange.outcome.value}"
    if exchange.resumes:
        line += f", resumed {exchange.resumes} times"
    for name, reason in exchange.failures:
        line += f"; {name}: {reason}"
    if exchange.requestID:
        line += f" [{exchange.requestID}]"
    return line


def jsonLine(exchange: Exchange, time: datetime) -> str:
    """
    Describe an exchange as a JSON object.

    @param time: the time when the exchange ended.
    """
    head = exchange.headAfter
    return json.dumps(
        {
            "time": time.isoformat(timespec="milliseconds"),
            "client": None if exchange.client is None else str(exchange.client),
            "method": exchange.method.decode("ascii", "backslashreplace"),
            "target": shownTarget(exchange.target),
            "registry": exchange.registry,
            "kind": None if exchange.kind is None else exchange.kind.value,
            "status": exchange.status,
            "sent": exchange.sent,
            "received": exchange.received,
            "head_seconds": None if head is None else round(head, 6),
            "seconds": round(exchange.seconds or 0, 6),
            "upstream": exchange.upstream,
            "redirects": exchange.redirects,
            "resumes": exchange.resumes,
            "outcome": None if exchange.outcome is None else exchange.outcome.value,
            "failures": [f"{name}: {reason}" for name, reason in exchange.failures],
            "rule": exchange.rule,
            "request_id": exchange.requestID,
        }
    )


def combinedLine(exchange: Exchange, time: datetime) -> str:
    """
    Describe an exchange in nginx's format C{combined}.  C{Referer} is left out because it could
    contain the secret path.

    @param time: the time when the exchange ended, in the local time zone.
    """
    client = "-" if exchange.client is None else exchange.client
    request = " ".join(
        (
            exchange.method.decode("ascii", "backslashreplace"),
            shownTarget(exchange.target),
            exchange.version.decode("ascii", "backslashreplace"),
        )
    )
    agent = _NOT_IN_QUOTES.sub(
        lambda match: b"\\x%02X" % match[0][0], exchange.userAgent or b"-"
    ).decode("ascii")
    status = exchange.status
    if not status:
        status = _CLIENT_LEFT
    return (
        f"{client} - - [{time.strftime('%d/%b/%Y:%H:%M:%S %z')}]"
        f' "{request.rstrip()}" {status} {exchange.sent} "-" "{agent}"'
    )


def logExchange(exchange: Exchange) -> None:
    """
    Log an exchange in the process's log, as a warning if something went wrong.
    """
    _logLine(exchange, textLine(exchange))


def _logLine(exchange: Exchange, line: str) -> None:
    wrong = exchange.failures or exchange.outcome in (Outcome.FAILED, Outcome.BROKEN)
    # The line is already formatted, because formatting by the logger takes as long as the rest of
    # a request.
    (_log.warn if wrong else _log.info)("{line}", line=line, exchange=exchange)


class AccessLog:
    """
    A listener that logs exchanges in the format of the option C{access_log}, to the file of
    C{access_log_file}.
    """

    def __init__(self, config: MirrorConfig, now: Callable[[], datetime] | None = None) -> None:
        """
        @param now: returns the present time; by default, in UTC.
        @raise ConfigError: when the file can't be opened.
        """
        self._now = now or (lambda: datetime.now(timezone.utc))
        self._output: _File | None = None
        self.configure(config)

    def configure(self, config: MirrorConfig) -> None:
        """
        Use other settings, and open the file again.

        @raise ConfigError: when the file can't be opened; then nothing is changed.
        """
        name = config.access_log_file
        if name is None and config.access_log in ("json", "combined"):
            # Programs read these formats.  Twisted's log would put a timestamp before each line.
            name = _STANDARD_OUTPUT
        output = None if name is None or config.access_log == "off" else _File(name)
        self.close()
        self._output, self._format = output, config.access_log

    def close(self) -> None:
        """
        Close the file.
        """
        if self._output is not None:
            self._output.close()

    def __call__(self, exchange: Exchange) -> None:
        """
        Log an exchange that has ended.
        """
        if self._format == "off":
            return
        if self._format == "json":
            line = jsonLine(exchange, self._now())
        elif self._format == "combined":
            line = combinedLine(exchange, self._now().astimezone())
        else:
            line = textLine(exchange)
        if self._output is None or self._output.goesNowhere:
            _logLine(exchange, line)
            return
        if self._format == "text":
            line = f"{self._now().isoformat(timespec='seconds')} {line}"
        self._output.write(line)


def checkAccessLog(config: MirrorConfig) -> None:
    """
    Find out whether the file can be written, without making or opening it.

    @raise ConfigError: when it can't.
    """
    name = config.access_log_file
    if name is None or name == _STANDARD_OUTPUT or config.access_log == "off":
        return
    if os.path.isdir(name):
        raise _unwritable(name, os.strerror(errno.EISDIR))
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise _unwritable(name, f"there is no folder {folder}")
    written = name if os.path.exists(name) else folder
    if not os.access(written, os.W_OK):
        raise _unwritable(name, os.strerror(errno.EACCES))


def _unwritable(name: str, reason: str | None) -> ConfigError:
    return ConfigError(f"--access-log-file: {name} can't be written: {reason}")


class _File:
    """
    A file to which several processes append lines, and which log rotation may rename at any time.
    """

    def __init__(self, name: str) -> None:
        """
        @param name: the file's name, or C{-} for the standard output.
        @raise ConfigError: when the file can't be opened.
        """
        self._name = name
        self._isFailing = False
        try:
            self._fd = self._open()
        except OSError as error:
            raise _unwritable(name, error.strerror) from None

    def _open(self) -> int:
        if self._name == _STANDARD_OUTPUT:
            return 1
        return os.open(self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    @cached_property
    def goesNowhere(self) -> bool:
        """
        Whether the lines go to C{/dev/null}.  This is found out at the first line: C{twistd}
        redirects the standard output when the options have been parsed.
        """
        if self._name != _STANDARD_OUTPUT:
            return False
        try:
            return os.fstat(1).st_rdev == os.stat(os.devnull).st_rdev
        except OSError:
            return True

    def write(self, line: str) -> None:
        """
        Append a line.  If that fails, the first error in a row is logged, and requests are served
        all the same.
        """
        try:
            self._followName()
            os.write(self._fd, line.encode() + b"\n")
        except OSError as error:
            if not self._isFailing:
                self._isFailing = True
                _log.error(
                    "the access log {name} can't be written: {reason}",
                    name=self._name,
                    reason=error.strerror,
                )
        else:
            self._isFailing = False

    def _followName(self) -> None:
        """
        Open the file again when it has been renamed or removed.
        """
        if self._name == _STANDARD_OUTPUT:
            return
        try:
            named: Any = os.stat(self._name)
        except FileNotFoundError:
            named = None
        if named is None or not os.path.samestat(named, os.fstat(self._fd)):
            before, self._fd = self._fd, self._open()
            os.close(before)

    def close(self) -> None:
        """
        Close the file.
        """
        if self._name != _STANDARD_OUTPUT:
            os.close(self._fd)
