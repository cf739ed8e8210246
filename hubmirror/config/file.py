"""
The configuration file: TOML, in which every option stands by the same word as on the command line,
with C{_} for C{-}.

All that is wrong in a file is told at once.
"""

from __future__ import annotations

import difflib
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from os import environ, fstat
from os.path import dirname, isabs, join
from typing import Any, NamedTuple

import attrs

from hubmirror.config.fields import ConfigError
from hubmirror.config.registries import Account, RegistryConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLES = ("access", "limits", "log")
_FILES = ("ca_file", "password_file", "access_log_file")
_CREDENTIALS = "$CREDENTIALS_DIRECTORY/"


class Problem(NamedTuple):
    """
    Something in a file that can't work.

    @ivar line: where it stands, as far as that is known; the first is 1.
    @ivar key: of the option, with its table.
    @ivar reason: why, and what to write instead.
    """

    line: int | None
    key: str
    reason: str

    def describe(self, path: str) -> str:
        """
        One line for whoever wrote the file.
        """
        place = path if self.line is None else f"{path}:{self.line}"
        return f"{place}: {self.key}: {self.reason}" if self.key else f"{place}: {self.reason}"


class ConfigFileError(ConfigError):
    """
    A configuration file can't be used.  The text has a line for each problem.
    """


def readFile(path: str) -> dict[str, Any]:
    """
    The options that a file sets.

    @raise ConfigFileError: when it can't be read, or something in it can't work.
    """
    try:
        with open(path, "rb") as file:
            mode = fstat(file.fileno()).st_mode
            text = file.read().decode()
    except OSError as error:
        raise ConfigFileError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigFileError(f"{path}: is no UTF-8") from None
    found, problems = parse(text, dirname(path), environ)
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and "password_file" in text:
        problems.append(
            Problem(None, "", "others may write to it, and it names secrets; chmod go-w it")
        )
    if problems:
        raise ConfigFileError("\n".join(problem.describe(path) for problem in problems))
    return found


def parse(
    text: str, folder: str, environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    """
    Read a file's text.

    @param folder: what the names of files in it are relative to.
    @param environment: of the process; C{$CREDENTIALS_DIRECTORY} at the beginning of a file's name
        stands for the folder in which systemd puts what C{LoadCredential} names.
    @return: the options by their names, and all that can't work.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).partition(" (at ")
        line = re.match(r"line ([0-9]+)", place)
        return {}, [Problem(int(line[1]) if line else None, "", f"no TOML: {reason.lower()}")]
    reader = _Reader(text, folder, environment)
    return reader.read(content), reader.problems


class _Reader:
    """
    @ivar problems: what can't work, in the order in which it was found.
    """

    def __init__(self, text: str, folder: str, environment: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._lines = text.splitlines()
        self._folder = folder
        self._environment = environment

    def read(self, content: dict[str, Any]) -> dict[str, Any]:
        # The options are defined by a class that uses this module.
        from hubmirror.config.options import options

        defined = {field.name: field for field in options() if field.name != "registries"}
        found: dict[str, Any] = {}
        for key, value in content.items():
            if key == "registry" and isinstance(value, dict):
                found["registries"] = list(self._registries(value))
            elif key in TABLES and isinstance(value, dict):
                inTable = {name: each for name, each in defined.items() if _tableOf(each) == key}
                found.update(self._options(inTable, value, key))
            else:
                top = {name: each for name, each in defined.items() if not _tableOf(each)}
                found.update(self._options(top, {key: value}, ""))
        return found

    def _registries(self, tables: dict[str, Any]) -> Iterator[RegistryConfig]:
        defined = {field.name: field for field in attrs.fields(RegistryConfig)}
        del defined["name"]
        for name, table in tables.items():
            place = f'registry."{name}"'
            if not isinstance(table, dict):
                self._problem(place, name, f'it is a table; write [registry."{name}"]')
                continue
            account = self._accounts(table, place)
            given = self._options(defined, table, place)
            try:
                yield RegistryConfig(name=name, **given, account=account)
            except ConfigError as error:
                self._problem(place, name, error.reason)

    def _accounts(self, table: dict[str, Any], place: str) -> tuple[Account, ...]:
        """
        Take the accounts out of a registry's table: one in the table itself, or several in an array
        of tables.
        """
        listed = table.pop("account", [])
        one = {key: table.pop(key) for key in ("username", "password_file") if key in table}
        entries = [one] if one else []
        entries += listed if isinstance(listed, list) else [listed]
        accounts = []
        for entry in entries:
            if not isinstance(entry, dict) or set(entry) != {"username", "password_file"}:
                self._problem(place, "username", "an account has a username and a password_file")
            elif not all(isinstance(value, str) and value for value in entry.values()):
                self._problem(place, "username", "username and password_file are texts")
            else:
                file = self._file(entry["password_file"])
                accounts.append(Account(username=entry["username"], password_file=file))
        return tuple(accounts)

    def _options(
        self, defined: Mapping[str, attrs.Attribute[Any]], table: dict[str, Any], place: str
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            field = defined.get(key)
            if field is None:
                self._unknown(key, defined, place)
                continue
            if key in _FILES and isinstance(value, str) and value != "-":
                value = self._file(value)
            convert: Any = field.converter
            try:
                convert(value)
            except ConfigError as error:
                reason = error.reason
                if reason == "wrong type":
                    kind = "an array of texts" if field.metadata["repeats"] else "a single value"
                    reason = f"{value!r} is of the wrong type; write {kind}"
                self._problem(place, key, reason)
            else:
                found[key] = value
        return found

    def _unknown(self, key: str, defined: Iterable[str], place: str) -> None:
        names = [*defined, *TABLES] if not place else [*defined]
        near = difflib.get_close_matches(key.replace("-", "_"), names, 1)
        advice = f"; did you mean {near[0]}?" if near else ""
        self._problem(place, key, f"there is no such option{advice}")

    def _file(self, name: str) -> str:
        """
        A file's name, relative to the configuration file.
        """
        if name.startswith(_CREDENTIALS):
            folder = self._environment.get(_CREDENTIALS[1:-1], "")
            return join(folder, name[len(_CREDENTIALS) :])
        return name if isabs(name) else join(self._folder, name)

    def _problem(self, place: str, key: str, reason: str) -> None:
        shown = place if place.endswith(f'"{key}"') else f"{place}.{key}".lstrip(".")
        self.problems.append(Problem(self._lineOf(place, key), shown, reason))

    def _lineOf(self, place: str, key: str) -> int | None:
        """
        The line of a key, for files that are written as most are: the parser does not tell.
        """
        table = ""
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[+\s*(.+?)\s*\]+", line)
            if header:
                table = header[1].replace("'", '"')
                if table == place == f'registry."{key}"':
                    return number
            elif table.removesuffix(".account") == place and re.match(
                rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line
            ):
                return number
        return None


def _tableOf(field: attrs.Attribute[Any]) -> str:
    table: str = field.metadata["table"]
    return table
