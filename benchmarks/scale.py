"""
How much of everything is measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """
    The defaults are what the table in the documentation was made with.

    @ivar blob: MiB of the big blob.
    @ivar layer: MiB of each of the image's ten layers.
    @ivar requests: manifests on kept connections, and requests after which none may be left.
    @ivar connects: manifests with a connection each.
    @ivar slow: readers at 64 KiB/s.
    @ivar seconds: for how long they read.
    @ivar waves: of readers that stall.
    @ivar stalled: readers in a wave.
    """

    blob: int = 1024
    layer: int = 8
    requests: int = 10_000
    connects: int = 2_000
    slow: int = 200
    seconds: int = 10
    waves: int = 5
    stalled: int = 50


#: Enough to see that it works.
QUICK = Scale(
    blob=64, layer=1, requests=1_000, connects=200, slow=50, seconds=3, waves=2, stalled=10
)
