"""
The output of C{--check-config}: every option with its value and the source of the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from hubmirror.config import MirrorConfig, RegistryConfig, options

_SECRET = re.compile(r"secret|password$|token$")


def describeConfig(
    config: MirrorConfig, fromFile: Mapping[str, Any], given: Mapping[str, Any]
) -> str:
    """
    Describe a configuration in the form of a configuration file, with which the mirror would run in
    the same way.  Only secrets are not shown.

    @param fromFile: the options that the configuration file sets.
    @param given: the options that the command line sets.
    """
    lines: dict[str, list[str]] = {}
    for field in options():
        if field.name == "registries":
            continue
        source = "default"
        if field.name in given:
            source = "command line"
        elif field.name in fromFile:
            source = "file"
        value = getattr(config, field.name)
        shown = "..." if _SECRET.search(field.name) else _shown(value)
        if field.name == "workers" and value == 0:
            shown = '"auto"'
        line = f"{field.name} = {shown}  # {source}"
        if value is None:
            line = f"# {field.name} is not set"
        lines.setdefault(field.metadata["table"], []).append(line)
    text = []
    for table, members in lines.items():
        text += ([f"[{table}]"] if table else []) + members + [""]
    for registry in config.allRegistries():
        text += [*_registry(registry), ""]
    return "\n".join(text)


def _registry(registry: RegistryConfig) -> Iterator[str]:
    yield f'[registry."{registry.name}"]'
    yield f"url = {_shown(registry.registryURL)}"
    for field in attrs.fields(RegistryConfig):
        value = getattr(registry, field.name)
        if field.name not in ("name", "url", "account") and value not in (None, (), False):
            yield f"{field.name} = {_shown(value)}"
    # The accounts are last: what follows the header of their table belongs to it.
    for account in registry.account:
        if len(registry.account) > 1:
            yield f'[[registry."{registry.name}".account]]'
        yield f"username = {_shown(account.username)}"
        yield f"password_file = {_shown(account.password_file)}"


def _shown(value: Any) -> str:
    """
    The value of an option in TOML.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value).removesuffix(".0")
    if isinstance(value, frozenset):
        value = tuple(sorted(value))
    # Origins and servers are named tuples, which have a text.
    if type(value) is tuple:
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    # A string of JSON is one of TOML, too.
    return json.dumps(str(value), ensure_ascii=False)
