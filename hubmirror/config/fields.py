"""
Defines options: each is an attribute of an attrs class, with a converter, a default and one line of
help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs


class ConfigError(ValueError):
    """
    The value of an option is invalid.  The text is one line that states what to write instead.

    @ivar reason: the same text without the option's name.
    """

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text)
        self.reason = text if reason is None else reason


def one(
    coerce: Callable[[Any], object],
    default: Any,
    help: str,
    *,
    table: str = "",
    atStart: bool = False,
) -> Any:
    """
    Define an option that has one value.

    @param coerce: converts what the operator wrote to the value, or raises C{ValueError}.
    @param default: the default, which is converted as well; C{None} for no value.
    @param help: the help text on the command line and in the documentation.
    @param table: the option's table in the configuration file; empty for the top level.
    @param atStart: whether a change takes effect only when the mirror is started again.
    @return: the attribute.
    """
    metadata = {"coerce": coerce, "help": help, "repeats": False, "table": table}
    return attrs.field(default=default, metadata={**metadata, "atStart": atStart})


def many(
    coerce: Callable[[Any], object],
    default: tuple[Any, ...],
    help: str,
    *,
    table: str = "",
    atStart: bool = False,
) -> Any:
    """
    Define an option that may be given more than once.  The parameters are those of L{one}, but
    C{coerce} converts a single item.
    """
    metadata = {"coerce": coerce, "help": help, "repeats": True, "table": table}
    return attrs.field(default=default, metadata={**metadata, "atStart": atStart})


def coerced(cls: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """
    Give every attribute its converter, which puts the option's name in front of an error.  This is
    a C{field_transformer} of attrs.
    """
    return [field.evolve(converter=_converter(field)) for field in fields]


def _converter(field: attrs.Attribute[Any]) -> Callable[[Any], Any]:
    coerce = field.metadata["coerce"]
    name = optionName(field)

    def convert(value: Any) -> Any:
        try:
            if not field.metadata["repeats"]:
                return None if value is None else coerce(value)
            if isinstance(value, str | bytes) or not isinstance(value, Iterable):
                value = [value]
            return tuple(coerce(item) for item in value)
        except (TypeError, AttributeError):
            raise ConfigError(f"--{name}: {value!r} is of the wrong type", "wrong type") from None
        except ValueError as error:
            raise ConfigError(f"--{name}: {error}", str(error)) from None

    return convert


def optionName(field: attrs.Attribute[Any]) -> str:
    """
    The option's name on the command line, without the dashes.
    """
    return "registry" if field.name == "registries" else field.name.replace("_", "-")


def describeDefault(field: attrs.Attribute[Any]) -> str:
    """
    An option's default as an operator would write it; empty when there is none.
    """
    default: Any = field.default
    if isinstance(default, tuple):
        return " ".join(default)
    if default is True:
        return "true"
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default in (None, False) else str(default)
