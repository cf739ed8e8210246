"""
Determines how many connections to clients and to upstreams a process may have, so that its file
descriptors suffice for both.
"""

from __future__ import annotations

import attrs

from hubmirror.config import MirrorConfig

_MOST = 8192
_MOST_OF_CLIENT = 1024
_LEAST = 4
_RESERVE = 48


def overlap(most: int) -> int:
    """
    By how many connections the pool may exceed its limit for a short time.  An exchange may need a
    second connection while an unwanted response on its first one is still being read to the end,
    and does not have to wait for that.

    @param most: the limit of connections to upstreams.
    """
    return most // 8 + 8


def furtherAttempts(most: int) -> int:
    """
    How many connection attempts to further addresses of upstreams may be in progress at once, in
    addition to one attempt for each connection.

    @param most: the limit of connections to upstreams.
    """
    return most // 4 + 8


@attrs.frozen
class Limits:
    """
    The limits of one process.

    @ivar clients: connections of all clients.
    @ivar ofClient: connections of one client.
    @ivar upstreams: connections to all upstreams, and also exchanges that use an upstream.
    @ivar upstreamsOfClient: exchanges of one client that use an upstream.
    """

    clients: int
    ofClient: int
    upstreams: int
    upstreamsOfClient: int

    @property
    def descriptors(self) -> int:
        """
        The number of file descriptors that the process needs when all limits are reached.  It
        includes a reserve for descriptors other than connections: listening sockets, the log, name
        resolution, certificate files and the pipes of workers.
        """
        return _RESERVE + self.clients + _descriptors(self.upstreams)


def limitsOf(config: MirrorConfig, files: int) -> Limits:
    """
    The limits of a process.  Limits that the configuration does not set get defaults that suit a
    public mirror and leave enough file descriptors for the others.

    @param files: how many files the process may have open.
    """
    clients, upstreams = config.max_connections, config.max_upstream_connections
    free = files - _RESERVE
    if clients is None and upstreams is None:
        clients = upstreams = _within(_connections(free, 1))
    elif clients is None:
        assert upstreams is not None
        clients = _within(free - _descriptors(upstreams))
    elif upstreams is None:
        upstreams = _within(_connections(free - clients, 0))
    assert clients is not None and upstreams is not None
    return Limits(
        clients,
        config.max_connections_per_client or _share(clients),
        upstreams,
        config.max_upstream_connections_per_client or _share(upstreams),
    )


def mostDescriptors(config: MirrorConfig) -> int:
    """
    The greatest number of file descriptors that a process with this configuration can use.
    """
    return limitsOf(config, 8 * _MOST).descriptors


def shortage(limits: Limits, files: int) -> str | None:
    """
    A warning for the operator when the limits need more open files than the process may have;
    C{None} when they do not.
    """
    if limits.descriptors <= files:
        return None
    return (
        f"{limits.clients} connections of clients and {limits.upstreams} to upstreams need"
        f" {limits.descriptors} open files, but this process may have {files}: raise that limit"
        " (ulimit -n, LimitNOFILE=), or lower --max-connections and --max-upstream-connections"
    )


def _descriptors(upstreams: int) -> int:
    return upstreams + overlap(upstreams) + furtherAttempts(upstreams)


def _connections(free: int, besides: int) -> int:
    """
    How many connections to upstreams fit into a number of file descriptors.  Because of L{overlap}
    and L{furtherAttempts}, each takes 11/8 of a descriptor.

    @param free: the number of file descriptors.
    @param besides: how many connections of clients there are for each connection to an upstream.
    """
    return (free - _descriptors(0)) * 8 // (11 + 8 * besides)


def _within(number: int) -> int:
    return max(_LEAST, min(_MOST, number))


def _share(number: int) -> int:
    """
    The part of a limit that one client may use.  It is large because many users share one address
    behind a carrier-grade NAT.
    """
    return max(1, min(_MOST_OF_CLIENT, number // 2))
