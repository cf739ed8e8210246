"""
The sizes and numbers of the measurements.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """
    The sizes and numbers of the measurements.  The table in the documentation was made with the
    defaults.

    @ivar blob: the size of the large blob in MiB.
    @ivar layer: the size of each of the image's ten layers in MiB.
    @ivar requests: the number of requests for a manifest on persistent connections, and of requests
        after which no connection may be left open.
    @ivar connects: the number of requests for a manifest with a connection each.
    @ivar slow: the number of readers at 64 KiB/s.
    @ivar seconds: how long the requests for a manifest beside other readers are measured.
    @ivar waves: the number of waves of stalled readers.
    @ivar stalled: the number of readers in a wave.
    """

    blob: int = 1024
    layer: int = 8
    requests: int = 10_000
    connects: int = 2_000
    slow: int = 200
    seconds: int = 10
    waves: int = 5
    stalled: int = 50


#: A small scale, to see that the measurements work.
QUICK = Scale(
    blob=64, layer=1, requests=1_000, connects=200, slow=50, seconds=3, waves=2, stalled=10
)
