"""
Which upstreams are marked down for a while, because they can't be reached or gave wrong bytes.

Otherwise each request would wait for the same dead upstream first.
"""

from __future__ import annotations

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from hubmirror.upstream.policy import Upstream

_FIRST = 2.0
_LONGEST = 60.0
TIMEOUTS = 3
"""
How many requests in a row must get no response head in time until that says something about the
upstream.
"""


@attrs.define
class _Outage:
    """
    @ivar until: when it may be tried again, in seconds of the reactor's clock.
    @ivar seconds: how long it is marked down this time.
    @ivar reason: why.
    @ivar since: when it failed first.
    @ivar probed: it has been asked since it failed.
    """

    until: float
    seconds: float
    reason: str
    since: float
    probed: bool = False


class Health:
    """
    Remembers, for each route of each upstream, whether it is marked down.  The time doubles from
    2 s to a minute; when it is over, one request tries, while the others still go past.

    An upstream that can't be connected to is marked down at once.  A response head that does not
    come in time may be due to what was asked for, so it takes L{TIMEOUTS} of them, for different
    targets, while nothing was answered.

    A route is a service, or the blobs of a registry: they come from a CDN, which can be dead
    while its registry is not.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._outages: dict[tuple[str, str], _Outage] = {}
        # When the last answer came, and the hashes of the targets that got none since then.
        self._answered: dict[tuple[str, str], float] = {}
        self._silent: dict[tuple[str, str], set[int]] = {}

    def whyUnavailable(self, upstream: Upstream, route: str) -> str | None:
        """
        Why a request goes past an upstream; C{None} when it does not.
        """
        outage = self._outages.get((upstream.name, route))
        if outage is None or self._reactor.seconds() >= outage.until:
            return None
        return outage.reason

    def outages(self, upstream: Upstream) -> dict[str, tuple[float, str]]:
        """
        The routes of an upstream that have failed and not answered since then, each with the time
        at which it failed first, in seconds of the reactor's clock, and the reason.
        """
        return {
            route: (outage.since, outage.reason)
            for (name, route), outage in self._outages.items()
            if name == upstream.name
        }

    def lastAnswer(self, upstream: Upstream) -> float | None:
        """
        When an upstream last answered on any route, in seconds of the reactor's clock.
        """
        times = [time for (name, _), time in self._answered.items() if name == upstream.name]
        return max(times, default=None)

    def asked(self, upstream: Upstream, route: str) -> None:
        """
        An upstream is being asked.  If it had failed, others leave it alone until it answers.
        """
        outage = self._outages.get((upstream.name, route))
        if outage is not None:
            outage.until = self._reactor.seconds() + outage.seconds
            outage.probed = True

    def failed(self, upstream: Upstream, route: str, reason: str) -> None:
        """
        An upstream could not be connected to.
        """
        known = self._outages.get((upstream.name, route))
        if known is None:
            self._leave(upstream, route, _FIRST, reason)
        elif known.probed:
            # Else it is one of several requests that were under way when the first one failed.
            self._leave(upstream, route, min(_LONGEST, 2 * known.seconds), reason)

    def timedOut(
        self, upstream: Upstream, route: str, target: bytes, since: float, reason: str
    ) -> None:
        """
        An upstream gave no response head in time.

        @param target: what it was asked for.
        @param since: when it was asked, in seconds of the reactor's clock.
        """
        key = (upstream.name, route)
        if self._answered.get(key, since) > since:
            return
        outage = self._outages.get(key)
        if outage is not None:
            if not outage.probed:
                return
            # One slow answer to a request that tried is no reason to wait for longer than before.
            outage.until = self._reactor.seconds() + outage.seconds
        silent = self._silent.setdefault(key, set())
        silent.add(hash(target))
        if len(silent) >= TIMEOUTS:
            self.failed(upstream, route, f"{reason}, for {TIMEOUTS} targets in a row")

    def corrupted(self, upstream: Upstream, route: str) -> None:
        """
        An upstream gave wrong bytes: it is marked down for long, since its next answers would
        look as good as this one did.
        """
        self._leave(upstream, route, _LONGEST, "it gave wrong bytes")

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
        An upstream has answered.
        """
        key = (upstream.name, route)
        self._answered[key] = self._reactor.seconds()
        self._silent.pop(key, None)
        outage = self._outages.get(key)
        if outage is not None and outage.probed:
            del self._outages[key]
            self._log.info("{upstream} ({route}) is up again", upstream=upstream.name, route=route)
