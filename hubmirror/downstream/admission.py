"""
How many connections there may be: in all, and for each client.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address

from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger

from hubmirror.downstream.incoming import addressOf
from hubmirror.protocol.forwarded import unmapped

_REPORT = 10.0
_SITE_PREFIX = 64


def clientOf(address: IAddress | None) -> str:
    """
    Whom a connection is counted for: an IPv4 address, or the /64 of an IPv6 one, of which one
    client has all addresses.  Connections without an address, such as UNIX sockets, are one client.
    """
    found = addressOf(address)
    if found is None:
        return "local"
    found = unmapped(found)
    if isinstance(found, IPv6Address):
        return str(IPv6Address(int(found) >> _SITE_PREFIX << _SITE_PREFIX))
    return str(found)


class Admission:
    """
    Counts connections and refuses those that are too many.  Refusals are logged as a number every
    ten seconds: a flood of connections must not become one of lines.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, most: int, mostOfClient: int) -> None:
        """
        @param most: connections in all.
        @param mostOfClient: connections of one client.
        """
        self._reactor = reactor
        self._most = most
        self._mostOfClient = mostOfClient
        self._open: Counter[str] = Counter()
        self._total = 0
        self._refused = 0
        self._report: IDelayedCall | None = None

    def enter(self, client: str) -> bool:
        """
        A connection has come.

        @param client: from L{clientOf}.
        @return: whether it may stay; if so, L{leave} must follow.
        """
        if self._total >= self._most or self._open[client] >= self._mostOfClient:
            self._refused += 1
            if self._report is None:
                self._report = self._reactor.callLater(_REPORT, self._tell)
                self._log.warn(
                    "too many connections ({total}, {own} from {client}): refusing more",
                    total=self._total,
                    own=self._open[client],
                    client=client,
                )
            return False
        self._total += 1
        self._open[client] += 1
        return True

    def leave(self, client: str) -> None:
        """
        A connection has gone.
        """
        self._total -= 1
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def _tell(self) -> None:
        self._report = None
        self._log.warn("{refused} connections refused", refused=self._refused)
        self._refused = 0

    def close(self) -> None:
        """
        Tell what is left to tell.
        """
        if self._report is not None:
            self._report.cancel()
            self._tell()
