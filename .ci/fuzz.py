"""
Feeds what atheris makes up to everything that reads foreign bytes, for some seconds: as a client
and as an upstream of a whole mirror in memory, and to the parsers alone. Whatever is raised there,
or logged as a defect, is a finding.

    pip install -e '.[fuzz]'
    python .ci/fuzz.py -max_total_time=60
"""

import contextlib
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["hubmirror"]):
    from twisted.logger import LogLevel, globalLogPublisher
    from twisted.web.http_headers import Headers

    from hubmirror.page.languages import chooseLanguage
    from hubmirror.page.search import readFound
    from hubmirror.protocol.challenge import bearerParameters, onMirror
    from hubmirror.protocol.errors import MirrorError
    from hubmirror.protocol.forwarded import findClient
    from hubmirror.protocol.scopes import changeForm
    from hubmirror.protocol.target import readTarget
    from hubmirror.protocol.url import resolve, splitURL
    from tests.wire.support import MemoryCase

defects: list[str] = []


def noteDefect(event: dict) -> None:
    """A failure that the mirror has caught and logged is a finding, too."""
    if event.get("log_level") is LogLevel.critical:
        defects.append(str(event.get("log_failure")))


globalLogPublisher.addObserver(noteDefect)


def parsers(data: bytes) -> None:
    """The parsers, which may refuse, each with its own error."""
    headers = Headers()
    for name in (b"Forwarded", b"X-Forwarded-For"):
        headers.setRawHeaders(name, [data])
    findClient(None, headers, ())
    bearerParameters(data)
    onMirror(data, b"https://mirror.example/token", lambda name: name)
    changeForm(data, lambda name: name)
    chooseLanguage([], [data.decode("latin-1")])
    for parse in (readTarget, splitURL, lambda url: resolve(b"https://a.example/b", url)):
        with contextlib.suppress(ValueError, MirrorError):
            parse(data)
    with contextlib.suppress(ValueError):
        readFound(data, 1)


def client(data: bytes) -> None:
    """A client of a mirror in memory."""
    case = MemoryCase()
    case.setUp()
    line = case.connect()
    line.says(data)
    case.clock.advance(100)


def upstream(data: bytes) -> None:
    """An upstream of a mirror in memory."""
    case = MemoryCase()
    case.setUp()
    case.send(b"/v2/library/a/blobs/sha256:" + b"0" * 64)
    case.network.lines[-1].says(data)
    case.clock.advance(100)


READERS = (parsers, client, upstream)


def fuzz(data: bytes) -> None:
    """One input; its first byte chooses what reads it."""
    if data:
        READERS[data[0] % len(READERS)](data[1:])
    if defects:
        raise AssertionError(defects.pop())


atheris.Setup(sys.argv, fuzz)
atheris.Fuzz()
