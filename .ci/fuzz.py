"""
Feeds what atheris makes up to everything that reads foreign bytes (tests/fuzzing.py), for some
seconds: as a client and as an upstream of a whole mirror in memory, and to the parsers alone.
Whatever is raised there, or logged as a defect, is a finding.

    pip install -e '.[fuzz]'
    python .ci/fuzz.py -max_total_time=60
"""

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["hubmirror"]):
    from twisted.logger import LogLevel, globalLogPublisher

    from tests.fuzzing import READERS

defects: list[str] = []


def noteDefect(event: dict) -> None:
    """A failure that the mirror has caught and logged is a finding, too."""
    if event.get("log_level") is LogLevel.critical:
        defects.append(str(event.get("log_failure")))


globalLogPublisher.addObserver(noteDefect)


def fuzz(data: bytes) -> None:
    """One input; its first byte chooses what reads it."""
    if data:
        READERS[data[0] % len(READERS)](data[1:])
    if defects:
        raise AssertionError(defects.pop())


atheris.Setup(sys.argv, fuzz)
atheris.Fuzz()
