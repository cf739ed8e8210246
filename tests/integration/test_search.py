"""
Tests of searches with docker and podman through the mirror.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from tests.integration.tokens import FOUND
from tests.integration.world import IntegrationTestCase


class SearchTests(IntegrationTestCase):
    def assertSearched(self, output: str, term: str) -> None:
        """Check that the user got the result, the index the term, and no credential."""
        self.assertIn(FOUND, output)
        searches = [
            request
            for request in self.seen(self.hub.services)
            if request["uri"].startswith("/v1/search?")
        ]
        self.assertEqual(len(searches), 1)
        self.assertEqual(parse_qs(urlsplit(searches[0]["uri"]).query)["q"], [term])
        self.assertEqual(searches[0]["authorization"], "")

    def test_docker(self) -> None:
        self.assertSearched(self.world.dockerd.search("one"), "one")

    def test_dockerOfficialImage(self) -> None:
        """The index does not know official images with C{library/}."""
        self.assertSearched(self.world.dockerd.search("library/one"), "one")

    def test_dockerLoggedIn(self) -> None:
        """The credentials for the mirror are not sent to the index."""
        docker = self.world.dockerd
        self.addCleanup(docker.logout)
        docker.login()
        self.assertSearched(docker.search("one"), "one")

    def test_podman(self) -> None:
        self.assertSearched(self.world.podman.search("one"), "one")
