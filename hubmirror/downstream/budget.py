"""
How many requests may be under way at upstreams: in all, and for each client.  What is over that
waits for its turn, and the clients that wait are served in turn.

Connections of clients are counted elsewhere (L{Admission}), but one connection of HTTP/2 has a
hundred requests, each of which needs a connection to an upstream.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from hubmirror.downstream.admission import Refusals
from hubmirror.protocol.errors import MirrorError, Overloaded

MAX_WAITING = 4096
"""
Requests that wait, in all.
"""

MAX_WAITING_OF_CLIENT = 1024
"""
Requests of one client that wait.
"""


class Budget:
    """
    Gives slots to requests.  A request that has one may use one connection to an upstream.

    @ivar mostOfClient: how many of them one client may have.
    @ivar used: slots that are taken.
    @ivar waiting: requests that wait for one.
    @ivar refusals: of requests that got none.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        most: int,
        mostOfClient: int,
        timeout: float,
        refusal: Callable[[], MirrorError] = Overloaded,
    ) -> None:
        """
        @param most: slots in all.
        @param mostOfClient: slots of one client.
        @param timeout: seconds that a request waits for one.
        @param refusal: makes what a request gets that waits in vain.
        """
        self._reactor = reactor
        self._most = most
        self.mostOfClient = mostOfClient
        self._refusal = refusal
        self._timeout = timeout
        self._taken: Counter[str] = Counter()
        # The requests of each client that wait, in the order in which they came.
        self._queues: dict[str, OrderedDict[Deferred[None], None]] = {}
        # The clients whose turn will come: those with requests that wait, and with slots left.
        self._turns: OrderedDict[str, None] = OrderedDict()
        self.used = 0
        self.waiting = 0
        self.refusals = Refusals(reactor, "requests under way")

    def take(self, client: str) -> Deferred[None] | None:
        """
        Take a slot, now or when there is one.

        @param client: from L{clientOf}.
        @return: C{None} when it is taken; else a Deferred, which fires when it is, or fails with
            what C{refusal} makes.  Cancelling it gives up.  Once it is taken, L{leave} must follow.
        @raise MirrorError: when too many wait already.
        """
        if self.used < self._most and self._taken[client] < self.mostOfClient:
            # Nobody whose turn it could be waits while there are slots.
            self._grant(client)
            return None
        return self._wait(client)

    def _grant(self, client: str) -> None:
        self.used += 1
        self._taken[client] += 1

    def _wait(self, client: str) -> Deferred[None]:
        queue = self._queues.get(client, OrderedDict())
        if self.waiting >= MAX_WAITING or len(queue) >= MAX_WAITING_OF_CLIENT:
            raise self._refused(client)
        waiter: Deferred[None] = Deferred(lambda waiter: self._giveUp(client, waiter))
        self._queues[client] = queue
        queue[waiter] = None
        self.waiting += 1
        if self._taken[client] < self.mostOfClient:
            # At the end, unless it is there already.
            self._turns.setdefault(client)

        def timedOut(_result: object, _timeout: float) -> None:
            raise self._refused(client)

        return waiter.addTimeout(self._timeout, self._reactor, timedOut)

    def _refused(self, client: str) -> MirrorError:
        self.refusals.add(client, self._taken[client], self.used)
        return self._refusal()

    def _giveUp(self, client: str, waiter: Deferred[None]) -> None:
        queue = self._queues[client]
        del queue[waiter]
        self._waitsLess(client, queue)

    def _waitsLess(self, client: str, queue: OrderedDict[Deferred[None], None]) -> None:
        self.waiting -= 1
        if not queue:
            del self._queues[client]
            self._turns.pop(client, None)

    def leave(self, client: str, isWhole: bool) -> None:
        """
        A request no longer uses its slot.

        @param isWhole: whether its answer has come to its end.  If not, its connection is closed
            in the reactor's next turn, and the slot is free after that.
        """
        if isWhole and not self.waiting:
            self._free(client)
        else:
            # Whoever waits then finds the connection kept: it is given back after the last byte
            # has been handed on.
            self._reactor.callLater(0, self._free, client)

    def _free(self, client: str) -> None:
        self.used -= 1
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
        if client in self._queues:
            self._turns.setdefault(client)
        while self._turns and self.used < self._most:
            self._next()

    def _next(self) -> None:
        """
        Give a slot to the client whose turn it is, which then is the last.
        """
        client, _ = self._turns.popitem(last=False)
        queue = self._queues[client]
        waiter, _ = queue.popitem(last=False)
        self._waitsLess(client, queue)
        self._grant(client)
        if queue and self._taken[client] < self.mostOfClient:
            self._turns[client] = None
        waiter.callback(None)

    def close(self) -> None:
        """
        Tell what is left to tell.
        """
        self.refusals.close()
