"""
The example in docs/testing.rst, which includes this file.
"""

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hubmirror import HubMirror, MirrorConfig
from hubmirror.testing import EmbeddedHub


class InMemoryTests(SynchronousTestCase):
    """No socket and no waiting: the test has a clock of its own."""

    def test_token(self) -> None:
        hub = EmbeddedHub(Clock())
        hub.addImage("library/hello", "latest", sizes=[1000])
        agent = hub.agent()
        pending = HTTPClient(agent).get(f"{hub.authURL}?scope=repository:library/hello:pull")
        agent.flush()
        answer = treq.json_content(self.successResultOf(pending))
        self.assertEqual(self.successResultOf(answer)["expires_in"], 300)
        [seen] = hub.seen
        self.assertEqual(seen.target, b"/token?scope=repository:library/hello:pull")


class ThroughMirrorTests(TestCase):
    """A mirror in front of a Hub, both on loopback."""

    async def setUp(self) -> None:
        self.hub = EmbeddedHub(reactor)
        await self.hub.start()
        self.addCleanup(self.hub.stop)
        self.blob = self.hub.addBlob("library/hello", 5_000_000)

        config = MirrorConfig(
            port=(),
            registry_url=self.hub.registryURL,
            auth_url=self.hub.authURL,
            search_url=self.hub.searchURL,
            fallback=(self.hub.mirrorURL,),
            allow_redirects_to=(self.hub.cdnOrigin,),
            ca_file=self.hub.caFile,
        )
        mirror = HubMirror(reactor, config)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(mirror.site)
        self.addCleanup(mirror.service.stopService)
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"

    async def assertPulls(self) -> None:
        response = await treq.get(
            f"{self.url}/v2/library/hello/blobs/{self.blob.digest}",
            headers={"Authorization": f"Bearer {self.hub.issueToken('library/hello')}"},
            persistent=False,
        )
        body = await response.content()
        self.assertEqual(body, b"".join(self.blob.pieces(0, self.blob.size)))

    async def test_redirect(self) -> None:
        """The CDN, which responds to any credential with 400, is sent none."""
        await self.assertPulls()
        [seen] = self.hub.cdn.seen
        self.assertIsNone(seen.field("Authorization"))

    async def test_failover(self) -> None:
        """If the registry responds with 429, the fallback serves."""
        self.hub.registry.fail(429)
        await self.assertPulls()
        self.assertEqual([seen.service for seen in self.hub.seen], ["registry", "mirror"])
