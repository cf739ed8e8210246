"""
Tests of dockerd, containerd, podman and skopeo: they pull through the mirror.
"""

from __future__ import annotations

from tests.integration import pulling
from tests.integration.clients import Containerd, Dockerd, Podman, Skopeo
from tests.integration.nginx import Front
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

    def test_tenLayers(self) -> None:
        """Eleven blobs, three at a time, reuse connections to the CDN."""
        super().test_tenLayers()
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

    # The mirror does not know which client asks, so these faults are tested with one client.

    def test_abused(self) -> None:
        """The Hub's registry answers 429 for everything."""
        self.switchOn(Front.ABUSED)
        self.assertFallbackServes()
        self.assertEqual(self.statuses(), {"429"})

    def test_unavailable(self) -> None:
        """The Hub's registry answers 503 for everything."""
        self.switchOn(Front.UNAVAILABLE)
        self.assertFallbackServes()
        self.assertEqual(self.statuses(), {"503"})

    def test_dead(self) -> None:
        """The Hub's registry refuses connections."""
        self.forgetAfterwards()
        self.addCleanup(self.hub.front.server.start)
        self.hub.front.server.stop()
        self.assertFallbackServes()
        self.assertEqual(self.statuses(), set())
