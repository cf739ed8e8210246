"""
Converts the metrics to the formats of Prometheus, with C{prometheus_client}.

Of that package only the metric families and encoders are used.  Its own counters would make an
exchange several times as expensive, and with several processes it keeps them in files, which do not
suit gauges.  Its Twisted resource renders in a thread, where this package's data must not be read.
"""

from __future__ import annotations

import platform
import ssl
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

import twisted
from hubmirror.admin.metrics import HEAD_BUCKETS, REQUEST_BUCKETS
from hubmirror.admin.status import VERSION, Status

_COUNTERS = {
    "requests": (
        "Requests of clients that have ended.",
        ("registry", "kind", "method", "status", "outcome"),
    ),
    "upstream_requests": (
        "Requests to upstreams, with the status or the error.",
        ("registry", "upstream", "kind", "status"),
    ),
    "sent_bytes": ("Bytes of bodies sent to clients.", ("registry", "kind")),
    "received_bytes": ("Bytes of bodies received from clients.", ("registry", "kind")),
    "resumes": ("Bodies that broke and were resumed.", ("registry", "upstream", "reason")),
    "failovers": (
        "Requests that skipped or left an upstream, with the reason.",
        ("registry", "upstream", "reason"),
    ),
    "broken": ("Responses that could not be completed.", ("registry", "reason")),
    "denied": ("Requests and connections refused by a rule or limit.", ("rule",)),
}
_HISTOGRAMS = {
    "request_seconds": ("Time from a request to the end of its response.", REQUEST_BUCKETS),
    "head_seconds": ("Time from a request to the head of its response.", HEAD_BUCKETS),
}
_NOW = {
    "streams": "Requests in progress.",
    "connections": "Open connections.",
}


def expose(status: Status, accept: str) -> tuple[bytes, str]:
    """
    Encode the metrics.

    @param accept: the value of the request's C{Accept} field.
    @return: the metrics in the format that C{accept} prefers, and the media type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(status))
    encoder, mediaType = choose_encoder(accept)
    return encoder(registry), mediaType


class _Collector:
    """
    A collector of C{prometheus_client} that creates metric families from a status.
    """

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """
        All families.
        """
        yield from self._counts()
        yield from self._times()
        yield from self._states()
        yield InfoMetricFamily(
            "hubmirror",
            "Versions.",
            value={
                "version": VERSION,
                "python": platform.python_version(),
                "twisted": twisted.__version__,
                "openssl": ssl.OPENSSL_VERSION,
            },
        )
        yield from self._processes()

    def _counts(self) -> Iterator[Metric]:
        for name, (help, labels) in _COUNTERS.items():
            family = CounterMetricFamily(f"hubmirror_{name}", help, labels=labels)
            for values, count in self._status.counters.get(name, {}).items():
                family.add_metric(values, count)
            yield family

    def _times(self) -> Iterator[Metric]:
        for name, (help, bounds) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"hubmirror_{name}", help, labels=("kind",))
            for kind, (*counts, total) in self._status.histograms.get(name, {}).items():
                below, buckets = 0.0, []
                for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
                    below += count
                    buckets.append((bound, below))
                family.add_metric((kind,), buckets=buckets, sum_value=total)
            yield family

    def _states(self) -> Iterator[Metric]:
        for name, help in _NOW.items():
            family = GaugeMetricFamily(f"hubmirror_{name}", help, labels=("side",))
            for side, count in self._status.now(name).items():
                family.add_metric((side,), count)
            yield family
        up = GaugeMetricFamily(
            "hubmirror_upstream_up",
            "1, or 0 while a route of the upstream that pulls need is marked down.",
            labels=("registry", "upstream"),
        )
        labels = ("registry", "upstream", "identity")
        remaining = GaugeMetricFamily(
            "hubmirror_quota_remaining", "Pulls that an identity has left.", labels=labels
        )
        limit = GaugeMetricFamily(
            "hubmirror_quota_limit", "Pulls that an identity has in a window.", labels=labels
        )
        for registry, upstreams in self._status.registries().items():
            for upstream in upstreams:
                place = registry, upstream["name"]
                up.add_metric(place, 1.0 if upstream["up"] else 0.0)
                for quota in upstream["quotas"]:
                    identity = (*place, quota["identity"])
                    remaining.add_metric(identity, quota["remaining"])
                    if quota["limit"] is not None:
                        limit.add_metric(identity, quota["limit"])
        certificate = GaugeMetricFamily(
            "hubmirror_certificate_expiry_timestamp_seconds",
            "Expiry of the certificate of a port.",
            labels=("port",),
        )
        for port, until in self._status.certificates().items():
            certificate.add_metric((port,), until)
        yield from (up, remaining, limit, certificate)

    def _processes(self) -> Iterator[Metric]:
        """
        The metrics of each process, such as memory and CPU time; those of workers have a label
        C{worker}.
        """
        families: dict[str, Metric] = {}
        for report in self._status.reports:
            worker = {"worker": str(report["worker"])} if "worker" in report else {}
            for name, help, kind, samples in report["process"]:
                family = families.setdefault(name, Metric(name, help, kind))
                for sampleName, labels, value, *_ in samples:
                    family.add_sample(sampleName, {**labels, **worker}, value)
        yield from families.values()
