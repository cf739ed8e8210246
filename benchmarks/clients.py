"""
The clients of a proxy: curl for blobs, h2load and ab for manifests.

They are written in C, so that the proxy is the bottleneck.  Each function checks that all responses
are complete and have status 200; L{digest} checks the content once.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contents import Item

HOST = "127.0.0.1"
TOKEN = "Authorization: Bearer benchmark"

_PACKAGES = {
    "ab": "apache2-utils",
    "curl": "curl",
    "h2load": "nghttp2-client",
    "nginx": "nginx-light",
    "setpriv": "util-linux",
}


class CannotMeasure(Exception):
    """A program is missing, or did not behave as the measurement requires. The text is one line."""


def requirePrograms() -> None:
    """
    @raise CannotMeasure: when a program is not installed.
    """
    missing = sorted(_PACKAGES[name] for name in _PACKAGES if shutil.which(name) is None)
    if missing:
        raise CannotMeasure(f"programs are missing; apt-get install {' '.join(missing)}")


@dataclass(frozen=True)
class Place:
    """
    The address of a proxy.

    @ivar port: the port on loopback.
    @ivar bundle: the file with the CA certificate, in PEM.
    """

    port: int
    bundle: Path

    @property
    def authority(self) -> str:
        """The authority, C{HOST:PORT}."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"https://{self.authority}"


def digest(place: Place, item: Item, http: str) -> str:
    """
    Download an item from a proxy.

    @param http: C{1.1} or C{2}.
    @return: the SHA-256 of the body, in hexadecimal.
    @raise CannotMeasure: when curl fails.
    """
    command = [*_curl(place, http), place.url + item.target]
    found = hashlib.sha256()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 20):
            found.update(piece)
    if process.returncode:
        raise CannotMeasure(f"curl: status {process.returncode} for {item.target} at {place.url}")
    return found.hexdigest()


@dataclass(frozen=True)
class Transfers:
    """
    The durations of several downloads.

    @ivar seconds: the total in seconds, including the start of curl.
    @ivar each: the duration of each download, in seconds.
    """

    seconds: float
    each: list[float]


def getBlobs(place: Place, items: Sequence[Item], http: str, atOnce: int) -> Transfers:
    """
    Download blobs: each over a connection of its own with HTTP/1.1, all over one with HTTP/2.

    @param http: C{1.1} or C{2}.
    @param atOnce: the number of parallel downloads.
    @raise CannotMeasure: when a response has another status, version or size than expected.
    """
    command = _blobs(place, items, http, atOnce)
    began = time.monotonic()
    output = _run(command)
    seconds = time.monotonic() - began
    answers = [line.split() for line in output.splitlines()]
    wanted = sorted(["200", http, str(item.size)] for item in items)
    if sorted(answer[:3] for answer in answers) != wanted:
        raise CannotMeasure(f"not what was asked for over HTTP/{http} at {place.url}: {answers}")
    if http == "2" and sum(int(answer[3]) for answer in answers) != 1:
        raise CannotMeasure(f"curl opened more than one HTTP/2 connection: {answers}")
    return Transfers(seconds, [float(answer[4]) for answer in answers])


def startBlobs(place: Place, item: Item, atOnce: int) -> subprocess.Popen[bytes]:
    """Start a curl that downloads a blob repeatedly and in parallel, until it is terminated."""
    return subprocess.Popen(
        _blobs(place, [item] * 500, "1.1", atOnce),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _blobs(place: Place, items: Sequence[Item], http: str, atOnce: int) -> list[str]:
    form = "%{http_code} %{http_version} %{size_download} %{num_connects} %{time_total}\\n"
    command = _curl(place, http)
    command += ["--parallel", "--parallel-max", str(atOnce), "--write-out", form]
    for item in items:
        command += ["--output", "/dev/null", place.url + item.target]
    return command


def _curl(place: Place, http: str) -> list[str]:
    return [
        *("curl", "--silent", "--show-error", "--fail", f"--http{http}"),
        *("--cacert", str(place.bundle), "--header", TOKEN),
    ]


@dataclass(frozen=True)
class Requests:
    """
    The rate and durations of many small requests.

    @ivar rate: requests per second.
    @ivar p50: the median of the durations, in seconds.
    @ivar p99: the 99th percentile of the durations, in seconds.
    """

    rate: float
    p50: float
    p99: float


def getKept(place: Place, item: Item, *load: str) -> Requests:
    """
    Request an item repeatedly on persistent connections, over HTTP/1.1.

    @param load: options of h2load that set the number of clients and requests.
    @raise CannotMeasure: when a response has another status than 200.
    """
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["h2load", "--h1", *load, f"--log-file={log.name}", "-H", TOKEN]
        _run([*command, place.url + item.target])
        rows = [tuple(map(int, row[:3])) for row in csv.reader(log, delimiter="\t")]
    if not rows or {status for _, status, _ in rows} != {200}:
        raise CannotMeasure(f"h2load: not every answer of {place.url} was a 200")
    took = sorted(microseconds / 1e6 for _, _, microseconds in rows)
    began = min(start for start, _, _ in rows) / 1e6
    ended = max(start + microseconds for start, _, microseconds in rows) / 1e6
    return Requests(len(rows) / (ended - began), took[len(took) // 2], took[len(took) * 99 // 100])


def getOneEach(place: Place, item: Item, requests: int, atOnce: int) -> Requests:
    """
    Request an item repeatedly, with a connection and a TLS handshake for each request.

    @param requests: the number of requests.
    @param atOnce: the number of parallel requests.
    @raise CannotMeasure: when a response has another status than 200.
    """
    with tempfile.NamedTemporaryFile("r") as percentiles:
        command = ["ab", "-q", f"-n{requests}", f"-c{atOnce}", "-e", percentiles.name, "-H", TOKEN]
        output = _run([*command, place.url + item.target])
        took = [float(row[1]) / 1000 for row in list(csv.reader(percentiles))[1:]]
    lines = dict(line.split(":", 1) for line in output.splitlines() if ":" in line)
    if int(lines["Failed requests"]) or "Non-2xx responses" in lines:
        raise CannotMeasure(f"ab: not every answer of {place.url} was a 200")
    return Requests(float(lines["Requests per second"].split()[0]), took[50], took[99])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise CannotMeasure(f"{command[0]}: status {done.returncode}: {' '.join(said)}")
    return done.stdout
