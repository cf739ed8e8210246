"""
The settings of one registry that is mirrored.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from hubmirror.config import values
from hubmirror.config.fields import ConfigError, coerced, many, one
from hubmirror.config.known import HUB, KnownRegistry, known

_NAME = re.compile(
    r"(?:localhost|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+)"
    r"(?::[0-9]{1,5})?\Z|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?:[0-9]{1,5}\Z"
)


def _registryName(value: str) -> str:
    """
    Check a registry's name, which is the part of an image's name before the first slash.
    """
    name = value.lower()
    if not _NAME.match(name):
        raise ValueError(
            f"{value!r} is no registry's name; write what stands before the first slash of its"
            " images, such as ghcr.io or registry.example:5000"
        )
    return name


def _host(value: str) -> str:
    if not re.match(r"[A-Za-z0-9._-]+\Z", value):
        raise ValueError(f"{value!r} is no host name; write for example ghcr.mirror.example")
    return value.lower()


def _account(value: Any) -> Account:
    if not isinstance(value, Account):
        raise ValueError("an account has a username and a password_file")
    return value


@attrs.frozen(kw_only=True)
class Account:
    """
    The operator's own account at a registry.

    @ivar username: the account's name.
    @ivar password_file: the name of a file whose first line is the account's password or access
        token.
    """

    username: str
    password_file: str


@attrs.frozen(kw_only=True, field_transformer=coerced)
class RegistryConfig:
    """
    The settings of one registry.  Those that are not given are built in for well-known registries
    (L{hubmirror.config.known}); for others they follow from the registry's name and its challenge.

    @raise ConfigError: when a value is invalid.
    """

    name: str = one(_registryName, attrs.NOTHING, "its name in the names of images")
    url: str | None = one(values.baseURL, None, "the registry; else https://NAME")
    auth_url: str | None = one(
        values.baseURL,
        None,
        "its token service; else the built-in one, or the one in its challenge",
    )
    search_url: str | None = one(values.baseURL, None, "its index, when it has one")
    hosts: tuple[str, ...] = many(
        _host, (), "name of the mirror (in Host) that stands for this registry"
    )
    fallback: tuple[str, ...] = many(
        values.fallbackURL, (), "base URL of a mirror of it, asked in order when it fails"
    )
    ca_file: str | None = one(
        values.path, None, "PEM bundle that its certificates are verified with"
    )
    resolver: tuple[str, int] | None = one(
        values.server, None, "ADDRESS[:PORT] of a DNS server for its names"
    )
    proxy: str | None = one(values.proxyURL, None, "outgoing proxy: http:// or socks5://host:port")
    pass_credentials: bool = one(
        values.flag, False, "pass the passwords of clients on to its token service"
    )
    account: tuple[Account, ...] = many(
        _account, (), "account that the mirror itself uses: username and password_file"
    )
    account_may_push: bool = one(values.flag, False, "let clients push with that account")

    def withDefaults(self, **defaults: Any) -> RegistryConfig:
        """
        A copy with defaults for the settings that were not given.
        """
        missing = {
            name: value for name, value in defaults.items() if getattr(self, name) in (None, ())
        }
        return attrs.evolve(self, **missing)

    @property
    def known(self) -> KnownRegistry | None:
        """
        The built-in settings of the registry; C{None} when there are none.
        """
        return known(self.name)

    @property
    def isDefault(self) -> bool:
        """
        Whether this is the default registry: the one for requests that name none.
        """
        return self.name == HUB.name

    @property
    def registryURL(self) -> str:
        """
        The registry's base URL.
        """
        if self.url is not None:
            return self.url
        return f"https://{self.name}" if self.known is None else self.known.url

    @property
    def tokenURL(self) -> str | None:
        """
        The URL of the token service; C{None} when only a challenge of the registry can tell it.

        The built-in URL is used only if the registry's own URL is the built-in one, because a
        registry at another URL may have another token service.
        """
        if self.auth_url is not None:
            return self.auth_url
        if self.known is None or self.registryURL != self.known.url:
            return None
        return self.known.auth_url


def registry(value: str | RegistryConfig) -> RegistryConfig:
    """
    Convert an option's value to the settings of a registry.  A name alone is enough: all other
    settings then have their defaults.
    """
    if isinstance(value, RegistryConfig):
        return value
    try:
        return RegistryConfig(name=value)
    except ConfigError as error:
        raise ValueError(error.reason) from None
