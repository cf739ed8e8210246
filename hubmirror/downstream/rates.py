"""
Limits on the number of requests or bytes of each client in a period of time.

The state is a table of fixed size, which several processes can share, and which does not grow with
the number of clients.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import struct

from twisted.internet.interfaces import IReactorTime

from hubmirror.config import Rate

# A table is a hash key of this size in bytes, followed by the slots.  A slot has a tag, which
# identifies the client, and a time in seconds of the reactor's clock.
_KEY = 16
_SLOT = struct.Struct("<Qd")
_SLOTS = 1 << 16
_PROBES = 8
SIZE = _KEY + _SLOTS * _SLOT.size
"""
The size of a table, in bytes.
"""
# The longest time, in seconds, for which bytes that have been sent already delay others.
_LONGEST_PAUSE = 60.0


def makeMemory(fd: int = -1) -> mmap.mmap:
    """
    Create the memory of a table, with a key.

    @param fd: an empty file, with which other processes share the table.  By default, they don't.
    """
    if fd != -1:
        os.ftruncate(fd, SIZE)
    memory = mmap.mmap(fd, SIZE)
    memory[:_KEY] = secrets.token_bytes(_KEY)
    return memory


class RateTable:
    """
    Remembers one number for each client and rate: the time at which the client's earlier requests
    no longer count (the "theoretical arrival time" of the generic cell rate algorithm, ITU-T
    I.371).  A client may make C{most} requests at once after a pause, and then one more after each
    C{seconds / most}.

    The hash of a client leads to a few slots, of which the client uses one.  The hash is keyed, so
    that clients can't choose whose slots they share.  When all of these slots are in use, the one
    whose time ends first is reused, and the client that had it is forgotten.

    Processes that share a table do not lock it.  At worst, one of two simultaneous requests is not
    counted.
    """

    def __init__(self, reactor: IReactorTime, memory: mmap.mmap | None = None) -> None:
        """
        @param memory: memory from L{makeMemory}, which other processes may use, too.  By default,
            the table is not shared.
        """
        self._reactor = reactor
        self._memory = memory or makeMemory()
        self._key = self._memory[:_KEY]

    def take(self, what: str, client: str, rate: Rate) -> float:
        """
        Count one request, unless it exceeds the rate.

        @param what: the name of the rate.
        @param client: from L{hubmirror.downstream.admission.clientOf}.
        @return: 0 when the request has been counted; otherwise the time, in seconds, until a
            request will be.
        """
        now = self._reactor.seconds()
        place, tag, until = self._find(what, client, now, rate.seconds)
        until += rate.seconds / rate.most
        wait = until - now - rate.seconds
        # Sums of fractions are not exact.
        if wait > 1e-6:
            return wait
        _SLOT.pack_into(self._memory, place, tag, until)
        return 0.0

    def spend(self, what: str, client: str, count: int, perSecond: float) -> float:
        """
        Count bytes that are sent even if they exceed the rate.

        @param what: the name of the rate.
        @param client: from L{hubmirror.downstream.admission.clientOf}.
        @param count: the number of bytes.
        @param perSecond: the rate, in bytes per second.
        @return: the time, in seconds, for which no more should be sent.
        """
        now = self._reactor.seconds()
        place, tag, until = self._find(what, client, now, _LONGEST_PAUSE)
        until += count / perSecond
        _SLOT.pack_into(self._memory, place, tag, until)
        return until - now

    def _find(self, what: str, client: str, now: float, most: float) -> tuple[int, int, float]:
        """
        Find the slot of a client, or the slot to reuse for it.

        @param most: how far the client's time may be after C{now}, in seconds.  It is farther only
            after the system's clock has been set back.
        @return: the slot's offset in the memory, the client's tag, and the client's time, which is
            not before C{now}.
        """
        digest = hashlib.blake2b(f"{what} {client}".encode(), key=self._key, digest_size=12)
        first, tag = struct.unpack("<IQ", digest.digest())
        free, soonest = 0, float("inf")
        for probe in range(_PROBES):
            place = _KEY + (first + probe) % _SLOTS * _SLOT.size
            owner, until = _SLOT.unpack_from(self._memory, place)
            if owner == tag:
                if until > now + most:
                    until = now + most
                    _SLOT.pack_into(self._memory, place, tag, until)
                return place, tag, max(now, until)
            if until < soonest:
                free, soonest = place, until
        return free, tag, now
