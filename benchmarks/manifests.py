"""
Measures small responses: requests for a manifest, with a token.
"""

from __future__ import annotations

from benchmarks.clients import Requests, getKept, getOneEach
from benchmarks.scale import Scale
from benchmarks.servers import Proxy
from benchmarks.world import World

_CLIENTS = 16


def kept(proxy: Proxy, world: World, scale: Scale) -> dict[str, float]:
    """Measure requests on persistent connections."""
    usage, manifest = proxy.usage, world.contents.manifest
    before = usage.cpu()
    requests = getKept(proxy.place, manifest, f"-c{_CLIENTS}", f"-n{scale.requests}")
    return _figures("manifest, kept", requests, (usage.cpu() - before) / scale.requests)


def oneEach(proxy: Proxy, world: World, scale: Scale) -> dict[str, float]:
    """Measure requests with a connection for each."""
    usage, manifest = proxy.usage, world.contents.manifest
    before = usage.cpu()
    requests = getOneEach(proxy.place, manifest, scale.connects, _CLIENTS)
    return _figures("manifest, one each", requests, (usage.cpu() - before) / scale.connects)


def _figures(title: str, requests: Requests, cpu: float) -> dict[str, float]:
    return {
        f"{title}: requests/s": requests.rate,
        f"{title}: CPU ms": 1000 * cpu,
        f"{title}: p50, ms": 1000 * requests.p50,
        f"{title}: p99, ms": 1000 * requests.p99,
    }
