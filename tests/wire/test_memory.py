"""
Tests of the whole mirror without a socket, with public names only, as embedders test their
services.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

from treq.client import HTTPClient
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hubmirror import HubMirror, MirrorConfig
from hubmirror.testing import EmbeddedHub


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        clock = Clock()
        self.hub = EmbeddedHub(clock)
        config = MirrorConfig(
            port=(),
            registry_url=self.hub.registryURL,
            auth_url=self.hub.authURL,
            search_url=self.hub.searchURL,
        )
        self.behind = self.hub.agent()
        self.front = RequestTraversalAgent(HubMirror(clock, config, self.behind).resource)
        self.client = HTTPClient(self.front)

    def result(self, deferred: Deferred[Any]) -> Any:
        """The result of a Deferred that has already fired."""
        for _ in range(20):
            self.behind.flush()
            self.front.flush()
        return self.successResultOf(deferred)

    def get(self, url: str, token: str | None = None) -> tuple[Any, bytes]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        response = self.result(
            self.client.get(url, headers=headers, unbuffered=True, reactor=Clock())
        )
        return response, self.result(response.content())

    def test_pull(self) -> None:
        image = self.hub.addImage("library/hello", "1", sizes=[200_000])
        self.hub.addIndex("library/hello", "latest", {"linux/amd64": image})
        base = "https://mirror.example:5443"
        response, _ = self.get(f"{base}/v2/")
        [challenge] = response.headers.getRawHeaders("WWW-Authenticate")
        [realm] = re.findall('realm="(.*?)"', challenge)
        self.assertEqual(realm, f"{base}/token")
        _, body = self.get(f"{realm}?scope=repository:library/hello:pull")
        token = json.loads(body)["token"]
        _, body = self.get(f"{base}/v2/library/hello/manifests/latest", token)
        [entry] = json.loads(body)["manifests"]
        _, body = self.get(f"{base}/v2/library/hello/manifests/{entry['digest']}", token)
        self.assertEqual(body, image.manifest.body)
        [layer] = json.loads(body)["layers"]
        response, body = self.get(f"{base}/v2/library/hello/blobs/{layer['digest']}", token)
        self.assertEqual(response.length, layer["size"])
        self.assertEqual(f"sha256:{sha256(body).hexdigest()}", layer["digest"])
        self.assertEqual(len(self.hub.cdn.seen), 1)

    def test_search(self) -> None:
        self.hub.addImage("library/hello", "1")
        _, body = self.get("https://mirror.example/v1/search?q=library/hello")
        self.assertEqual(json.loads(body)["num_results"], 1)
        [seen] = self.hub.search.seen
        self.assertEqual(seen.target, b"/v1/search?q=hello")
