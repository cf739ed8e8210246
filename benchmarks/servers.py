"""
The programs that are compared, and how they are started.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.clients import HOST, CannotMeasure, Place, digest
from benchmarks.contents import Item
from benchmarks.usage import Usage
from hubmirror.testing.ca import Authority
from tests.integration.programs import Server, freePort, pythonProgram

_TEMPLATES = Path(__file__).parent / "nginx"
_SCRATCH = " ".join(
    f"{module}_temp_path {module};"
    for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


def listens(host: str, port: int) -> bool:
    """Does somebody accept connections there?"""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def nginx(folder: Path, kind: str, port: int, workers: int, values: Mapping[str, object]) -> Server:
    """
    An nginx, not started yet.

    @param folder: made for it; its log is C{access.log} there.
    @param kind: which of the configurations beside this module.
    @param port: of 127.0.0.1, where it listens.
    @param values: what the configuration leaves open.
    """
    folder.mkdir()
    configuration = folder / "nginx.conf"
    template = (_TEMPLATES / f"{kind}.conf").read_text()
    configuration.write_text(template % {"port": port, "scratch": _SCRATCH, **values})
    directives = f"daemon off; pid nginx.pid; worker_processes {workers};"
    if os.geteuid() == 0:  # else its workers could not read the folder
        directives += " user root;"
    command = ["nginx", "-p", str(folder), "-e", "error.log", "-g", directives]
    command += ["-c", str(configuration)]
    return Server("nginx", command, folder, ready=lambda: listens(HOST, port))


@dataclass(frozen=True)
class Certificates:
    """
    What every server shows, and every client trusts.

    @ivar server: key and certificate for C{hub.test} and the addresses of loopback, PEM.
    @ivar bundle: the CA's certificate, PEM.
    """

    server: Path
    bundle: Path

    @classmethod
    def make(cls, folder: Path, *addresses: str) -> Certificates:
        """From an authority that is forgotten at once."""
        made = cls(folder / "server.pem", folder / "ca.pem")
        authority = Authority()
        made.bundle.write_bytes(authority.pem)
        made.server.write_bytes(authority.serverPEM(["hub.test", *addresses]))
        return made


@dataclass(frozen=True)
class Hub:
    """
    Where the upstream is reached.

    @ivar host: its address.
    @ivar ports: those of its C{registry}, C{auth} and C{cdn}.
    """

    host: str
    ports: Mapping[str, int]


class Proxy:
    """
    One of those that are compared.

    @ivar name: what the table calls it.
    @ivar place: where clients reach it.
    """

    def __init__(self, name: str, server: Server, place: Place) -> None:
        self.name = name
        self.place = place
        self._server = server

    @property
    def usage(self) -> Usage:
        """What its processes use since it last started."""
        return Usage(self._server.pid)

    def start(self) -> None:
        """
        @raise AssertionError: it ended, or was not ready in time.
        """
        self._server.start()

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        self._server.stop()

    def restart(self) -> None:
        """Begin anew, without kept connections or memory that was needed once."""
        self.stop()
        self.start()

    def check(self, items: Sequence[Item], http: str) -> None:
        """
        @raise CannotMeasure: what it gives is not what the upstream has.
        """
        for item in items:
            if digest(self.place, item, http) != item.digest:
                raise CannotMeasure(f"{self.name} changed the bytes of {item.target}")


def behind(hub: Hub, certificates: Certificates) -> list[str]:
    """
    The options of a mirror of this hub.
    """
    origins = {service: f"https://{hub.host}:{port}" for service, port in hub.ports.items()}
    return [
        f"--registry-url={origins['registry']}",
        f"--auth-url={origins['auth']}/token",
        f"--allow-redirects-to={origins['cdn']}",
        f"--ca-file={certificates.bundle}",
    ]


def hubmirror(
    folder: Path, hub: Hub, certificates: Certificates, workers: int, options: Sequence[str]
) -> Proxy:
    """
    The mirror, as C{twistd} starts it.

    @param options: beyond those that it needs here.
    """
    folder.mkdir()
    shutil.copy(certificates.server, folder)
    port = freePort()
    command = [
        *(pythonProgram("twistd"), "-n", "hubmirror"),
        f"--port=ssl:{port}:interface={HOST}",
        *behind(hub, certificates),
        *([f"--workers={workers}"] if workers > 1 else []),
        *options,
    ]
    server = Server("twistd", command, folder, ready=lambda: listens(HOST, port))
    return Proxy("hubmirror", server, Place(port, certificates.bundle))


def nginxProxy(
    folder: Path, kind: str, hub: Hub, certificates: Certificates, workers: int
) -> Proxy:
    """
    @param kind: C{naive} or C{tuned}.
    """
    port = freePort()
    values = {
        "hub": hub.host,
        "certificate": certificates.server,
        "bundle": certificates.bundle,
        **hub.ports,
    }
    server = nginx(folder, kind, port, workers, values)
    return Proxy(f"{kind} nginx", server, Place(port, certificates.bundle))
