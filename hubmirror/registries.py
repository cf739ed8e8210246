"""
Creates the registries of a configuration, each with its connector and the operator's accounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.web.iweb import IAgent

from hubmirror.config import Account as AccountConfig
from hubmirror.config import ConfigError, MirrorConfig, RegistryConfig
from hubmirror.downstream.incoming import Registries
from hubmirror.limits import furtherAttempts
from hubmirror.transport.attempts import Attempts
from hubmirror.transport.connecting import Connector, loadTrust
from hubmirror.transport.pool import Pool
from hubmirror.upstream.accounts import Account
from hubmirror.upstream.agents import OriginAgent
from hubmirror.upstream.policy import AddressPolicy, addressPolicy
from hubmirror.upstream.registry import Registry


def makeRegistries(
    reactor: Any,
    config: MirrorConfig,
    asking: IAgent | Pool | None,
    mostUpstreams: int,
    key: bytes,
    previous: Mapping[bytes, Registry] | None = None,
) -> Registries:
    """
    Create all registries of a configuration.

    @param asking: the connection pool of all registries, or an agent to use in place of it.
    @param mostUpstreams: how many requests to upstreams there may be at once.
    @param key: the key of the hashes that stand for the identities of clients.
    @param previous: the registries of the configuration before.  A new registry with the same
        upstreams takes over what an old one has learned about them.
    @raise ConfigError: when a file that the configuration names can't be used.
    """
    attempts = Attempts(furtherAttempts(mostUpstreams))
    settings = config.allRegistries()
    # Clients learn the URL of the token service from the default registry's challenge.  There is no
    # challenge when the operator has an account there, and podman gets none when there is a secret
    # path, which its first request lacks.  The mirror then gets the tokens for such clients itself.
    asksAnonymously = bool(settings[0].account or config.secret_path)
    registries = []
    for each in settings:
        policy = addressPolicy(each, config.allow_redirects_to)
        if isinstance(asking, Pool):
            agent: Any = OriginAgent(
                reactor, asking, _connector(reactor, config, each, policy, attempts)
            )
        else:
            agent = asking
        registry = Registry(
            reactor,
            config,
            each,
            agent,
            [_account(each, account) for account in each.account],
            key=key,
            asksAnonymously=asksAnonymously,
            believed=policy.add,
        )
        known = (previous or {}).get(registry.names.name)
        if known is not None and known.upstreams == registry.upstreams:
            registry.inherit(known)
        registries.append(registry)
    return Registries(registries, (config.secret_path or "").encode("ascii"))


def _connector(
    reactor: Any,
    config: MirrorConfig,
    registry: RegistryConfig,
    policy: AddressPolicy,
    attempts: Attempts,
) -> Connector:
    try:
        trust = loadTrust(registry.ca_file)
    except ValueError as error:
        isCommon = registry.ca_file == config.ca_file
        option = "--ca-file" if isCommon else f'[registry."{registry.name}"] ca_file'
        raise ConfigError(f"{option}: {error}") from None
    return Connector(
        reactor,
        trust=trust,
        permits=policy.permits,
        timeout=config.connect_timeout,
        resolver=registry.resolver,
        proxy=registry.proxy,
        plainTLS=config.plain_transport,
        attempts=attempts,
    )


def _account(registry: RegistryConfig, account: AccountConfig) -> Account:
    """
    Read the password of an account.

    @raise ConfigError: when the file of the password can't be read, or is empty.
    """
    try:
        text = Path(account.password_file).read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            f'[registry."{registry.name}"] password_file: {account.password_file} can\'t be read:'
            f" {reason}"
        ) from None
    password = text.partition("\n")[0].rstrip("\r")
    if not password:
        raise ConfigError(
            f'[registry."{registry.name}"] password_file: {account.password_file} is empty; write'
            " the password or access token into its first line"
        )
    return Account(account.username, password)
