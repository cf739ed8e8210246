"""
The options of a mirror.

Each attribute of L{MirrorConfig} is the only definition of an option: the command line and its
documentation are generated from it.  This is why the names have underscores: C{registry_url} is
C{--registry-url}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from hubmirror.config import values
from hubmirror.config.fields import coerced, many, one
from hubmirror.config.file import readFile
from hubmirror.config.known import HUB
from hubmirror.config.registries import RegistryConfig, registry
from hubmirror.config.values import Rate
from hubmirror.protocol.forwarded import Network
from hubmirror.protocol.url import Origin


@attrs.frozen(kw_only=True, field_transformer=coerced)
class MirrorConfig:
    """
    The settings of one mirror.  The defaults mirror Docker Hub.

    @raise ConfigError: when a value is invalid.
    """

    port: tuple[str, ...] = many(
        values.endpoint,
        ("tcp:5000:interface=127.0.0.1",),
        "Twisted endpoint description to listen on, such as ssl:443 or tcp6:5000",
        atStart=True,
    )
    public_url: str | None = one(
        values.baseURL,
        None,
        "where clients reach the mirror; else the scheme and Host of each request",
    )
    registry_url: str = one(values.baseURL, HUB.url, "the registry")
    auth_url: str = one(values.baseURL, HUB.auth_url, "the token service that /token stands for")
    search_url: str = one(values.baseURL, HUB.search_url, "the search index")
    fallback: tuple[str, ...] = many(
        values.fallbackURL,
        (),
        "base URL of another mirror, asked in order when the ones before it fail",
    )
    registries: tuple[RegistryConfig, ...] = many(
        registry, (), "further registry to mirror, such as ghcr.io or quay.io"
    )
    failover_on: frozenset[int] = one(
        values.statuses, "429,502,503,504", "statuses that move a GET or HEAD to the next upstream"
    )
    allow_redirects_to: tuple[Origin | Network, ...] = many(
        values.originOrNetwork,
        (),
        "origin or network (CIDR) that redirects may lead to although it is not public",
    )
    ca_file: str | None = one(
        values.path,
        None,
        "PEM bundle that upstream certificates are verified with; else the system's",
    )
    workers: int = one(
        values.workerCount,
        1,
        "processes that share the work, or auto for one on each processor",
        atStart=True,
    )
    resolver: tuple[str, int] | None = one(
        values.server, None, "ADDRESS[:PORT] of a DNS server for upstream names; else the system's"
    )
    proxy: str | None = one(
        values.proxyURL,
        None,
        "outgoing proxy for all upstreams: http://host:port or socks5://host:port",
    )
    secret_path: str | None = one(
        values.secretPath,
        None,
        "path that every request must have; others get the response of an empty server",
        table="access",
    )
    allow_client: tuple[Network, ...] = many(
        values.network,
        (),
        "address or network of clients that are served; all others are not",
        table="access",
    )
    deny_client: tuple[Network, ...] = many(
        values.network, (), "address or network of clients that are not served", table="access"
    )
    allow_repository: tuple[str, ...] = many(
        values.repositories,
        (),
        "glob over REGISTRY/REPOSITORY that is served, such as docker.io/library/*; others are not",
        table="access",
    )
    deny_repository: tuple[str, ...] = many(
        values.repositories,
        (),
        "glob over REGISTRY/REPOSITORY that is not served",
        table="access",
    )
    client_requests: Rate | None = one(
        values.rate,
        None,
        "requests of one client (an address or IPv6 /64), such as 600/1m",
        table="limits",
    )
    client_pulls: Rate | None = one(
        values.rate, None, "manifests that one client may get, such as 100/6h", table="limits"
    )
    client_bandwidth: int | None = one(
        values.bandwidth,
        None,
        "bytes each second of all responses to one client together, such as 20M",
        table="limits",
    )
    client_streams: int | None = one(
        values.limit,
        None,
        "responses with a body to one client at once; further ones wait for their turn",
        table="limits",
    )
    access_log: str = one(
        values.logFormat,
        "text",
        "format of the access log: text, json, combined (as nginx's), or off",
        table="log",
    )
    access_log_file: str | None = one(
        values.path,
        None,
        "separate file for the access log, or - for the standard output",
        table="log",
    )
    admin_port: str | None = one(
        values.endpoint,
        None,
        "endpoint description for health, metrics and status, such as tcp:9090",
        atStart=True,
    )
    read_only: bool = one(values.flag, False, "refuse pushes")
    page: bool = one(values.switch, True, "show browsers a page with settings and a search")
    no_cors: bool = one(
        values.flag, False, "leave out the fields that let web pages read responses"
    )
    no_forwarded: bool = one(values.flag, False, "don't tell upstreams the client's address")
    trusted_proxy: tuple[Network, ...] = many(
        values.network, (), "address or network whose Forwarded and X-Forwarded-* fields count"
    )
    verify: str = one(
        values.whenToVerify,
        "fallback",
        "when to verify the digest of blobs: never, fallback or always",
    )
    resumes: int = one(
        values.count,
        5,
        "attempts in a row, without a byte in between, to resume a body that broke",
    )
    min_speed: float = one(
        values.speed, 1024.0, "bytes each second below which an upstream's body counts as stalled"
    )
    plain_transport: bool = one(
        values.flag,
        False,
        "use Twisted's TLS and h2's frames instead of the mirror's own, which are faster",
        atStart=True,
    )
    reuse_port: bool = one(
        values.flag,
        False,
        "let another mirror of the same account take the same ports, to follow this one",
        atStart=True,
    )
    connect_timeout: float = one(
        values.seconds, 5.0, "seconds for name resolution, connection and TLS to an upstream"
    )
    response_timeout: float = one(
        values.seconds, 9.0, "seconds until a response head, all upstreams together"
    )
    stall_timeout: float = one(
        values.seconds,
        15.0,
        "seconds without a byte after which an upstream's body counts as broken",
    )
    client_timeout: float = one(
        values.seconds,
        300.0,
        "seconds that a client may accept nothing of its response, or send nothing of its body",
    )
    head_timeout: float = one(
        values.seconds,
        30.0,
        "seconds for a client's TLS handshake, and for the head of a request",
        atStart=True,
    )
    drain_timeout: float = one(
        values.seconds, 30.0, "seconds that requests in progress have to end when the mirror stops"
    )
    max_connections: int | None = one(
        values.limit,
        None,
        "connections of clients in all; else what the open files allow",
        atStart=True,
    )
    max_connections_per_client: int | None = one(
        values.limit,
        None,
        "connections of one address or IPv6 /64; else half of all, up to 1024",
        atStart=True,
    )
    max_upstream_connections: int | None = one(
        values.limit,
        None,
        "connections to upstreams in all; else what the open files allow",
        atStart=True,
    )
    max_upstream_connections_per_client: int | None = one(
        values.limit,
        None,
        "connections to upstreams for one client; else half of all, up to 1024",
        atStart=True,
    )
    queue_timeout: float = one(
        values.seconds,
        5.0,
        "seconds that a request waits for its turn when too many are in progress",
        atStart=True,
    )
    max_head: int = one(values.headSize, "64k", "size of a request's head", atStart=True)
    max_upload: int = one(values.size, "0", "size of one request's body; 0 for any")
    idle_timeout: float = one(
        values.seconds, 75.0, "seconds that a connection without a request is kept", atStart=True
    )

    @classmethod
    def fromFile(cls, path: str, **values: Any) -> MirrorConfig:
        """
        Create the settings from a configuration file.

        @param values: options that override those of the file.
        @raise ConfigError: when the file can't be read or a value is invalid, with a line for each
            problem.
        """
        return cls(**{**readFile(path), **values})

    def allRegistries(self) -> tuple[RegistryConfig, ...]:
        """
        Every registry that is mirrored, the default one first.

        The options C{registry_url}, C{auth_url}, C{search_url}, C{fallback}, C{ca_file}, C{proxy}
        and C{resolver} apply to the default registry.  The last three also apply to every other
        registry that does not set them itself.
        """
        given = {each.name: each for each in self.registries}
        hub = given.pop(HUB.name, RegistryConfig(name=HUB.name))
        ways = {"ca_file": self.ca_file, "proxy": self.proxy, "resolver": self.resolver}
        own = {
            "url": self.registry_url,
            "auth_url": self.auth_url,
            "search_url": self.search_url,
            "fallback": self.fallback,
        }
        return (
            hub.withDefaults(**own, **ways),
            *(each.withDefaults(**ways) for each in given.values()),
        )


def options() -> Iterable[attrs.Attribute[Any]]:
    """
    Every option, as the attribute that defines it.
    """
    return attrs.fields(MirrorConfig)
