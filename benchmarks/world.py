"""
The upstream and all proxies, on loopback and in one folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from benchmarks.contents import Contents
from benchmarks.scale import Scale
from benchmarks.servers import Certificates, Hub, Proxy, hubmirror, listens, nginxProxy
from benchmarks.upstream import Upstream
from tests.integration.programs import Server

#: The addresses of the upstream and of the relay to it.  The ports are the same.
_NEAR, _FAR = "127.0.0.1", "127.0.0.2"
#: The delay of the relay in each direction, in seconds.
_DELAY = 0.075


class World:
    """
    An upstream, which is started by the constructor, and its proxies, which are started when they
    are first used.

    @param folder: the folder for all files.
    @param workers: the number of each proxy's processes.
    @param options: further options of hubmirror.
    @ivar certificates: those of all servers.
    """

    def __init__(self, folder: Path, scale: Scale, workers: int, options: Sequence[str]) -> None:
        self._folder = folder
        self._workers = workers
        self._options = options
        self._running: list[Server | Proxy] = []
        self.certificates = Certificates.make(folder, _NEAR, _FAR)
        self.contents = Contents(folder / "contents", scale.blob, scale.layer)
        self.upstream = Upstream(folder / "upstream", _NEAR, self.certificates, self.contents)
        self._start(self.upstream.server)

    def close(self) -> None:
        """Stop all programs."""
        for program in reversed(self._running):
            program.stop()

    @cached_property
    def near(self) -> list[Proxy]:
        """
        The proxies near the upstream; hubmirror is the first.

        @raise CannotMeasure: when a proxy changes the bytes.
        """
        proxies = self._proxies(self.upstream.hub)
        for proxy in proxies:
            proxy.check([self.contents.manifest, self.contents.blob], "1.1")
            proxy.check([self.contents.manifest, self.contents.blob], "2")
        return proxies

    @cached_property
    def far(self) -> list[Proxy]:
        """
        Proxies like L{near}, with the relay between them and the upstream.

        @raise CannotMeasure: when a proxy changes the bytes.
        """
        ports = self.upstream.hub.ports
        folder = self._folder / "relay"
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.relay", str(_DELAY), _FAR, _NEAR]
        command += map(str, ports.values())
        last = list(ports.values())[-1]
        self._start(Server("relay", command, folder, ready=lambda: listens(_FAR, last)))
        proxies = self._proxies(Hub(_FAR, ports))
        for proxy in proxies:
            proxy.check([self.contents.manifest, *self.contents.layers], "1.1")
        return proxies

    def _proxies(self, hub: Hub) -> list[Proxy]:
        def folder(name: str) -> Path:
            return self._folder / f"{name}-{hub.host}"

        common = (hub, self.certificates)
        proxies = [
            hubmirror(folder("hubmirror"), *common, self._workers, self._options),
            nginxProxy(folder("naive"), "naive", *common, self._workers),
            nginxProxy(folder("tuned"), "tuned", *common, self._workers),
        ]
        for proxy in proxies:
            self._start(proxy)
        return proxies

    def _start(self, program: Server | Proxy) -> None:
        program.start()
        self._running.append(program)
