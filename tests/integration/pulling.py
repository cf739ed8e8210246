"""
The tests of pulls that are the same for every client: it pulls each image through the mirror, and
the fallback serves when the Hub limits pulls.
"""

from __future__ import annotations

from tests.integration.clients import Client
from tests.integration.nginx import Front
from tests.integration.programs import CommandFailed
from tests.integration.world import IntegrationTestCase


class PullTestCase(IntegrationTestCase):
    """
    The tests of a client.  A module with tests must import this module instead of this class,
    because trial would run the class otherwise.
    """

    @property
    def client(self) -> Client:
        raise NotImplementedError

    def test_oneLayer(self) -> None:
        self.assertPulls("library/one:latest")

    def test_tenLayers(self) -> None:
        self.assertPulls("library/ten:latest")

    def test_platforms(self) -> None:
        self.assertPulls("library/multi:latest")

    def test_private(self) -> None:
        self.assertPulls("alice/secret:latest", private=True)

    def test_privateWithoutLogin(self) -> None:
        with self.assertRaises(CommandFailed):
            self.client.pull("alice/secret:latest")
        asked = [r for r in self.seen(self.hub.front.log) if "/v2/alice/secret/" in r["uri"]]
        self.assertEqual({request["status"] for request in asked}, {"401"})

    def test_limited(self) -> None:
        """The Hub answers 429 for manifests: the fallback serves."""
        self.switchOn(Front.LIMITED)
        self.assertFallbackServes()
        self.assertIn("429", self.statuses())

    def switchOn(self, fault: str) -> None:
        self.forgetAfterwards()
        self.addCleanup(self.hub.front.switchOff, fault)
        self.hub.front.switchOn(fault)

    def statuses(self) -> set[str]:
        """The statuses of the responses of the Hub's registry."""
        return {request["status"] for request in self.seen(self.hub.front.log)}

    def assertFallbackServes(self) -> None:
        name = "library/one:latest"
        self.assertIn(self.hub.images[name].digest, self.client.pull(name))
        served = {
            request["uri"]
            for request in self.seen(self.hub.backdoor.log)
            if request["status"] == "200"
        }
        self.assertTrue([uri for uri in served if "/manifests/" in uri], served)

    def assertPulls(self, name: str, *, private: bool = False) -> None:
        """
        Check that the client has the image, and that every byte of it came from the CDN through the
        mirror.
        """
        image = self.hub.images[name]
        self.assertIn(image.digest, self.client.pull(name, private=private))
        fetched = self.seen(self.hub.cdn.log)
        for blob in image.blobs:
            hexadecimal = blob.partition(":")[2]
            self.assertTrue(
                [request for request in fetched if f"/{hexadecimal}/data?" in request["uri"]],
                f"{blob} did not come from the CDN",
            )
        self.assertEqual({request["status"] for request in fetched} - {"200", "206"}, set())
        self.assertNothingLeaks(fetched)
        asked = self.seen(self.hub.front.log)
        self.assertEqual([request for request in asked if "ns=" in request["uri"]], [])
        self.assertEqual(self.seen(self.hub.backdoor.log), [])

    def assertNothingLeaks(self, fetched: list[dict[str, str]]) -> None:
        """Check that the CDN has learned nothing of the client except its C{User-Agent}."""
        for request in fetched:
            self.assertTrue(request["userAgent"].startswith(self.client.userAgent), request)
            for field in (
                "authorization",
                "cookie",
                "forwardedFor",
                "forwardedProto",
                "realIp",
                "forwarded",
                "via",
            ):
                self.assertEqual(request[field], "", request)
