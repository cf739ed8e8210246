"""
The Hub that is mirrored: an nginx with files, and what it has seen.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contents import Contents
from benchmarks.servers import Certificates, Hub, nginx
from tests.integration.programs import eventually, freePort


class Upstream:
    """
    @ivar contents: what it has.
    @ivar hub: where it is reached.
    @ivar server: its process, not started yet.
    """

    def __init__(
        self, folder: Path, host: str, certificates: Certificates, contents: Contents
    ) -> None:
        self.contents = contents
        self.hub = Hub(host, {service: freePort() for service in ("registry", "auth", "cdn")})
        values = {
            "certificate": certificates.server,
            "contents": contents.folder,
            **self.hub.ports,
        }
        self.server = nginx(folder, "upstream", self.hub.ports["cdn"], 1, values)
        self._log = folder / "access.log"

    def mark(self) -> int:
        """The present end of what it has seen, for L{connections}."""
        return self._log.stat().st_size

    def connections(self, service: str, since: int, requests: int) -> int:
        """
        On how many connections one of its services was asked.

        @param since: what L{mark} gave before.
        @param requests: how many there were: each is told of when it has ended.
        @raise AssertionError: there were fewer.
        """
        port = str(self.hub.ports[service])

        def seen() -> list[str]:
            lines = self._log.read_text()[since:].splitlines()
            return [line for line in lines if line.split()[0] == port]

        eventually(lambda: len(seen()) >= requests, f"{requests} requests to the {service}")
        return len(set(seen()))
