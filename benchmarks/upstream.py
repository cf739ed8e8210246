"""
The upstream of the proxies: an nginx that serves files, and its log of requests.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.contents import Contents
from benchmarks.servers import Certificates, Hub, nginx
from tests.integration.programs import eventually, freePort


class Upstream:
    """
    The upstream.

    @ivar contents: its contents.
    @ivar hub: its address.
    @ivar server: its program, which the caller has to start.
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
        """The present end of the log, for L{connections}."""
        return self._log.stat().st_size

    def connections(self, service: str, since: int, requests: int) -> int:
        """
        The number of connections on which requests to one of the services were received.

        @param since: the value of L{mark} before the requests.
        @param requests: the number of requests to wait for: nginx logs each when it has ended.
        @raise AssertionError: when there are fewer requests.
        """
        port = str(self.hub.ports[service])

        def seen() -> list[str]:
            lines = self._log.read_text()[since:].splitlines()
            return [line for line in lines if line.split()[0] == port]

        eventually(lambda: len(seen()) >= requests, f"{requests} requests to the {service}")
        return len(set(seen()))
