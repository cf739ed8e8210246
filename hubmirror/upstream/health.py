"""
Upstreams that are marked down for a while, because they can't be reached or sent wrong bytes.

Without this, each request would first wait for the same unreachable upstream.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from hubmirror.upstream.policy import Upstream

# The shortest and the longest time for which an upstream is marked down, in seconds.
_FIRST = 2.0
_LONGEST = 60.0
TIMEOUTS = 3
"""
The number of requests in a row without a response head in time after which an upstream is marked
down.
"""
# The routes that pulls need.
_NEEDED = frozenset(("registry", "token", "blobs"))
# How long, in seconds, an outage is shown after its upstream may be tried again.  There may never
# be another request for its route.
_SHOWN_AFTER = 60.0


@attrs.define
class _Outage:
    """
    @ivar until: when the upstream may be tried again, in seconds of the reactor's clock.
    @ivar seconds: how long the upstream is marked down this time.
    @ivar reason: why the upstream is marked down.
    @ivar since: when the upstream failed first, in seconds of the reactor's clock.
    @ivar probed: whether a request has been sent to the upstream since it failed.
    """

    until: float
    seconds: float
    reason: str
    since: float
    probed: bool = False


class Health:
    """
    Remembers, for each route of each upstream, whether it is marked down.  The time for which it is
    marked down doubles with each failure, from 2 s to 60 s.  After that time, one request is sent
    to the upstream as a probe, while the others still skip it.

    An upstream to which no connection can be opened is marked down immediately.  A late response
    head may be due to the requested target, so an upstream is marked down for it only after
    L{TIMEOUTS} different targets in a row, with no response in between.

    A route is a service, or the blobs of a registry: blobs come from a CDN, which can be
    unreachable while the registry is not.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._outages: dict[tuple[str, str], _Outage] = {}
        # The time of the last response, and the hashes of the targets that got none since then.
        self._answered: dict[tuple[str, str], float] = {}
        self._silent: dict[tuple[str, str], set[int]] = {}

    def whyUnavailable(self, upstream: Upstream, route: str) -> str | None:
        """
        Why requests skip an upstream; C{None} when they do not.
        """
        outage = self._outages.get((upstream.name, route))
        if outage is None or self._reactor.seconds() >= outage.until:
            return None
        return outage.reason

    def outages(self, upstream: Upstream) -> dict[str, tuple[float, str]]:
        """
        The routes of an upstream that have failed and not responded since then, except those for
        which there has been no request in the minute after the upstream might be tried again.

        @return: for each route, the time at which it failed first, in seconds of the reactor's
            clock, and the reason.
        """
        oldest = self._reactor.seconds() - _SHOWN_AFTER
        return {
            route: (outage.since, outage.reason)
            for (name, route), outage in self._outages.items()
            if name == upstream.name and outage.until > oldest
        }

    def isUp(self, upstream: Upstream) -> bool:
        """
        Whether no route of an upstream that pulls need is among its L{outages}.
        """
        return _NEEDED.isdisjoint(self.outages(upstream))

    def lastAnswer(self, upstream: Upstream) -> float | None:
        """
        When an upstream last responded on any route, in seconds of the reactor's clock; C{None} if
        it never has.
        """
        times = [time for (name, _), time in self._answered.items() if name == upstream.name]
        return max(times, default=None)

    def asked(self, upstream: Upstream, route: str) -> Callable[[], None]:
        """
        A request is about to be sent to an upstream.  If the upstream had failed, this request is
        the probe: other requests skip the upstream in the meantime.

        @return: to be called if the client leaves before the result is known: then another request
            becomes the probe two seconds later.
        """
        outage = self._outages.get((upstream.name, route))
        if outage is None:
            return lambda: None
        before = outage.until
        outage.until = until = self._reactor.seconds() + outage.seconds
        outage.probed = True

        def gaveUp() -> None:
            # Meanwhile, there may have been another probe.
            if outage.until == until:
                # If the upstream is silent, each client in a row may leave.  So the other requests
                # skip it for a short time again.
                outage.until = max(before, min(until, self._reactor.seconds() + _FIRST))

        return gaveUp

    def failed(self, upstream: Upstream, route: str, reason: str) -> None:
        """
        No connection to an upstream could be opened.

        @param reason: why, for the log and the clients.
        """
        known = self._outages.get((upstream.name, route))
        if known is None:
            self._leave(upstream, route, _FIRST, reason)
        elif known.probed:
            # Without a probe, this is one of several requests that were in progress when the first
            # of them failed; it must not double the time.
            self._leave(upstream, route, min(_LONGEST, 2 * known.seconds), reason)

    def timedOut(
        self, upstream: Upstream, route: str, target: bytes, since: float, reason: str
    ) -> None:
        """
        An upstream gave no response head in time.

        @param target: the target of the request.
        @param since: when the request was sent, in seconds of the reactor's clock.
        """
        key = (upstream.name, route)
        if self._answered.get(key, since) > since:
            return
        outage = self._outages.get(key)
        if outage is not None:
            if not outage.probed:
                return
            # A single late response to a probe does not double the time.
            outage.until = self._reactor.seconds() + outage.seconds
        silent = self._silent.setdefault(key, set())
        silent.add(hash(target))
        if len(silent) >= TIMEOUTS:
            self.failed(upstream, route, f"{reason}, for {TIMEOUTS} targets in a row")

    def corrupted(self, upstream: Upstream, route: str) -> None:
        """
        An upstream sent wrong bytes.  It is marked down for the longest time, because nothing
        distinguishes its responses from correct ones before their last byte.
        """
        self._leave(upstream, route, _LONGEST, "it sent wrong bytes")

    def _leave(self, upstream: Upstream, route: str, seconds: float, reason: str) -> None:
        key = (upstream.name, route)
        isNew = key not in self._outages
        now = self._reactor.seconds()
        since = now if isNew else self._outages[key].since
        self._outages[key] = _Outage(now + seconds, seconds, reason, since)
        self._silent.pop(key, None)
        if isNew:
            self._log.warn(
                "{upstream} ({route}) is marked down: {reason}",
                upstream=upstream.name,
                route=route,
                reason=reason,
            )

    def served(self, upstream: Upstream, route: str) -> None:
        """
        An upstream has responded.
        """
        key = (upstream.name, route)
        self._answered[key] = self._reactor.seconds()
        self._silent.pop(key, None)
        outage = self._outages.get(key)
        if outage is not None and outage.probed:
            del self._outages[key]
            self._log.info("{upstream} ({route}) is up again", upstream=upstream.name, route=route)
