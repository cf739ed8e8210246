"""
Starts the proxies that are compared, and nginx as the upstream.
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
    """Whether a server accepts connections on a port."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def nginx(folder: Path, kind: str, port: int, workers: int, values: Mapping[str, object]) -> Server:
    """
    Create an nginx, without starting it.

    @param folder: a folder to create for it; the log is C{access.log} there.
    @param kind: the name of a configuration in C{benchmarks/nginx}.
    @param port: the port that it listens on, on 127.0.0.1.
    @param workers: the number of worker processes.
    @param values: the values for the configuration's placeholders.
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
    The certificate of all servers, and that of the CA, which all clients trust.

    @ivar server: the file with the key and certificate for C{hub.test} and the addresses, in PEM.
    @ivar bundle: the file with the CA's certificate, in PEM.
    """

    server: Path
    bundle: Path

    @classmethod
    def make(cls, folder: Path, *addresses: str) -> Certificates:
        """Create the certificates with a new CA, whose key is discarded."""
        made = cls(folder / "server.pem", folder / "ca.pem")
        authority = Authority()
        made.bundle.write_bytes(authority.pem)
        made.server.write_bytes(authority.serverPEM(["hub.test", *addresses]))
        return made


@dataclass(frozen=True)
class Hub:
    """
    The address of the upstream.

    @ivar host: its IP address.
    @ivar ports: the ports of its services C{registry}, C{auth} and C{cdn}.
    """

    host: str
    ports: Mapping[str, int]


class Proxy:
    """
    One of the proxies that are compared.

    @ivar name: its name in the table.
    @ivar place: its address.
    """

    def __init__(self, name: str, server: Server, place: Place) -> None:
        self.name = name
        self.place = place
        self._server = server

    @property
    def usage(self) -> Usage:
        """The resources that its processes use."""
        return Usage(self._server.pid)

    def start(self) -> None:
        """
        Start the program.

        @raise AssertionError: when it ends, or is not ready in time.
        """
        self._server.start()

    def stop(self) -> None:
        """Stop the program, and wait until it has ended."""
        self._server.stop()

    def restart(self) -> None:
        """Restart the program, so that it has no idle connections and no memory from before."""
        self.stop()
        self.start()

    def check(self, items: Sequence[Item], http: str) -> None:
        """
        Check that the proxy serves items unchanged.

        @raise CannotMeasure: when the digest of an item is wrong.
        """
        for item in items:
            if digest(self.place, item, http) != item.digest:
                raise CannotMeasure(f"{self.name} changed the bytes of {item.target}")


def behind(hub: Hub, certificates: Certificates) -> list[str]:
    """
    The options of hubmirror with this upstream.
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
    Create a mirror that runs under C{twistd}, without starting it.

    @param options: further options.
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
    Create an nginx that is a proxy, without starting it.

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
