"""
Ports on which several sockets listen.  The kernel distributes the connections among them
(C{SO_REUSEPORT}, socket(7)), if processes of one account have bound all of them in this way.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.error import CannotListenError


def listenShared(
    family: int, address: Any, backlog: int, onlyIPv6: bool | None = None
) -> socket.socket:
    """
    Create a socket that listens on a port together with others.

    @param address: as for C{socket.bind}.
    @param onlyIPv6: the value of C{IPV6_V6ONLY} (ipv6(7)); by default, the system's.
    @raise OSError: when the address can't be bound.
    """
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        if onlyIPv6 is not None:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, onlyIPv6)
        made.bind(address)
        made.listen(backlog)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


class SharingReactor:
    """
    A reactor whose TCP ports are shared with other processes.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """
        @raise CannotListenError: when the port is taken, or may not be bound.
        """
        family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
        try:
            made = listenShared(family, (interface, port), backlog)
        except OSError as error:
            raise CannotListenError(interface, port, error) from None
        # The port has a descriptor of its own.
        with made:
            return self._reactor.adoptStreamPort(made.fileno(), family, factory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
