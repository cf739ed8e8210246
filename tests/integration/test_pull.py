"""
Tests of dockerd, containerd, podman and skopeo: they pull through the mirror.
"""

from __future__ import annotations

from tests.integration import pulling
from tests.integration.clients import Containerd, Dockerd, Podman, Skopeo
from tests.integration.programs import CommandFailed


class DockerdTests(pulling.PullTestCase):
    @property
    def client(self) -> Dockerd:
        return self.world.dockerd

    def test_privateAfterLogin(self) -> None:
        """After C{docker login MIRROR}, a private image is pulled under the mirror's name."""
        self.addCleanup(self.client.logout)
        self.client.login()
        name = "alice/secret:latest"
        self.assertIn(self.hub.images[name].digest, self.client.pullFromMirror(name))
        self.assertNothingLeaks(self.seen(self.hub.cdn.log))

    def test_wrongPassword(self) -> None:
        self.addCleanup(self.client.logout)
        failure = self.assertRaises(CommandFailed, self.client.login, "wrong")
        self.assertIn("incorrect username or password", failure.output)

    def test_connectionsToTheCdn(self) -> None:
        """Eleven blobs, three at a time, reuse connections."""
        self.assertPulls("library/ten:latest")
        fetched = self.seen(self.hub.cdn.log)
        self.assertLessEqual(len({request["connection"] for request in fetched}), 4)


class ContainerdTests(pulling.PullTestCase):
    @property
    def client(self) -> Containerd:
        return self.world.containerd


class PodmanTests(pulling.PullTestCase):
    @property
    def client(self) -> Podman:
        return self.world.podman


class SkopeoTests(pulling.PullTestCase):
    @property
    def client(self) -> Skopeo:
        return self.world.skopeo
