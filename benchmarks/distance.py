"""
Measures a proxy that is far away from the Hub, where the time depends on round trips.
"""

from __future__ import annotations

import http.client
import ssl
import time

from benchmarks.clients import TOKEN, CannotMeasure, Place, getBlobs
from benchmarks.scale import Scale
from benchmarks.servers import Proxy
from benchmarks.world import World

#: The number of layers that dockerd downloads in parallel.
_AT_ONCE = 3


def distance(proxy: Proxy, world: World, scale: Scale) -> dict[str, float]:
    """
    Measure a client's first three requests, and the layers of an image: after the start of the
    proxy (cold), and once more (warm).
    """
    proxy.restart()
    figures: dict[str, float] = {}
    for state in ("cold", "warm"):
        took = _ask(proxy.place, world)
        figures[f"150 ms away: ping, token and manifest, {state}, ms"] = 1000 * took
    for state in ("cold", "warm"):
        took = getBlobs(proxy.place, world.contents.layers, "1.1", _AT_ONCE).seconds
        figures[f"150 ms away: ten layers of {scale.layer} MiB, {state}, s"] = took
    return figures


def _ask(place: Place, world: World) -> float:
    """
    Send the requests for ping, token and manifest on one connection, as dockerd does.

    @return: the duration in seconds.
    @raise CannotMeasure: when a response has another status than expected.
    """
    name, value = TOKEN.split(": ")
    questions = [
        ("/v2/", {}, 401),
        ("/token?service=registry.docker.io&scope=repository:library/image:pull", {}, 200),
        (world.contents.manifest.target, {name: value}, 200),
    ]
    context = ssl.create_default_context(cafile=str(place.bundle))
    connection = http.client.HTTPSConnection(place.authority, context=context)
    began = time.monotonic()
    for target, fields, status in questions:
        connection.request("GET", target, headers=fields)
        response = connection.getresponse()
        response.read()
        if response.status != status:
            raise CannotMeasure(f"{response.status} for {target} at {place.url}")
    took = time.monotonic() - began
    connection.close()
    return took
