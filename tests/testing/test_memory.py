"""
Tests of the agent in memory.
"""

from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.web.client import URI, HTTPConnectionPool, ProxyAgent, ResponseNeverReceived, readBody
from twisted.web.http_headers import Headers

from tests.testing.support import MemoryCase


class MemoryAgentTests(MemoryCase):
    def test_origins(self) -> None:
        """
        Requests are sent to the service with their origin.
        """
        for url in (self.hub.registryURL, self.hub.authURL, self.hub.searchURL, self.hub.cdnOrigin):
            self.ask("GET", f"{url}/")
        self.assertEqual(
            [(seen.service, seen.target) for seen in self.hub.seen],
            [("registry", b"/"), ("token", b"/token/"), ("search", b"/"), ("cdn", b"/")],
        )

    def test_elsewhere(self) -> None:
        self.failureResultOf(self.agent.request(b"GET", b"https://elsewhere.test/"), DNSLookupError)

    def test_dead(self) -> None:
        self.successResultOf(self.hub.search.stopListening())
        url = f"{self.hub.searchURL}/v1/search"
        self.failureResultOf(self.agent.request(b"GET", url.encode()), ConnectionRefusedError)
        self.successResultOf(self.hub.search.startListening())
        self.assertEqual(self.ask("GET", url).status, 200)

    def test_kept(self) -> None:
        """
        Connections that a pool keeps are reset, too.
        """
        self.agent = self.hub.agent(HTTPConnectionPool(self.clock))
        url = f"{self.hub.searchURL}/v1/search"
        self.ask("GET", url)
        self.successResultOf(self.hub.search.disconnect())
        self.ask("GET", url)
        self.assertEqual([seen.connection for seen in self.hub.seen], [1, 2])
        self.successResultOf(self.hub.search.stopListening())
        self.failureResultOf(self.agent.request(b"GET", url.encode()), ConnectionRefusedError)
        self.assertEqual(len(self.hub.seen), 2)

    def test_reset(self) -> None:
        """
        A response that has begun fails at once.
        """
        blob = self.hub.addBlob("library/hello", 100)
        url = f"{self.hub.mirrorURL}/v2/library/hello/blobs/{blob.digest}"
        headers = Headers({"Authorization": [f"Bearer {self.hub.issueToken('library/hello')}"]})
        self.hub.mirror.stall(10)
        pending = self.successResultOf(self.agent.request(b"GET", url.encode(), headers))
        body = readBody(pending)
        self.assertNoResult(body)
        self.successResultOf(self.hub.mirror.disconnect())
        self.failureResultOf(body)

    def test_connections(self) -> None:
        """
        Each request has a connection of its own, or one of a pool.
        """
        url = f"{self.hub.searchURL}/v1/search"
        self.ask("GET", url)
        self.ask("GET", url)
        self.assertEqual([seen.connection for seen in self.hub.seen], [1, 2])
        self.agent = self.hub.agent(HTTPConnectionPool(self.clock))
        self.ask("GET", url)
        self.ask("GET", url)
        self.assertEqual([seen.connection for seen in self.hub.seen], [1, 2, 3, 3])
        self.assertEqual(self.hub.connections("search"), 3)

    def test_endpoint(self) -> None:
        """
        A target is received byte for byte over an endpoint in memory.
        """
        agent = self.hub.agent()
        endpoint = agent.endpointForURI(URI.fromBytes(self.hub.searchURL.encode()))
        target = b"/v1//search?q=%2f&&x;#y?"
        response = ProxyAgent(endpoint, self.clock).request(b"GET", target)
        agent.flush()
        self.successResultOf(response)
        [seen] = self.hub.seen
        self.assertEqual(seen.target, target)

    def test_hang(self) -> None:
        self.hub.search.hang()
        pending = self.agent.request(b"GET", f"{self.hub.searchURL}/v1/search".encode())
        self.assertNoResult(pending)
        pending.cancel()
        self.failureResultOf(pending, ResponseNeverReceived)

    def test_cut(self) -> None:
        self.hub.search.cut(10)
        response = self.successResultOf(
            self.agent.request(b"GET", f"{self.hub.searchURL}/v1/search".encode())
        )
        body = readBody(response)
        self.agent.flush()
        self.failureResultOf(body)
