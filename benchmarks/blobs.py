"""
Measures downloads of large blobs, with a redirect to the CDN.
"""

from __future__ import annotations

from contextlib import nullcontext

from benchmarks.clients import getBlobs
from benchmarks.neighbour import busyMemory
from benchmarks.scale import Scale
from benchmarks.servers import Proxy
from benchmarks.usage import MIB
from benchmarks.world import World


def blobs(
    proxy: Proxy, world: World, scale: Scale, http: str, atOnce: int, busy: bool = False
) -> dict[str, float]:
    """
    Download the blob, once or several times in parallel.

    @param http: C{1.1}, with a connection for each download, or C{2}, with a stream for each.
    @param atOnce: the number of parallel downloads.
    @param busy: whether another process copies memory meanwhile.
    """
    # Processes of the same program differ in their costs by up to a fifth, depending on where their
    # memory is, so that a median has to be one of several processes.
    proxy.restart()
    proxy.check([world.contents.manifest], http)
    blob = world.contents.blob
    usage = proxy.usage
    usage.resetPeak()
    with busyMemory() if busy else nullcontext():
        before = usage.cpu()
        # All downloads begin at the same time.
        each = getBlobs(proxy.place, [blob] * atOnce, http, atOnce).each
        cpu = usage.cpu() - before
    mebibytes = atOnce * blob.size / MIB
    title = f"{'blob' if atOnce == 1 else f'{atOnce} blobs at once'}, HTTP/{http}"
    if busy:
        title += ", busy memory"
    figures = {
        f"{title}: MiB/s": mebibytes / max(each),
        f"{title}: CPU s/GiB": cpu / mebibytes * 1024,
        f"{title}: peak RSS, MiB": usage.peak(),
    }
    if atOnce > 1:
        figures[f"{title}: slowest by fastest, %"] = 100 * min(each) / max(each)
    return figures
