"""
The log messages of a mirror that starts.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from hubmirror.config import MirrorConfig
from hubmirror.operations.clientconfig import Unusable, readURL, settingsFor
from hubmirror.protocol.url import Origin, splitURL

_SCHEMES = {"tcp": b"http", "tcp6": b"http", "ssl": b"https"}

_log = Logger()


def announce(
    config: MirrorConfig, ports: Sequence[IListeningPort], terminal: bool | None = None
) -> None:
    """
    Log the addresses that a mirror listens on, its upstreams and, if it runs on a terminal, the
    settings for clients.

    @param ports: the ports, in the order of C{config.port}.
    @param terminal: whether the mirror runs on a terminal; by default, whether
        C{sys.__stdout__} is one, since C{twistd} replaces C{sys.stdout} with its log.
    """
    if not ports:
        return
    origins = [_originOf(*pair) for pair in zip(config.port, ports, strict=False)]
    for description, origin in zip(config.port, origins, strict=False):
        _log.info("listening on {place}", place=origin or description)
    for registry in config.allRegistries():
        urls = (registry.registryURL, *registry.fallback)
        upstreams = [splitURL(url.encode("ascii"))[0] for url in urls]
        _log.info(
            "mirroring {upstreams}{readOnly}",
            upstreams=", and when that fails ".join(map(str, upstreams)),
            readOnly=", without pushes" if config.read_only else "",
        )
    warn(config)
    if terminal is None:
        terminal = sys.__stdout__ is not None and sys.__stdout__.isatty()
    url = config.public_url or (origins[0] and _reachable(origins[0]))
    if terminal and url:
        settings = _settingsBelowPath(url) if config.secret_path else _settings(url)
        _log.info("{settings}", settings=settings)


def warn(config: MirrorConfig) -> None:
    """
    Log a warning when the mirror gives everybody what only the operator's accounts may read.  A
    rule that denies some clients leaves all others.
    """
    names = [registry.name for registry in config.allRegistries() if registry.account]
    if names and not config.allow_client and not config.secret_path:
        _log.warn(
            "everybody who can reach this mirror can read what its accounts at {names} can read;"
            " allow-client or secret-path would limit that",
            names=", ".join(names),
        )


def _originOf(description: str, port: IListeningPort) -> Origin | None:
    """
    The origin of a port's URL; C{None} when the description does not determine it.
    """
    scheme = _SCHEMES.get(description.removeprefix("haproxy:").partition(":")[0])
    address = port.getHost()
    if scheme is None or not isinstance(address, IPv4Address | IPv6Address):
        return None
    return Origin(scheme, address.host.encode("ascii"), address.port)


def _reachable(origin: Origin) -> str:
    """
    The URL for clients.  If the port is bound to all addresses, it has this machine's name, so that
    clients on other machines can use it.
    """
    if ip_address(origin.host.decode("ascii")).is_unspecified:
        origin = origin._replace(host=socket.gethostname().encode("ascii"))
    return str(origin)


def _settings(url: str) -> str:
    try:
        mirror = readURL(url)
    except Unusable as error:
        return f"no settings for clients: {error}"
    docker, hosts = settingsFor("docker", mirror)
    containerd, _config = settingsFor("containerd", mirror)
    return (
        f"settings for dockerd, in {docker.path}\n{docker.text}"
        f"for containerd, in {containerd.path}, and for dockerd from 29 on, in {hosts.path}\n"
        f"{containerd.text}"
        f"for others: python -m hubmirror client-config {mirror} CLIENT"
    )


def _settingsBelowPath(url: str) -> str:
    """
    How to get the settings: in themselves they would have the secret path.
    """
    return f"settings for clients: python -m hubmirror client-config {url}/SECRET-PATH CLIENT"
