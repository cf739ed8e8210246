"""
Measure what the admin port costs: CPU of a manifest with and without it, and the time of a scrape.
What is measured meanwhile goes to standard error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.clients import HOST, CannotMeasure, requirePrograms
from benchmarks.manifests import kept
from benchmarks.scale import Scale
from benchmarks.servers import Proxy, hubmirror
from benchmarks.world import World
from tests.integration.programs import freePort

_SCRAPES = 100


def main() -> int:
    """
    @return: the exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admin", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="of both mirrors; by default 15")
    parser.add_argument("--requests", type=int, default=5000, help="in a round; by default 5000")
    parser.add_argument("--workers", type=int, default=1, help="processes of each mirror")
    options = parser.parse_args()
    try:
        requirePrograms()
        with tempfile.TemporaryDirectory(prefix="hubmirror-benchmark-") as folder:
            _measure(Path(folder), options.rounds, options.requests, options.workers)
    except (AssertionError, CannotMeasure) as problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    return 0


def _measure(folder: Path, rounds: int, requests: int, workers: int) -> None:
    scale = Scale(blob=1, layer=1, requests=requests)
    port = freePort()
    with ExitStack() as running:
        world = running.enter_context(closing(World(folder, scale, workers, [])))

        def start(name: str, *options: str) -> Proxy:
            proxy = hubmirror(
                folder / name, world.upstream.hub, world.certificates, workers, options
            )
            proxy.start()
            running.callback(proxy.stop)
            return proxy

        without = start("without")
        withAdmin = start("with", f"--admin-port=tcp:{port}:interface={HOST}")
        pairs = []
        for number in range(rounds + 1):
            # Which comes first changes, since the second finds warmer caches.
            order = (without, withAdmin) if number % 2 else (withAdmin, without)
            found = {proxy: kept(proxy, world, scale)["manifest, kept: CPU ms"] for proxy in order}
            text = f"round {number}: {found[without]:.4f} ms, with {found[withAdmin]:.4f} ms"
            print(text, file=sys.stderr, flush=True)
            # The first round only warms up.
            pairs += [(found[without], found[withAdmin])] if number else []
        print(f"CPU of a manifest without admin port: {median(a for a, _ in pairs):.4f} ms")
        print(f"CPU of a manifest with admin port: {median(b for _, b in pairs):.4f} ms")
        print(f"median ratio: {median(b / a for a, b in pairs):.3f}")
        took = sorted(_scrape(port) for _ in range(_SCRAPES))
        print(f"scrape: median {took[_SCRAPES // 2]:.2f} ms, at most {took[-1]:.2f} ms")


def _scrape(port: int) -> float:
    """
    The time of one scrape, with its connection, in milliseconds.
    """
    began = time.monotonic()
    connection = HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        if response.status != 200 or b"hubmirror_requests_total{" not in response.read():
            raise CannotMeasure("the admin port shows no metrics")
    finally:
        connection.close()
    return 1000 * (time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
