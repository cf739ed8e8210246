"""
Tests of docker and skopeo: they push through the mirror.
"""

from __future__ import annotations

from tests.integration.images import MIB, Image, Layer, digestOf
from tests.integration.programs import CommandFailed
from tests.integration.world import IntegrationTestCase


class PushTests(IntegrationTestCase):
    """
    The layers are larger than 1 MiB, the limit of many proxies.
    """

    def test_docker(self) -> None:
        docker = self.world.dockerd
        docker.pull("library/one:latest")
        self.addCleanup(docker.logout)
        docker.login()
        pushed = docker.push("library/one:latest", "alice/docker:1")
        digest = pushed.partition("digest: ")[2].split()[0]
        self.assertIn(digest, docker.pullFromMirror("alice/docker:1"))
        self.assertUploaded("alice/docker", layers=1)

    def test_dockerWithoutLogin(self) -> None:
        docker = self.world.dockerd
        docker.pull("library/one:latest")
        self.assertRaises(CommandFailed, docker.push, "library/one:latest", "alice/refused:1")
        asked = [r for r in self.seen(self.hub.front.log) if "alice/refused" in r["uri"]]
        self.assertEqual({request["status"] for request in asked}, {"401"})

    def test_skopeo(self) -> None:
        """skopeo pushes ten layers of 8 MiB that the registry does not have."""
        image = Image.make([Layer.make(f"pushed/{n}", 8 * MIB) for n in range(10)])
        folder = self.world.folder / "pushed"
        image.write(folder)
        digest = self.world.skopeo.push(folder, "alice/skopeo:1")
        self.assertEqual(digest, digestOf(image.manifest))
        self.assertUploaded("alice/skopeo", layers=10)
        self.assertEqual(self.world.skopeo.pull("alice/skopeo:1", private=True), digest)

    def assertUploaded(self, repository: str, layers: int) -> None:
        """Check that the registry received the layers, the configuration and the manifest."""
        created = [
            request["uri"].partition("?")[0].removeprefix(f"/v2/{repository}/")
            for request in self.seen(self.hub.front.log)
            if request["method"] == "PUT" and request["status"] == "201"
        ]
        uploads = [path for path in created if path.startswith("blobs/uploads/")]
        self.assertEqual(len(uploads), layers + 1)
        self.assertEqual([path for path in created if path not in uploads], ["manifests/1"])
