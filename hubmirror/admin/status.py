"""
Combines the reports of all processes of a mirror: the sums of their counters, and the state of each
registry.
"""

from __future__ import annotations

import copy
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import twisted
from hubmirror.admin.metrics import addReport

VERSION = version("hubmirror")
_MOST_IDENTITIES = 20
_ANONYMOUS = ""
_UNAUTHENTICATED = b"?".hex()


class Status:
    """
    The status of a mirror.

    @ivar counters: the sums of the counters in all reports, by name and labels.
    @ivar histograms: the sums of the histograms in all reports, by name and kind: the counts of the
        buckets, then the sum of the values.
    @ivar reports: the last report of each running process.  The supervisor adds the number of a
        C{worker}.
    """

    def __init__(
        self,
        reports: Sequence[dict[str, Any]],
        *,
        key: bytes,
        before: dict[str, Any] | None = None,
        expected: int = 1,
    ) -> None:
        """
        @param key: the key of the hash that hides identities.
        @param before: the counts of processes that have ended, summed with L{addReport}.
        @param expected: the number of processes that should run.
        """
        self.reports = reports
        self._key = key
        self._expected = expected
        self._certificates: Mapping[str, float] = {}
        total: dict[str, Any] = copy.deepcopy(before or {"counters": {}, "histograms": {}})
        for report in reports:
            addReport(total, report)
        self.counters: dict[str, Counter[tuple[str, ...]]] = total["counters"]
        self.histograms: dict[str, dict[str, list[float]]] = total["histograms"]

    def now(self, what: str) -> dict[str, int]:
        """
        The current number of C{streams} or C{connections} of all running processes, separately for
        clients and upstreams.
        """
        return {
            side: sum(report[what][side] for report in self.reports)
            for side in ("client", "upstream")
        }

    def whyNotReady(self) -> str | None:
        """
        The reason why the mirror is not ready; C{None} when at least one process is.
        """
        if not self.reports:
            return "no worker has reported yet"
        ready = [report for report in self.reports if report["notReady"] is None]
        if ready:
            return None
        reason: str = self.reports[0]["notReady"]
        return reason

    def addCertificates(self, expiries: Mapping[str, float]) -> Status:
        """
        Add certificates that no process reports: those of the admin port.

        @return: this status.
        """
        self._certificates = expiries
        return self

    def certificates(self) -> dict[str, float]:
        """
        The expiry of each port's certificate, as a POSIX timestamp; the earliest where processes
        differ.
        """
        found = dict(self._certificates)
        for report in self.reports:
            for port, until in report["certificates"].items():
                found[port] = min(until, found.get(port, until))
        return found

    def registries(self) -> dict[str, list[dict[str, Any]]]:
        """
        The upstreams of each registry.  An upstream is up when all processes report so: when no
        route that pulls need is marked down; the reasons are those of all routes.  Of the
        quotas that several processes report for one identity, the latest counts: the one with the
        greatest C{until}, which is the time of the response plus the window.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for report in self.reports:
            for name, registry in report["registries"].items():
                upstreams = found.setdefault(name, {})
                for upstream in registry["upstreams"]:
                    known = upstreams.setdefault(
                        upstream["name"],
                        {"name": upstream["name"], "up": True, "down": [], "quotas": {}},
                    )
                    known["up"] = known["up"] and upstream["up"]
                    known["down"] += upstream["down"]
                    for quota in upstream["quotas"]:
                        self._addQuota(known["quotas"], quota)
        return {
            name: [self._shown(upstream) for upstream in upstreams.values()]
            for name, upstreams in found.items()
        }

    def _addQuota(self, quotas: dict[str, dict[str, Any]], quota: dict[str, Any]) -> None:
        identity = self._identity(quota["identity"])
        known = quotas.get(identity)
        if known is None or quota["until"] > known["until"]:
            quotas[identity] = {**quota, "identity": identity}

    def _identity(self, identity: str) -> str:
        if identity == _ANONYMOUS:
            return "anonymous"
        if identity == _UNAUTHENTICATED:
            return "unauthenticated"
        return hashlib.blake2b(identity.encode(), key=self._key, digest_size=4).hexdigest()

    @staticmethod
    def _shown(upstream: dict[str, Any]) -> dict[str, Any]:
        down = sorted(upstream["down"], key=lambda each: each["since"])
        quotas = sorted(upstream["quotas"].values(), key=lambda each: each["remaining"])
        return {
            "name": upstream["name"],
            "up": upstream["up"],
            "since": down[0]["since"] if down else None,
            "reason": "; ".join(
                dict.fromkeys(f"{each['route']}: {each['reason']}" for each in down)
            )
            or None,
            "quotas": quotas[:_MOST_IDENTITIES],
        }

    def document(self) -> dict[str, Any]:
        """
        The document of C{/status}.  Times are POSIX timestamps, C{uptime} is in seconds.
        """
        started = min((report["started"] for report in self.reports), default=time.time())
        return {
            "version": VERSION,
            "twisted": twisted.__version__,
            "started": started,
            "uptime": round(time.time() - started, 3),
            "ready": self.whyNotReady() is None,
            "reason": self.whyNotReady(),
            "registries": {
                name: {"upstreams": upstreams} for name, upstreams in self.registries().items()
            },
            "streams": self.now("streams"),
            "connections": self.now("connections"),
            "waiting": sum(report["waiting"] for report in self.reports),
            "workers": [
                {
                    "worker": report.get("worker", 1),
                    "pid": report["pid"],
                    "started": report["started"],
                    "ready": report["notReady"] is None,
                    "streams": report["streams"],
                }
                for report in self.reports
            ],
            "workers_expected": self._expected,
        }


def newKey() -> bytes:
    """
    Create a key for the hash that hides identities.
    """
    return secrets.token_bytes(16)
