"""
The configuration file: TOML, in which every option has the same name as on the command line, with
C{_} in place of C{-}.

All problems of a file are reported together.
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
_FILES = ("ca_file", "access_log_file")
_REGISTRY = 'registry."NAME"'
_BELONGS_ABOVE = "belongs at the top level, above the first table"
_CREDENTIALS = "$CREDENTIALS_DIRECTORY/"


class Problem(NamedTuple):
    """
    A problem of a configuration file.

    @ivar line: its line, the first of which is 1; C{None} when it is not known.
    @ivar key: the option's key with its table; empty when the problem concerns the whole file.
    @ivar reason: what is wrong, and what to write instead.
    """

    line: int | None
    key: str
    reason: str

    def describe(self, path: str) -> str:
        """
        Describe the problem in one line.

        @param path: the file's name.
        """
        place = path if self.line is None else f"{path}:{self.line}"
        return f"{place}: {self.key}: {self.reason}" if self.key else f"{place}: {self.reason}"


class ConfigFileError(ConfigError):
    """
    A configuration file is invalid.  The text has one line for each problem.
    """


def readFile(path: str) -> dict[str, Any]:
    """
    Read the options that a file sets.

    @return: the values as they are written, by the names of the options' attributes.
    @raise ConfigFileError: when the file can't be read, or has problems.
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
    accounts = any(each.account for each in found.get("registries", ()))
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and (accounts or "secret_path" in found):
        problems.append(
            Problem(None, "", "others may write to it, and it has secrets; chmod go-w it")
        )
    if problems:
        raise ConfigFileError("\n".join(problem.describe(path) for problem in problems))
    return found


def parse(
    text: str, folder: str, environment: Mapping[str, str]
) -> tuple[dict[str, Any], list[Problem]]:
    """
    Read a file's text.

    @param folder: the folder to which the names of files in the text are relative.
    @param environment: the environment of the process.  C{$CREDENTIALS_DIRECTORY} at the beginning
        of a file's name is expanded: systemd puts the files of C{LoadCredential=} there.
    @return: the options by their names, and the problems.
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
    Reads the content of one file.

    @ivar problems: the problems, in the order in which they were found.
    """

    def __init__(self, text: str, folder: str, environment: Mapping[str, str]) -> None:
        # Imported here because the module of the options imports this one.
        from hubmirror.config.options import options

        self.problems: list[Problem] = []
        self._lines = text.splitlines()
        self._folder = folder
        self._environment = environment
        # The options of each table; the top level has the empty name.
        self._defined: dict[str, dict[str, attrs.Attribute[Any]]] = {"": {}}
        for field in options():
            name = "registry" if field.name == "registries" else field.name
            self._defined.setdefault(field.metadata["table"], {})[name] = field
        fields = (*attrs.fields(RegistryConfig), *attrs.fields(Account))
        self._defined[_REGISTRY] = {each.name: each for each in fields if each.name != "name"}

    def read(self, content: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in content.items():
            if key == "registry" and isinstance(value, dict):
                found["registries"] = list(self._registries(value))
            elif key not in TABLES:
                found.update(self._options(self._defined[""], {key: value}, ""))
            elif isinstance(value, dict):
                found.update(self._options(self._defined[key], value, key))
            else:
                names = " or ".join(self._defined[key])
                self._problem("", key, f"it is a table; write [{key}], and below it {names}")
        if "registry" in found:
            named: Any = self._defined[""]["registry"].converter
            found["registries"] = list(named(found.pop("registry")))
        return found

    def _registries(self, tables: dict[str, Any]) -> Iterator[RegistryConfig]:
        for name, table in tables.items():
            place = f'registry."{name}"'
            if not isinstance(table, dict):
                self._problem(place, name, f'it is a table; write [registry."{name}"]')
                continue
            account = self._accounts(table, place)
            given = self._options(self._defined[_REGISTRY], table, place)
            try:
                yield RegistryConfig(name=name, **given, account=account)
            except ConfigError as error:
                self._problem(place, name, error.reason)

    def _accounts(self, table: dict[str, Any], place: str) -> tuple[Account, ...]:
        """
        Remove the accounts from a registry's table, and return them.  One account may be in the
        table itself, several are in an array of tables.
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
                self._unknown(key, place, defined)
                continue
            if key in _FILES and isinstance(value, str) and value != "-":
                value = self._file(value)
            convert: Any = field.converter
            try:
                convert(value)
            except ConfigError as error:
                reason = error.reason
                if reason == "wrong type":
                    # The value may be secret.
                    reason = f"it is of the wrong type; write {_kindOf(field, value)}"
                self._problem(place, key, reason)
            else:
                found[key] = value
        return found

    def _unknown(self, key: str, place: str, defined: Iterable[str]) -> None:
        """
        Report a key that is no option in this place.  It may be one in another place, because in
        TOML everything below the header of a table belongs to it.
        """
        tables = reversed(self._defined.items())
        places = {name: table for table, names in tables for name in names}
        places.update(dict.fromkeys(defined, place))
        if not place:
            places.update(dict.fromkeys(TABLES, ""))
        reason = "there is no such option"
        near = difflib.get_close_matches(key.replace("-", "_"), places, 1)
        if near:
            [name], table = near, places[near[0]]
            belongs = f"belongs in [{table}]" if table else _BELONGS_ABOVE
            which = "" if table == place else f", which {belongs}"
            reason = f"it {belongs}" if name == key else f"{reason}; did you mean {name}{which}?"
        self._problem(place, key, reason)

    def _file(self, name: str) -> str:
        """
        Expand a file's name, which is relative to the folder of the configuration file.
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
        Find the line of a key, which the TOML parser does not report.  This works for the usual
        layout, with one key or table header in a line; otherwise the line is C{None}.
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


def _kindOf(field: attrs.Attribute[Any], value: object) -> str:
    """
    What to write for an option in place of a value of a wrong type.
    """
    if field.metadata["repeats"]:
        return "an array of texts"
    return "a single value" if isinstance(value, list | dict) else "a text in quotes"
