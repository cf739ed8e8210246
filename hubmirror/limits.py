"""
How many connections a process may have, to clients and to upstreams, so that its file descriptors
are enough for both.
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
    How many connections to upstreams there may be beyond their limit for a moment.  An exchange
    that needs a second connection, because the answer on its first one is still read to its end
    and thrown away, does not have to wait for that.

    @param most: the limit.
    """
    return most // 8 + 8


def furtherAttempts(most: int) -> int:
    """
    How many more addresses of upstreams may be tried at once, beside one for each connection.

    @param most: the limit of connections to upstreams.
    """
    return most // 4 + 8


@attrs.frozen
class Limits:
    """
    @ivar clients: connections of clients in all.
    @ivar ofClient: connections of one client.
    @ivar upstreams: connections to upstreams in all, and exchanges that are under way there.
    @ivar upstreamsOfClient: exchanges of one client that are under way at upstreams.
    """

    clients: int
    ofClient: int
    upstreams: int
    upstreamsOfClient: int

    @property
    def descriptors(self) -> int:
        """
        The file descriptors that the process needs when all limits are reached.  What is neither a
        client's connection nor an upstream's (listening sockets, log, lookups of names, files of
        certificates, the pipes of workers) has a reserve.
        """
        return _RESERVE + self.clients + _descriptors(self.upstreams)


def limitsOf(config: MirrorConfig, files: int) -> Limits:
    """
    The limits of a process: those that are set, and for the others defaults that suit a public
    mirror and fit beside them.

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
    The file descriptors that a process can make use of.
    """
    return limitsOf(config, 8 * _MOST).descriptors


def shortage(limits: Limits, files: int) -> str | None:
    """
    What is wrong with limits that don't fit the number of open files; C{None} when they do.
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
    How many connections to upstreams fit, with so many connections of clients beside each.
    """
    return (free - _descriptors(0)) * 8 // (11 + 8 * besides)


def _within(number: int) -> int:
    return max(_LEAST, min(_MOST, number))


def _share(number: int) -> int:
    """
    What one client may have.  Behind a carrier's NAT many users share one address.
    """
    return max(1, min(_MOST_OF_CLIENT, number // 2))
