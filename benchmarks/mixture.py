"""
The load of a busy mirror: a mixture of requests, which curl sends.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from benchmarks.clients import HOST, TOKEN, CannotMeasure
from benchmarks.contents import Contents
from benchmarks.watched import Doors

#: The number of requests that curl sends in parallel.
_AT_ONCE = 16
#: The time limit for each response, in seconds.
_TIMEOUT = 120
_CLOSE = 'header = "Connection: close"'


@dataclass(frozen=True)
class Question:
    """
    A kind of request in the mixture.

    @ivar name: its name in the figures.
    @ivar share: its share of all requests, in thousandths.
    @ivar target: the request target.
    @ivar status: the status of the correct response.
    @ivar size: the size of the correct response's body in bytes; C{None} for any.
    @ivar options: further options of curl, in the form of its configuration file.
    @ivar token: whether the request has a token.
    """

    name: str
    share: float
    target: str
    status: int
    size: int | None = None
    options: Sequence[str] = ()
    token: bool = True


def ask(doors: Doors, questions: Sequence[Question], how: str) -> tuple[Counter[str], Counter[str]]:
    """
    Send requests, some of them in parallel.

    @param how: one of C{crowd.WAYS}.
    @return: the number of correct responses of each kind, and of incorrect ones.
    @raise CannotMeasure: when curl does not report on all requests.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".curl") as file:
        file.write(
            "\nnext\n".join(
                "\n".join([*_options(doors, each, how), _answer(number)])
                for number, each in enumerate(questions)
            )
        )
        file.flush()
        command = ["curl", "--disable", "--parallel", "--parallel-max", str(_AT_ONCE)]
        command += ["--silent", "--config", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if len(lines) != len(questions):
        raise CannotMeasure(f"curl: {len(lines)} answers to {len(questions)} requests")
    return _judge(questions, (line.split() for line in lines))


def _options(doors: Doors, question: Question, how: str) -> Iterable[str]:
    scheme, port = ("http", doors.plain) if how == "plain" else ("https", doors.tls)
    yield f'url = "{scheme}://{HOST}:{port}{question.target}"'
    yield "http2" if how == "2" else "http1.1"
    yield f'cacert = "{doors.bundle}"'
    if question.token:
        yield f'header = "{TOKEN}"'
    yield 'output = "/dev/null"'
    yield f"max-time = {_TIMEOUT}"
    yield from question.options


def _answer(number: int) -> str:
    """The option by which curl reports a response, with its number because the order varies."""
    return rf'write-out = "{number} %{{http_code}} %{{size_download}} %{{exitcode}}\n"'


def _judge(
    questions: Sequence[Question], answers: Iterable[Sequence[str]]
) -> tuple[Counter[str], Counter[str]]:
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for number, status, size, code in answers:
        question = questions[int(number)]
        if int(status) == question.status and int(code) == 0 and question.size in (None, int(size)):
            right[question.name] += 1
        else:
            wrong[f"{question.name}: {status}, {size} bytes, curl {code}"] += 1
    return right, wrong


def mixture(contents: Contents) -> list[Question]:
    """Create the mixture, and the files for it that the contents lack."""
    manifest, layer, blob = contents.manifest, contents.layers[0], contents.blob
    folder = contents.folder
    small = os.urandom(20_000)
    name = sha256(small).hexdigest()
    (folder / "cdn" / name).write_bytes(small)
    smallTarget = blob.target.replace(blob.digest, name)
    (folder / "v1").mkdir()
    (folder / "v1" / "search").write_text('{"results":[]}')
    body = f'data-binary = "@{folder}/cdn/{name}"'
    unknown = manifest.target.replace("latest", "unknown")
    return [
        Question("manifests", 340, manifest.target, 200, manifest.size),
        Question("manifests, a connection each", 40, manifest.target, 200, manifest.size, [_CLOSE]),
        Question("HEAD of a manifest", 150, manifest.target, 200, 0, ["head"]),
        Question("tokens", 120, "/token?service=registry.docker.io", 200),
        Question("pings", 100, "/v2/", 401, token=False),
        Question("small blobs", 130, smallTarget, 200, len(small)),
        Question("layers of 8 MiB", 20, layer.target, 200, layer.size),
        Question("blobs of 1 GiB", 0.1, blob.target, 200, blob.size),
        Question("ranges", 40, blob.target, 206, 262_144, ['range = "1000000-1262143"']),
        Question("searches", 20, "/v1/search?q=image&n=25", 200),
        Question("unknown tags", 30, unknown, 404),
        Question("refused pushes", 10, manifest.target, 405, None, ["request = PUT", body]),
    ]
