"""
Runs hubmirror as its users do: C{twistd -n hubmirror}.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import PLAIN
from tests.integration.ca import CertificateAuthority
from tests.integration.programs import Server, freePort, listens, pythonProgram, withHosts


@dataclass(frozen=True)
class Answer:
    """A whole HTTP response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Mirror:
    """
    A mirror of the stand-in Hub, which listens with TLS and without.

    @ivar address: C{HOST:PORT} of its TLS port.
    @ivar server: its process.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        hosts: Path,
        authority: CertificateAuthority,
        options: Sequence[str],
        *,
        registries: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """
        @param registries: the settings of further registries in the configuration file, by name.
        """
        folder.mkdir()
        further = registries or {}
        names = [host for settings in further.values() for host in settings.get("hosts", ())]
        shutil.copy(authority.server(name, "127.0.0.1", *names), folder / "server.pem")
        configuration = []
        if further:
            path = folder / "hubmirror.toml"
            path.write_text("".join(map(_table, further, further.values())))
            configuration = [f"--config={path}"]
        self._bundle = authority.bundle
        self.port, self.plainPort = freePort(), freePort()
        self.address = f"{name}:{self.port}"
        ports = [
            f"--port=ssl:{self.port}:interface=127.0.0.1",
            f"--port=tcp:{self.plainPort}:interface=127.0.0.1",
        ]
        tls = [f"--ca-file={authority.bundle}", *(["--plain-transport"] if PLAIN else [])]
        self.server = Server(
            "twistd",
            withHosts(hosts, [*TWISTD, *configuration, *ports, *tls, *options]),
            folder,
            ready=lambda: listens(self.port) and listens(self.plainPort),
        )

    def connect(self) -> http.client.HTTPSConnection:
        """Connect to its TLS port."""
        context = ssl.create_default_context(cafile=str(self._bundle))
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)

    def ask(
        self, target: str, fields: Mapping[str, str] | None = None, method: str = "GET"
    ) -> Answer:
        """Send a request on a new connection."""
        connection = self.connect()
        try:
            return ask(connection, target, fields, method)
        finally:
            connection.close()


#: The command in the README.
TWISTD = (pythonProgram("twistd"), "-n", "hubmirror")


def ask(
    connection: http.client.HTTPConnection,
    target: str,
    fields: Mapping[str, str] | None = None,
    method: str = "GET",
) -> Answer:
    """Send a request on a connection that stays open."""
    connection.request(method, target, headers=dict(fields or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def _table(registry: str, settings: Mapping[str, Any]) -> str:
    """
    A registry's table in the configuration file.  The texts and arrays of TOML are the same as in
    JSON.
    """
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    return f'[registry."{registry}"]\n{"".join(lines)}'
