"""
Check that a mirror leaks nothing after stalled readers, aborted pulls
and an hour's worth of mixed load, with TLS on both sides.

The figures go to standard output, followed by a line for each requirement. The status is 1 when one
is not met.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.clients import HOST, CannotMeasure, requirePrograms
from benchmarks.contents import Contents
from benchmarks.crowd import WAYS, Crowd
from benchmarks.faults import table
from benchmarks.mixture import Question, ask, mixture
from benchmarks.servers import Certificates
from benchmarks.upstream import Upstream
from benchmarks.usage import settled
from benchmarks.watched import Rest, Watched

_NAMES = {"1.1": "HTTP/1.1, TLS", "2": "HTTP/2, TLS", "plain": "HTTP/1.1, plain"}
_THREADS = 8
#: Requests in one call of curl.  For each hundred of them, one more request is aborted.
_BATCH = 500
#: The number of parts of the mixed load; the mirror is examined after each.
_PARTS = 10
#: How often the upstream's worker process is killed in each part.
_DEATHS = 3

#: The memory that a stalled reader may take, in MiB.
_STALLED = 0.5
# The growth from the first half of an act to its end that is allowed as noise: of the process's
# memory, in MiB and in percent, because a heap does not shrink; of the memory in use of malloc, in
# MiB; and of the blocks of Python's allocator, in total and for each request.
_MEMORY, _PERCENT = 8, 5
_ALLOCATED = 1.0
_BLOCKS, _BLOCKS_EACH = 1000, 0.01


@dataclass(frozen=True)
class Amount:
    """
    The sizes and numbers of a run.

    @ivar blob: the size of the large blob in MiB.
    @ivar waves: the number of waves of stalled readers, for each of L{WAYS}.
    @ivar stalled: the number of readers in a wave.
    @ivar aborted: the number of aborted pulls.
    @ivar requests: the number of requests of the mixed load; by default, 100 per second for an
        hour.
    """

    blob: int = 1024
    waves: int = 3
    stalled: int = 1000
    aborted: int = 10_000
    requests: int = 360_000


_QUICK = Amount(blob=64, waves=2, stalled=100, aborted=500, requests=10_000)


class Soak:
    """
    The three acts of a run, each with a mirror that was just started and warmed up.

    @param questions: the kinds of requests of the mixed load.
    @param seed: the seed of all random choices.
    """

    def __init__(
        self,
        mirror: Watched,
        upstream: Upstream,
        questions: Sequence[Question],
        amount: Amount,
        seed: int,
    ) -> None:
        self._mirror = mirror
        self._upstream = upstream
        self._questions = questions
        self._amount = amount
        self._choices = random.Random(seed)
        self._crowd = Crowd(mirror.doors, upstream.contents.blob.target)
        self._rows: list[tuple[str, ...]] = [("After ...", *Rest.TITLES)]
        self._verdicts: list[tuple[bool, str]] = []
        self._left: list[str] = []
        self._told = time.monotonic()

    def run(self) -> bool:
        """
        Perform the acts, and print the figures and requirements.

        @return: whether all requirements are met.
        """
        for how in WAYS:
            self._stalled(how)
        self._aborted()
        self._mixed()
        left = "; ".join(self._left) or "none"
        self._must(not self._left, f"files and timers more than after the warm-up: {left}")
        defects = self._mirror.defects()
        self._must(not defects, f"defects in the mirror's log: {defects}")
        print(table(self._rows), end="\n\n")
        for isSo, what in self._verdicts:
            print("ok    " if isSo else "FAILED", what)
        return all(isSo for isSo, _ in self._verdicts)

    # The acts

    def _stalled(self, how: str) -> None:
        amount = self._amount
        title = f"{amount.stalled} stalled readers, {_NAMES[how]}"
        start = self._start(title)
        held: list[float] = []
        rests: list[Rest] = []
        for number in range(amount.waves):
            held.append(self._wave(how, amount.stalled))
            rests.append(self._atRest(f"wave {number + 1} of {title}", start))
        each = (max(held) - start.memory) / amount.stalled
        self._must(each <= _STALLED, f"{title}: {each:.3f} MiB each, <= {_STALLED}")
        self._mustNotGrow(title, rests[0], rests[-1], amount.stalled * (amount.waves - 1))

    def _wave(self, how: str, count: int) -> float:
        """
        Let C{count} readers stall at the same time.

        @return: the memory of the mirror meanwhile, in MiB.
        """
        with ThreadPoolExecutor(_THREADS) as pool:
            readers = list(pool.map(self._crowd.stall, [how] * count))
        memory = settled(self._mirror.memory, 0.25)
        if self._mirror.files() < 2 * count:
            raise CannotMeasure("the mirror does not serve all the readers that stall")
        self._tell(f"{count} stalled readers, {_NAMES[how]}: {memory:.1f} MiB")
        for reader in readers:
            reader.reset()
        return memory

    def _aborted(self) -> None:
        half = self._amount.aborted // 2
        title = f"{half} aborted pulls"
        start = self._start(title)
        self._abort(half)
        first = self._atRest(title, start)
        self._abort(half)
        self._mustNotGrow(title, first, self._atRest(f"{title} more", start), half)

    def _abort(self, count: int) -> None:
        with ThreadPoolExecutor(_THREADS) as pool:
            for _ in pool.map(self._crowd.abort, self._seeds(count)):
                self._progress("aborted pulls")

    def _mixed(self) -> None:
        title = "mixed load"
        start = self._start(title)
        right: Counter[str] = Counter()
        wrong: Counter[str] = Counter()
        rests: list[Rest] = []
        part = self._amount.requests // _PARTS
        for number in range(_PARTS):
            self._load(part, right, wrong)
            rests.append(self._atRest(f"{part * (number + 1)} requests", start))
        half = _PARTS // 2
        self._mustNotGrow(title, rests[half - 1], rests[-1], part * (_PARTS - half))
        for name, count in (right + wrong).items():
            print(f"{count} {name}", flush=True)
        share = 100 * sum(wrong.values()) / (part * _PARTS)
        self._must(share < 0.1, f"{title}: {share:.3f} % of the answers were not right, < 0.1")

    def _load(self, count: int, right: Counter[str], wrong: Counter[str]) -> None:
        """
        Send requests of all kinds in all of L{WAYS}, while a few clients stall or abort, and the
        upstream's worker process is killed now and then.
        """
        batches = max(1, count // _BATCH)
        deaths = {batches * number // (_DEATHS + 1) for number in range(1, _DEATHS + 1)}
        seeds = self._seeds(batches)
        stalling = [self._crowd.stall(how) for how in WAYS]

        def batch(number: int) -> tuple[Counter[str], Counter[str]]:
            draw = random.Random(seeds[number])
            for _ in range(_BATCH // 100):
                self._crowd.abort(draw.random())
            if number in deaths:
                self._killUpstream()
            shares = [question.share for question in self._questions]
            questions = draw.choices(self._questions, shares, k=_BATCH)
            return ask(self._mirror.doors, questions, draw.choice(WAYS))

        with ThreadPoolExecutor(2) as pool:
            for answers, others in pool.map(batch, range(batches)):
                right += answers
                wrong += others
                self._progress(f"{sum(right.values())} right answers")
        for reader in stalling:
            reader.reset()

    def _killUpstream(self) -> None:
        """Kill nginx's only worker process, which its master replaces."""
        pid = self._upstream.server.pid
        for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)

    def _seeds(self, count: int) -> list[float]:
        """Random seeds, so that threads do not share a generator."""
        return [self._choices.random() for _ in range(count)]

    # Examinations

    def _start(self, title: str) -> Rest:
        """
        Start the mirror and warm it up with a little of everything.
        """
        self._mirror.start()
        for how in WAYS:
            self._wave(how, 10)
        self._abort(100)
        self._load(_BATCH, Counter(), Counter())
        rest = self._mirror.rest()
        self._note(f"the warm-up for {title}", rest)
        return rest

    def _atRest(self, what: str, start: Rest) -> Rest:
        rest = self._mirror.rest()
        self._note(what, rest)
        files = rest.files - start.files
        timers = dict(rest.timers - start.timers)
        if files > 0 or timers:
            self._left.append(f"after {what}: {files} files, {timers}")
        return rest

    def _note(self, what: str, rest: Rest) -> None:
        self._rows.append((what, *rest.cells()))
        self._tell(f"after {what}: {' '.join(rest.cells())}")

    def _mustNotGrow(self, title: str, before: Rest, after: Rest, requests: int) -> None:
        memory = after.memory - before.memory
        most = _MEMORY + before.memory * _PERCENT / 100
        self._must(memory <= most, f"{title}: {memory:+.1f} MiB, <= {most:.1f}")
        allocated = after.allocated - before.allocated
        self._must(
            allocated <= _ALLOCATED, f"{title}: {allocated:+.2f} MiB of malloc, <= {_ALLOCATED}"
        )
        blocks = after.blocks - before.blocks
        most = _BLOCKS + _BLOCKS_EACH * requests
        self._must(
            blocks <= most, f"{title}: {blocks:+} blocks in {requests} requests, <= {most:.0f}"
        )
        types = (after.types - before.types).most_common(5)
        self._tell(f"{title}: {', '.join(f'{name} {count:+}' for name, count in types)}")

    def _must(self, isSo: bool, what: str) -> None:
        self._verdicts.append((isSo, what))
        self._tell(("ok " if isSo else "FAILED ") + what)

    def _progress(self, what: str) -> None:
        """Print the progress, once a minute."""
        if time.monotonic() - self._told > 60:
            self._tell(f"{what}: {self._mirror.memory():.1f} MiB, {self._mirror.files()} files")

    def _tell(self, what: str) -> None:
        self._told = time.monotonic()
        print(time.strftime("%H:%M:%S"), what, file=sys.stderr, flush=True)


def main() -> int:
    """
    @return: the exit status.
    """
    options = _parse()
    amount = _QUICK if options.quick else Amount()
    chosen = {name: getattr(options, name) for name in ("stalled", "aborted", "requests")}
    amount = replace(amount, **{name: value for name, value in chosen.items() if value})
    # The mirror inherits the limit, and needs two descriptors for each reader.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        requirePrograms()
        with ExitStack() as stack:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="hubmirror-soak-"))
            folder = Path(name)
            certificates = Certificates.make(folder, HOST)
            contents = Contents(folder / "contents", amount.blob, 8)
            upstream = Upstream(folder / "upstream", HOST, certificates, contents)
            mirror = Watched(folder / "mirror", upstream.hub, certificates, options.options)
            upstream.server.start()
            stack.callback(upstream.server.stop)
            stack.callback(mirror.stop)
            soak = Soak(mirror, upstream, mixture(contents), amount, options.seed)
            return 0 if soak.run() else 1
    except (AssertionError, CannotMeasure) as problem:
        print(f"benchmarks.soak: {problem}", file=sys.stderr)
        return 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--stalled", type=int, help="readers in a wave; by default 1000")
    parser.add_argument("--aborted", type=int, help="pulls; by default 10000")
    parser.add_argument("--requests", type=int, help="of mixed load; by default 360000")
    parser.add_argument("--quick", action="store_true", help="little of everything: does it work?")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn by lot")
    parser.add_argument("options", nargs="*", help="after --, further options of hubmirror")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
