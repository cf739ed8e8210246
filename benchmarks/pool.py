"""
Measures how many connections to the upstream a proxy opens, and whether it leaves any open.
"""

from __future__ import annotations

from benchmarks.clients import getBlobs, getKept, getOneEach
from benchmarks.readers import abandon
from benchmarks.scale import Scale
from benchmarks.servers import Proxy
from benchmarks.usage import settled
from benchmarks.world import World

_CLIENTS = 16


def pool(proxy: Proxy, world: World, scale: Scale) -> dict[str, float]:
    """Send a few requests one after another, and then many from clients of all kinds."""
    proxy.restart()
    upstream, contents = world.upstream, world.contents
    before = upstream.mark()
    getKept(proxy.place, contents.manifest, "-c1", "-n20")
    figures: dict[str, float] = {
        "20 manifests: connections to the registry": upstream.connections("registry", before, 20)
    }
    before = upstream.mark()
    getBlobs(proxy.place, contents.layers, "1.1", 3)
    figures["10 blobs, 3 at once: connections to the CDN"] = upstream.connections("cdn", before, 10)
    for requests in (scale.requests // 10, scale.requests):
        _ask(proxy, world, requests)
        figures[f"sockets open after {requests} requests"] = settled(proxy.usage.sockets, 0)
    return figures


def _ask(proxy: Proxy, world: World, requests: int) -> None:
    """Send requests: some with a connection each, some aborted, most on persistent connections."""
    oneEach, brokenOff = requests // 10, requests // 100
    place, manifest = proxy.place, world.contents.manifest
    getOneEach(place, manifest, oneEach, min(_CLIENTS, oneEach))
    for _ in range(0, brokenOff, 10):
        abandon(place, world.contents.blob, 10)
    getKept(place, manifest, f"-c{_CLIENTS}", f"-n{requests - oneEach - brokenOff}")
