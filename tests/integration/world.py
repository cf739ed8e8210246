"""
All programs together, which are started when a test first needs them and stopped when the process
ends: the stand-in Hub, two mirrors of it, one of which is the fallback of the other, and the
clients of the first.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.ca import CertificateAuthority
from tests.integration.clients import Containerd, Dockerd, Podman, Skopeo, Surroundings
from tests.integration.hub import Hub
from tests.integration.mirror import Mirror
from tests.integration.nginx import Log
from tests.integration.programs import require
from tests.integration.registries import MIRRORS, REGISTRIES


class World:
    """
    All programs.

    @ivar folder: the folder of all files, which is removed at the end.
    @ivar hubHosts: the C{/etc/hosts} with the names of the Hub.
    @ivar mirror: the mirror under test, whose upstreams are C{hub.front} and then the fallback.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hubmirror-integration-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.authority = CertificateAuthority(self.folder)
        self.hub = Hub(self.folder, self.authority)
        self.hubHosts = self.hostsFile("hub", f"{self.hub.hosts}127.0.0.1 fallback.test\n")
        self.fallback = self.makeMirror("fallback.test", self.hubHosts, self.hub.backdoorUrl)
        self.mirror = self.makeMirror(
            "mirror.test",
            self.hubHosts,
            self.hub.registryUrl,
            f"--fallback=https://{self.fallback.address}",
        )
        self.clientHosts = self.hostsFile(
            "clients",
            f"127.0.0.1 mirror.test {' '.join(MIRRORS)}\n127.255.255.254 {' '.join(REGISTRIES)}\n",
        )
        self._surroundings = Surroundings(
            self.clientHosts, self.authority.bundle, self.mirror.address
        )

    def start(self) -> None:
        self.hub.start()
        self.fallback.server.start()
        self.mirror.server.start()

    def hostsFile(self, name: str, lines: str) -> Path:
        """
        Write an C{/etc/hosts}. The names of the real Hub have an address where nothing listens, so
        that the tests neither depend on a network nor reach it.
        """
        path = self.folder / f"{name}.hosts"
        path.write_text(
            "127.0.0.1 localhost\n"
            "127.255.255.254 registry-1.docker.io auth.docker.io index.docker.io docker.io\n"
            f"{lines}"
        )
        return path

    def makeMirror(
        self,
        name: str,
        hosts: Path,
        registryUrl: str,
        *options: str,
        registries: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Mirror:
        hub = self.hub
        return Mirror(
            self.folder / name,
            name,
            hosts,
            self.authority,
            [
                f"--registry-url={registryUrl}",
                f"--auth-url={hub.tokenUrl}",
                f"--search-url={hub.searchUrl}",
                f"--allow-redirects-to={hub.cdnUrl}",
                *options,
            ],
            registries=registries,
        )

    @cached_property
    def dockerd(self) -> Dockerd:
        dockerd = Dockerd(self.folder / "dockerd", self._surroundings)
        dockerd.server.start()
        return dockerd

    @cached_property
    def containerd(self) -> Containerd:
        containerd = Containerd(self.folder / "containerd", self._surroundings)
        containerd.server.start()
        return containerd

    @cached_property
    def podman(self) -> Podman:
        return Podman(self.folder / "podman", self._surroundings)

    @cached_property
    def skopeo(self) -> Skopeo:
        return Skopeo(self.folder / "skopeo", self._surroundings)


@cache
def _started() -> World | AssertionError:
    """The world, or the reason why it can't be started: this is tried once, not for each test."""
    world = World()
    try:
        world.start()
    except AssertionError as failure:
        return failure
    return world


class IntegrationTestCase(SynchronousTestCase):
    """
    A test with all programs.  It blocks, because everything that it waits for is in another
    process, and each wait has a time limit.
    """

    def setUp(self) -> None:
        require("docker-registry", "nginx", "unshare", "setpriv", "mount")
        world = _started()
        if isinstance(world, AssertionError):
            raise world
        self.world, self.hub, self.mirror = world, world.hub, world.mirror
        hub = world.hub
        logs = (hub.front.log, hub.backdoor.log, hub.cdn.log, hub.services)
        self._marks = {log: log.mark() for log in logs}

    def forgetAfterwards(self) -> None:
        """
        Restart the mirrors after this test, because what they have learned about an upstream's
        fault would affect the next test.
        """
        for mirror in (self.world.mirror, self.world.fallback):
            self.addCleanup(mirror.server.start)
            self.addCleanup(mirror.server.stop)

    def seen(self, log: Log) -> list[dict[str, str]]:
        """The requests that a server has received since this test began."""
        return log.since(self._marks[log])
