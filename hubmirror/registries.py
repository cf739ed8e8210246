"""
Makes the registries of a configuration: what each is reached with, and whose accounts it is asked
with.
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
    previous: Mapping[bytes, Registry] | None = None,
) -> Registries:
    """
    Make all registries of a configuration.

    @param asking: the pool for all of them, or an agent that sends one request to one origin.
    @param mostUpstreams: how many requests there may be at upstreams.
    @param previous: those that there are already.  One whose upstreams are the same hands on what
        is known of them.
    @raise ConfigError: when a file that the configuration names can't be used.
    """
    attempts = Attempts(furtherAttempts(mostUpstreams))
    settings = config.allRegistries()
    # Where the default registry gives no challenge, no client learns where others have tokens.
    # Nor does podman where there is a secret path, which is not in its first request.
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
        raise ConfigError(f"--ca-file: {error}") from None
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
    An account with its password.

    @raise ConfigError: when the file that has the password can't be read.
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
