"""
Measure, and print one table. The progress goes to standard error.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from benchmarks.blobs import blobs
from benchmarks.clients import CannotMeasure, requirePrograms
from benchmarks.distance import distance
from benchmarks.manifests import kept, oneEach
from benchmarks.pool import pool
from benchmarks.readers import beside, slow, stalled
from benchmarks.scale import QUICK, Scale
from benchmarks.servers import Proxy
from benchmarks.table import Table
from benchmarks.world import World

#: Measures one proxy once, and returns the figures by the titles of their rows.
Measure = Callable[[Proxy, World, Scale], dict[str, float]]

SECTIONS: dict[str, list[Measure]] = {
    "blob": [
        partial(blobs, http=http, atOnce=atOnce) for atOnce in (1, 4) for http in ("1.1", "2")
    ],
    "busy": [partial(blobs, http="1.1", atOnce=1, busy=True)],
    "manifest": [kept, oneEach],
    "readers": [slow, beside],
    "stalled": [partial(stalled, http="1.1"), partial(stalled, http="2")],
    "distance": [distance],
    "pool": [pool],
}


def main() -> int:
    """
    @return: the exit status.
    """
    options = _parse()
    scale = QUICK if options.quick else Scale()
    scale = replace(scale, blob=options.size or scale.blob)
    rounds = options.rounds or (1 if options.quick else 3)
    try:
        requirePrograms()
        with (
            tempfile.TemporaryDirectory(prefix="hubmirror-benchmark-") as folder,
            closing(World(Path(folder), scale, options.workers, options.options)) as world,
        ):
            table = _measure(world, scale, options.only, rounds)
    except (AssertionError, CannotMeasure) as problem:
        print(f"benchmarks: {problem}", file=sys.stderr)
        return 1
    print(_circumstances(rounds), table, sep="\n\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_sections,
        default=list(SECTIONS),
        metavar="SECTION,...",
        help=f"of {', '.join(SECTIONS)}; by default all",
    )
    parser.add_argument("--rounds", type=int, help="of each measurement; by default 3")
    parser.add_argument("--size", type=int, metavar="MIB", help="of the blob; by default 1024")
    parser.add_argument("--quick", action="store_true", help="little of everything: does it work?")
    parser.add_argument("--workers", type=int, default=1, help="processes of each proxy")
    parser.add_argument("options", nargs="*", help="after --, further options of hubmirror")
    return parser.parse_args()


def _sections(value: str) -> list[str]:
    sections = value.split(",")
    if unknown := set(sections) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"no such section: {', '.join(sorted(unknown))}")
    return sections


def _measure(world: World, scale: Scale, sections: Sequence[str], rounds: int) -> Table:
    table = Table()
    for section in sections:
        proxies = world.far if section == "distance" else world.near
        for measure in SECTIONS[section]:
            for number in range(rounds):
                for proxy in proxies:
                    figures = measure(proxy, world, scale)
                    table.add(proxy.name, figures)
                    _tell(f"round {number + 1}, {proxy.name}", figures)
    return table


def _tell(what: str, figures: dict[str, float]) -> None:
    text = "; ".join(f"{row} {value:.4g}" for row, value in figures.items())
    print(f"{time.strftime('%H:%M:%S')} {what}: {text}", file=sys.stderr, flush=True)


def _circumstances(rounds: int) -> str:
    """Describe the machine, the versions and the options, in one paragraph."""
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    nginx = subprocess.run(["nginx", "-V"], capture_output=True, text=True, check=True).stderr
    parts = [
        time.strftime("%Y-%m-%d"),
        f"{os.cpu_count()} cores of {processor[1] if processor else platform.machine()}",
        f"Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"Twisted {version('twisted')}",
        backend.openssl_version_text(),
        ", ".join(re.findall(r"nginx/[\d.]+|OpenSSL [\d.]+", nginx)),
        f"medians of {rounds} rounds" if rounds > 1 else "one round",
    ]
    return "; ".join(parts) + ". Called with: " + (" ".join(sys.argv[1:]) or "no options") + "."


if __name__ == "__main__":
    sys.exit(main())
