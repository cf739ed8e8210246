"""
Limits on the number of client connections, in all and for each client.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from hubmirror.protocol.forwarded import Address, unmapped

_REPORT = 10.0
_SITE_PREFIX = 64


@lru_cache(maxsize=4096)
def clientOf(address: Address | None) -> str:
    """
    Whom a connection or a request is counted for: an IPv4 address, or the /64 of an IPv6 one, of
    which one client has all addresses.  All without an address, such as UNIX sockets, are one
    client.
    """
    if address is None:
        return "local"
    address = unmapped(address)
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> _SITE_PREFIX << _SITE_PREFIX))
    return str(address)


class Refusals:
    """
    Logs refusals as a number every ten seconds: a flood of connections must not become one of
    lines.

    @ivar total: how many there have been.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, what: str) -> None:
        """
        @param what: what is refused, in the plural.
        """
        self._reactor = reactor
        self._what = what
        self._untold = 0
        self._report: IDelayedCall | None = None
        self.total = 0

    def add(self, client: str, own: int, total: int) -> None:
        """
        One was refused.

        @param own: how many this client has.
        @param total: how many there are.
        """
        self.total += 1
        self._untold += 1
        if self._report is None:
            self._report = self._reactor.callLater(_REPORT, self._tell)
            self._log.warn(
                "too many {what} ({total}, {own} from {client}): refusing more",
                what=self._what,
                total=total,
                own=own,
                client=client,
            )

    def _tell(self) -> None:
        self._report = None
        self._log.warn("{refused} {what} refused", refused=self._untold, what=self._what)
        self._untold = 0

    def close(self) -> None:
        """
        Log the refusals that have not been logged yet.
        """
        if self._report is not None:
            self._report.cancel()
            self._tell()


class Admission:
    """
    Counts connections and refuses those that are too many.

    @ivar total: how many there are.
    @ivar refusals: of connections.
    """

    def __init__(self, reactor: IReactorTime, most: int, mostOfClient: int) -> None:
        """
        @param most: connections in all.
        @param mostOfClient: connections of one client.
        """
        self._most = most
        self._mostOfClient = mostOfClient
        self._open: Counter[str] = Counter()
        self.total = 0
        self.refusals = Refusals(reactor, "connections")

    def enter(self, client: str) -> bool:
        """
        Admit a new connection, or refuse it.

        @param client: from L{clientOf}.
        @return: whether it may stay; if so, L{leave} must follow.
        """
        if self.total >= self._most or self._open[client] >= self._mostOfClient:
            self.refusals.add(client, self._open[client], self.total)
            return False
        self.total += 1
        self._open[client] += 1
        return True

    def leave(self, client: str) -> None:
        """
        Count a connection that has been closed.
        """
        self.total -= 1
        self._open[client] -= 1
        if not self._open[client]:
            del self._open[client]

    def close(self) -> None:
        """
        Tell what is left to tell.
        """
        self.refusals.close()
