"""
Limits on the number of requests in progress at upstreams, in all and for each client.  Requests
over a limit wait, and the waiting clients are served in turn.

Limits on client connections (L{hubmirror.downstream.admission}) are not enough: one HTTP/2
connection carries up to a hundred requests, each of which needs a connection to an upstream.
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
The largest number of waiting requests in all.
"""

MAX_WAITING_OF_CLIENT = 1024
"""
The largest number of waiting requests of one client.
"""


class Budget:
    """
    Gives slots to requests.  A request with a slot may use one connection to an upstream.

    @ivar used: the number of slots that are taken.
    @ivar waiting: the number of requests that wait for a slot.
    @ivar refusals: the requests that got no slot.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        most: int,
        mostOfClient: int,
        timeout: float,
        refusal: Callable[[], MirrorError] = Overloaded,
        what: str = "requests to upstreams",
    ) -> None:
        """
        @param most: the number of slots in all.
        @param mostOfClient: the largest number of slots of one client.
        @param timeout: the time for which a request waits for a slot, in seconds.
        @param refusal: creates the error for a request that gets no slot.
        @param what: what is limited, for the log, in the plural.
        """
        self._reactor = reactor
        self._most = most
        self._mostOfClient = mostOfClient
        self._refusal = refusal
        self._timeout = timeout
        self._taken: Counter[str] = Counter()
        # The waiting requests of each client, in the order of their arrival.
        self._queues: dict[str, OrderedDict[Deferred[None], None]] = {}
        # The clients whose next request gets the next free slot, in the order of their turns: those
        # that have waiting requests, and fewer slots than mostOfClient.
        self._turns: OrderedDict[str, None] = OrderedDict()
        self.used = 0
        self.waiting = 0
        self.refusals = Refusals(reactor, what)

    @property
    def mostOfClient(self) -> int:
        """
        The largest number of slots of one client.  A new value applies to waiting requests, too;
        slots that are taken are kept.
        """
        return self._mostOfClient

    @mostOfClient.setter
    def mostOfClient(self, most: int) -> None:
        self._mostOfClient = most
        for client in self._queues:
            self._lineUp(client)
        self._giveOut()

    def take(self, client: str) -> Deferred[None] | None:
        """
        Take a slot, immediately or as soon as one is free.  Once the slot has been taken, L{leave}
        must be called.

        @param client: from L{hubmirror.downstream.admission.clientOf}.
        @return: C{None} when the slot has been taken; otherwise a deferred that fires when it has
            been, or fails with the error from C{refusal}.  Cancelling the deferred ends the wait.
        @raise MirrorError: the error from C{refusal}, when too many requests wait already.
        """
        if self.used < self._most and self._taken[client] < self._mostOfClient:
            # This overtakes no other client: while there is a free slot, only clients that have
            # all of their own slots wait.
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
        self._lineUp(client)

        def timedOut(_result: object, _timeout: float) -> None:
            raise self._refused(client)

        return waiter.addTimeout(self._timeout, self._reactor, timedOut)

    def _lineUp(self, client: str) -> None:
        """
        Add a client at the end of the turns, unless it has one, or remove it, if it must not have
        another slot now.
        """
        if client in self._queues and self._taken[client] < self._mostOfClient:
            self._turns.setdefault(client)
        else:
            self._turns.pop(client, None)

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
            self._lineUp(client)

    def leave(self, client: str, isWhole: bool) -> None:
        """
        Give back a slot.

        @param isWhole: whether the response has been received completely.  If not, the connection
            to the upstream is closed in the next iteration of the reactor, and the slot becomes
            free only after that.
        """
        if isWhole and not self.waiting:
            self._free(client)
        else:
            # The connection returns to the pool only after the last byte has been passed on.  With
            # this delay, the next request finds it there.
            self._reactor.callLater(0, self._free, client)

    def _free(self, client: str) -> None:
        self.used -= 1
        self._taken[client] -= 1
        if not self._taken[client]:
            del self._taken[client]
        self._lineUp(client)
        self._giveOut()

    def _giveOut(self) -> None:
        while self._turns and self.used < self._most:
            self._next()

    def _next(self) -> None:
        """
        Give a slot to the client whose turn it is, and move that client to the end.
        """
        client, _ = self._turns.popitem(last=False)
        queue = self._queues[client]
        waiter, _ = queue.popitem(last=False)
        self._waitsLess(client, queue)
        self._grant(client)
        self._lineUp(client)
        waiter.callback(None)

    def close(self) -> None:
        """
        Log the refusals that have not been logged yet.
        """
        self.refusals.close()
