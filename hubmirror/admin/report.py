"""
The report of one process: everything that the admin port shows about it.  A report can be converted
to JSON, in which form workers send it to their supervisor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import GCCollector, PlatformCollector, ProcessCollector
from twisted.internet.interfaces import IReactorTime

from hubmirror.admin.metrics import Metrics
from hubmirror.admin.readiness import Readiness
from hubmirror.downstream.proxy import Mirror
from hubmirror.downstream.site import MirrorSite
from hubmirror.transport.pool import Pool
from hubmirror.upstream.registry import Registry


class Reporter:
    """
    Creates the reports of one mirror.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        mirror: Mirror,
        site: MirrorSite,
        pool: Pool | None,
        metrics: Metrics,
        readiness: Readiness,
        certificates: Callable[[], Mapping[str, float]],
    ) -> None:
        """
        @param pool: the connections to upstreams; C{None} when another agent is used.
        @param certificates: returns the expiry of each port's certificate, as a POSIX timestamp.
        """
        self._reactor = reactor
        self._mirror = mirror
        self._site = site
        self._pool = pool
        self._metrics = metrics
        self._readiness = readiness
        self._certificates = certificates
        self._started = time.time()
        nowhere: Any = _Nowhere()
        self._collectors = [
            collector(registry=nowhere)
            for collector in (ProcessCollector, PlatformCollector, GCCollector)
        ]

    def __call__(self) -> dict[str, Any]:
        """
        Create a report of the present state.
        """
        mirror, site = self._mirror, self._site
        report = self._metrics.report()
        denied = report["counters"]["denied"]
        for rule, refusals in (
            ("max-connections", site.admission.refusals),
            ("max-upstream-connections", mirror.budget.refusals),
        ):
            if refusals.total:
                denied.append([rule, refusals.total])
        return {
            **report,
            "pid": os.getpid(),
            "started": self._started,
            "notReady": self._readiness.whyNot(),
            "streams": {"client": len(mirror.active), "upstream": mirror.budget.used},
            "connections": {
                "client": site.admission.total,
                "upstream": 0 if self._pool is None else self._pool.connections,
            },
            "waiting": mirror.budget.waiting,
            "registries": {
                registry.name: self._registry(registry)
                for registry in mirror.settings.registries.values()
            },
            "certificates": dict(self._certificates()),
            "process": [
                [family.name, family.documentation, family.type, list(family.samples)]
                for collector in self._collectors
                for family in collector.collect()
            ],
        }

    def _registry(self, registry: Registry) -> dict[str, Any]:
        now, clock = time.time(), self._reactor.seconds()
        quotas = registry.quotas.known()
        upstreams = []
        for upstream in registry.upstreams:
            outages = registry.health.outages(upstream)
            upstreams.append(
                {
                    "name": upstream.name,
                    "up": registry.health.isUp(upstream),
                    "down": [
                        {"route": route, "since": now - (clock - since), "reason": reason}
                        for route, (since, reason) in outages.items()
                    ],
                    "quotas": [
                        {
                            "identity": each.identity.hex(),
                            "remaining": each.remaining,
                            "limit": each.limit,
                            "until": now + each.until - clock,
                        }
                        for each in quotas
                        if each.upstream == upstream.name
                    ],
                }
            )
        return {"upstreams": upstreams}


class _Nowhere:
    """
    A registry of C{prometheus_client} that ignores the collectors.  Their constructors require one,
    and would otherwise use the global registry.
    """

    def register(self, _collector: object) -> None:
        """
        Do nothing.
        """
