"""
Counts exchanges.

The counters are plain numbers in dictionaries.  So counting an exchange takes a few microseconds,
and the counters of several processes can be added.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from hubmirror.exchange import Exchange, Outcome
from hubmirror.protocol.target import Kind

METHODS = frozenset((b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE"))
REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
HEAD_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""
The upper bounds of the histograms' buckets, in seconds.
"""

_KINDS: dict[Kind | None, str] = {kind: kind.value for kind in Kind}
_KINDS.update(
    {None: "other", Kind.ROOT: "other", Kind.CATALOG: "other", Kind.SEARCH_PING: "search"}
)
_OUTCOMES = {outcome: outcome.value.replace(" ", "_") for outcome in Outcome}


@lru_cache
def _word(text: str) -> str:
    """
    Convert the name of an exception, or a phrase, to the value of a label: C{ConnectFailed} becomes
    C{connect_failed}.
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])| ", "_", text).lower()


class Histogram:
    """
    The distribution of values over buckets.

    @ivar counts: the number of values in each bucket; the last bucket is for those above all
        bounds.
    @ivar sum: the sum of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """
        Count a value.
        """
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Metrics:
    """
    A listener that counts exchanges.

    @ivar counters: the counts, by the metric's name without C{hubmirror_} and C{_total}, and by the
        values of its labels.
    """

    def __init__(self) -> None:
        self.counters: dict[str, Counter[tuple[str, ...]]] = {
            name: Counter()
            for name in (
                "requests",
                "upstream_requests",
                "sent_bytes",
                "received_bytes",
                "resumes",
                "failovers",
                "broken",
                "denied",
            )
        }
        self._requestSeconds: dict[str, Histogram] = {}
        self._headSeconds: dict[str, Histogram] = {}

    def __call__(self, exchange: Exchange) -> None:
        """
        Count an exchange that has ended.
        """
        counters = self.counters
        registry, kind = exchange.registry or "", _KINDS[exchange.kind]
        method = exchange.method.decode("ascii") if exchange.method in METHODS else "other"
        outcome = "" if exchange.outcome is None else _OUTCOMES[exchange.outcome]
        counters["requests"][registry, kind, method, str(exchange.status), outcome] += 1
        if exchange.sent:
            counters["sent_bytes"][registry, kind] += exchange.sent
        if exchange.received:
            counters["received_bytes"][registry, kind] += exchange.received
        for upstream, result in exchange.attempts:
            counters["upstream_requests"][registry, upstream, kind, _word(result)] += 1
        if exchange.skipped or len(exchange.attempts) > 1:
            self._failovers(registry, exchange)
        for upstream, how in exchange.breaks[: exchange.resumes]:
            counters["resumes"][registry, upstream, _word(how)] += 1
        if exchange.outcome is Outcome.BROKEN:
            how = exchange.breaks[-1][1] if exchange.breaks else "other"
            counters["broken"][registry, _word(how)] += 1
        if exchange.rule is not None:
            counters["denied"][(exchange.rule,)] += 1
        _histogram(self._requestSeconds, kind, REQUEST_BUCKETS).observe(exchange.seconds or 0.0)
        if exchange.headAfter is not None:
            _histogram(self._headSeconds, kind, HEAD_BUCKETS).observe(exchange.headAfter)

    def _failovers(self, registry: str, exchange: Exchange) -> None:
        """
        Count the upstreams that the exchange skipped or left for another one.
        """
        asked = exchange.attempts
        left = [before for before, after in pairwise(asked) if before[0] != after[0]]
        for upstream, why in (*exchange.skipped, *left):
            self.counters["failovers"][registry, upstream, _word(why)] += 1

    def report(self) -> dict[str, Any]:
        """
        All counters and histograms, in a form that can be converted to JSON.
        """
        return {
            "counters": {
                name: [[*labels, value] for labels, value in counter.items()]
                for name, counter in self.counters.items()
            },
            "histograms": {
                name: {kind: [*each.counts, each.sum] for kind, each in histograms.items()}
                for name, histograms in (
                    ("request_seconds", self._requestSeconds),
                    ("head_seconds", self._headSeconds),
                )
            },
        }


def _histogram(histograms: dict[str, Histogram], kind: str, bounds: Sequence[float]) -> Histogram:
    found = histograms.get(kind)
    if found is None:
        found = histograms[kind] = Histogram(bounds)
    return found


def addReport(total: dict[str, Any], report: dict[str, Any]) -> None:
    """
    Add the report of one process to the sum of several.

    @param total: the sum, which is changed; at first, an empty dictionary.
    @param report: the value of L{Metrics.report}.
    """
    counters = total.setdefault("counters", {})
    for name, rows in report["counters"].items():
        counter = counters.setdefault(name, Counter())
        for *labels, value in rows:
            counter[tuple(labels)] += value
    histograms = total.setdefault("histograms", {})
    for name, kinds in report["histograms"].items():
        for kind, values in kinds.items():
            sums = histograms.setdefault(name, {}).setdefault(kind, [0] * len(values))
            sums[:] = map(sum, zip(sums, values, strict=True))
