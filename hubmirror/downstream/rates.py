"""
Rates of clients: how many requests or bytes each may have in a time.

The memory of it is a table of fixed size, which several processes can share, and which any number
of clients does not make larger.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
import struct

from twisted.internet.interfaces import IReactorTime

from hubmirror.config import Rate

_KEY = 16
_SLOT = struct.Struct("<Qd")
_SLOTS = 1 << 16
_PROBES = 8
SIZE = _KEY + _SLOTS * _SLOT.size
"""
The size of a table in bytes.
"""


class RateTable:
    """
    Remembers for each client and rate one number: the time at which nothing that the client has had
    counts any longer (the "theoretical arrival time" of the generic cell rate algorithm, ITU-T
    I.371).  A client that has had nothing for a while may have C{most} at once, and then has one
    more after each C{seconds / most}.

    A client has one of the slots that its hash leads to.  The hash is keyed, so that no client can
    choose which others it shares them with.  When all of them are in use, the client that will be
    forgotten soonest is forgotten now.

    Processes that share a table do not lock it: at worst one of two simultaneous requests is not
    counted.
    """

    def __init__(self, reactor: IReactorTime, memory: mmap.mmap | None = None) -> None:
        """
        @param memory: of L{SIZE} bytes, which are zero at first; by default of this process alone.
        """
        self._reactor = reactor
        self._memory = memory or mmap.mmap(-1, SIZE)
        if not any(self._memory[:_KEY]):
            self._memory[:_KEY] = secrets.token_bytes(_KEY)
        self._key = self._memory[:_KEY]

    def take(self, what: str, client: str, rate: Rate) -> float:
        """
        Count one request, unless it is too many.

        @param what: the rate's name.
        @param client: from L{hubmirror.downstream.admission.clientOf}.
        @return: 0 when it is counted; else the seconds until one will be.
        """
        now = self._reactor.seconds()
        place, tag, until = self._find(what, client, now)
        until += rate.seconds / rate.most
        wait = until - now - rate.seconds
        # Sums of fractions are not exact.
        if wait > 1e-6:
            return wait
        _SLOT.pack_into(self._memory, place, tag, until)
        return 0.0

    def spend(self, what: str, client: str, count: int, perSecond: float) -> float:
        """
        Count bytes that are sent in any case.

        @return: the seconds for which no more should be sent.
        """
        now = self._reactor.seconds()
        place, tag, until = self._find(what, client, now)
        until += count / perSecond
        _SLOT.pack_into(self._memory, place, tag, until)
        return until - now

    def _find(self, what: str, client: str, now: float) -> tuple[int, int, float]:
        """
        The place of a client's slot, its tag, and its time, which is not before C{now}.
        """
        digest = hashlib.blake2b(f"{what} {client}".encode(), key=self._key, digest_size=12)
        first, tag = struct.unpack("<IQ", digest.digest())
        free, soonest = 0, float("inf")
        for probe in range(_PROBES):
            place = _KEY + (first + probe) % _SLOTS * _SLOT.size
            owner, until = _SLOT.unpack_from(self._memory, place)
            if owner == tag:
                return place, tag, max(now, until)
            if until < soonest:
                free, soonest = place, until
        return free, tag, now
