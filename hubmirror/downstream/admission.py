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

_REPORT = 10.0  # seconds
_SITE_PREFIX = 64  # bits


@lru_cache(maxsize=4096)
def clientOf(address: Address | None) -> str:
    """
    The client for which a connection or a request is counted: an IPv4 address, or the /64 prefix of
    an IPv6 address, because one client usually has a whole /64.  All peers without an IP address,
    such as those of UNIX sockets, count as one client.
    """
    if address is None:
        return "local"
    address = unmapped(address)
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> _SITE_PREFIX << _SITE_PREFIX))
    return str(address)


class Refusals:
    """
    Counts refusals and logs their number every ten seconds.  A flood of connections must not become
    a flood of log lines.

    @ivar total: the number of refusals so far.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, what: str) -> None:
        """
        @param what: the name of the refused things in log messages, in the plural.
        """
        self._reactor = reactor
        self._what = what
        self._untold = 0
        self._report: IDelayedCall | None = None
        self.total = 0

    def add(self, client: str, own: int, total: int) -> None:
        """
        Count a refusal.

        @param client: from L{clientOf}.
        @param own: how many connections or requests the client has.
        @param total: how many connections or requests there are in all.
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
        self._log.warn("{what} refused: {refused}", what=self._what, refused=self._untold)
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
    Counts the connections of clients, and refuses those that are too many.

    @ivar total: the number of open connections.
    @ivar refusals: the refused connections.
    """

    def __init__(self, reactor: IReactorTime, most: int, mostOfClient: int) -> None:
        """
        @param most: the largest number of connections in all.
        @param mostOfClient: the largest number of connections of one client.
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
        @return: whether the connection is admitted.  If it is, L{leave} must be called when it has
            been closed.
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
        Log the refusals that have not been logged yet.
        """
        self.refusals.close()
