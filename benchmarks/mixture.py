"""
An hour of a busy mirror: a mixture of requests, made by curl.
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

#: Answers that curl waits for at once.
_AT_ONCE = 16
#: Seconds for each answer.
_CLOSE_TIMEOUT = 120
_CLOSE = 'header = "Connection: close"'


@dataclass(frozen=True)
class Question:
    """
    One kind of request in the mixture.

    @ivar name: what the figures call it.
    @ivar share: of all requests, in thousandths.
    @ivar target: of the request.
    @ivar status: that the right answer has.
    @ivar size: of its body; C{None} for any.
    @ivar options: further ones of curl, as in its configuration file.
    @ivar token: whether it comes with one.
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
    Ask many things, some at once.

    @param how: one of C{crowd.WAYS}.
    @return: how many there were of each kind of answer that is right, and of each that is not.
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
    yield f"max-time = {_CLOSE_TIMEOUT}"
    yield from question.options


def _answer(number: int) -> str:
    """What curl is to say of an answer; they overtake each other."""
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
    """What is asked of a busy mirror, and how often."""
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
