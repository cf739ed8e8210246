"""
The output of C{--check-config}: every option with its value and the source of the value.
"""

from __future__ import annotations

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
    Describe a configuration in the form of a configuration file.  Secrets are not shown.

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
        shown = "..." if value and _SECRET.search(field.name) else _shown(value)
        lines.setdefault(field.metadata["table"], []).append(f"{field.name} = {shown}  # {source}")
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
        if field.name in ("name", "url") or value in (None, (), False):
            continue
        if field.name == "account":
            for account in value:
                yield f"username = {_shown(account.username)}"
                yield f"password_file = {_shown(account.password_file)}"
        else:
            yield f"{field.name} = {_shown(value)}"


def _shown(value: Any) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, frozenset):
        return "[" + ", ".join(str(each) for each in sorted(value)) + "]"
    if isinstance(value, tuple) and value and isinstance(value[-1], int):
        return f'"{value[0]}:{value[1]}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
