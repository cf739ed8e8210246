"""
Tests of the embedded Hub on loopback, from its start to its stop.
"""

import os
import tempfile
from hashlib import sha256
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.web.client import ResponseFailed, ResponseNeverReceived, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from hubmirror.testing import EmbeddedHub
from tests.testing.support import LoopbackCase


class PullTests(LoopbackCase):
    async def test_pull(self) -> None:
        """
        A pull as clients do it: challenge, token, index, manifest, and blobs from the CDN.
        """
        amd = self.hub.addImage("library/hello", "amd64", sizes=[100_000, 10])
        arm = self.hub.addImage("library/hello", "arm64", sizes=[10], platform="linux/arm64")
        self.hub.addIndex("library/hello", "latest", {"linux/amd64": amd, "linux/arm64": arm})
        base = f"{self.hub.registryURL}/v2/"

        response = await self.ask("GET", base)
        await readBody(response)
        [challenge] = response.headers.getRawHeaders("WWW-Authenticate")
        self.assertEqual(
            challenge, f'Bearer realm="{self.hub.authURL}",service="registry.docker.io"'
        )
        token = await self.token("repository:library/hello:pull")
        index = await (await self.ask("GET", f"{base}library/hello/manifests/latest", token)).json()
        digest = index["manifests"][0]["digest"]
        response = await self.ask("GET", f"{base}library/hello/manifests/{digest}", token)
        for layer in (await response.json())["layers"]:
            link = await self.link("library/hello", layer["digest"])
            body = await readBody(await self.ask("GET", link))
            self.assertEqual(f"sha256:{sha256(body).hexdigest()}", layer["digest"])
            self.assertEqual(len(body), layer["size"])

        self.assertEqual(self.hub.connections("cdn"), 1)
        self.assertEqual([seen.connection for seen in self.hub.cdn.seen], [1, 1])

    async def test_seen(self) -> None:
        """
        Requests are recorded byte for byte.
        """
        target = "/v1/search?q=a%2fb&&x=%7E;"
        response = await self.treq.post(
            self.hub.searchURL + target, data=b"12345", headers={"X-Some": ["a", "b"]}
        )
        await response.content()
        [seen] = self.hub.seen
        self.assertEqual((seen.service, seen.method), ("search", b"POST"))
        self.assertEqual(seen.target, target.encode())
        self.assertEqual(seen.bodyLength, 5)
        self.assertEqual(seen.headers.getRawHeaders("X-Some"), ["a", "b"])
        self.assertEqual((seen.field("x-some"), seen.field("X-Other")), ("b", None))
        self.assertEqual(self.hub.search.seen, [seen])
        self.assertEqual(self.hub.registry.seen, [])

    async def test_fields(self) -> None:
        """
        Fields can be added to all responses of a service.
        """
        self.hub.registry.fields.addRawHeader("Set-Cookie", "a=b")
        self.hub.registry.fields.addRawHeader("Set-Cookie", "c=d")
        response = await self.ask("GET", f"{self.hub.registryURL}/v2/")
        await readBody(response)
        self.assertEqual(response.headers.getRawHeaders("Set-Cookie"), ["a=b", "c=d"])


class LifeTests(LoopbackCase):
    async def test_stopInTheMidst(self) -> None:
        """
        Stopping leaves nothing in the reactor, whatever is in progress: trial checks that.
        """
        blob = self.hub.addBlob("library/hello", 50_000_000)
        arrived: Deferred[None] = Deferred()
        unread = await self.ask("GET", await self.link("library/hello", blob.digest))
        self.hub.registry.script(lambda request, serve: arrived.callback(None))
        pending = ensureDeferred(self.ask("GET", f"{self.hub.registryURL}/v2/"))
        await arrived
        await self.hub.stop()
        await self.assertFailure(pending, ResponseNeverReceived)
        await self.assertFailure(readBody(unread), ResponseFailed)

    async def test_files(self) -> None:
        path = Path(self.hub.caFile)
        self.assertEqual(path.read_bytes(), self.hub.caPEM)
        await self.hub.stop()
        self.assertFalse(path.parent.exists())

    async def test_stopTwice(self) -> None:
        hub = EmbeddedHub(reactor)
        await hub.stop()
        await hub.start()
        await hub.stop()
        await hub.stop()

    async def test_clock(self) -> None:
        """
        A Clock can't listen; then no files are made.
        """
        folder = self.mktemp()
        os.mkdir(folder)
        self.patch(tempfile, "tempdir", folder)
        with self.assertRaises(TypeError):
            await EmbeddedHub(Clock()).start()
        self.assertEqual(os.listdir(folder), [])

    async def test_address(self) -> None:
        hub = EmbeddedHub(reactor, address="127.0.0.2")
        await hub.start()
        self.assertTrue(hub.registryURL.startswith("https://127.0.0.2:"))
        await hub.stop()


class DeathTests(LoopbackCase):
    async def setUp(self) -> None:
        await super().setUp()
        # A client notices that a connection was reset when it uses it again.
        self.pool.retryAutomatically = True

    async def test_deadAndBack(self) -> None:
        """
        A service that is stopped refuses connections; when it is restarted, it has the same
        address.
        """
        url = f"{self.hub.searchURL}/v1/search"
        await readBody(await self.ask("GET", url))
        await self.hub.search.stopListening()
        await self.assertFailure(ensureDeferred(self.ask("GET", url)), ConnectionRefusedError)
        await self.hub.search.startListening()
        await readBody(await self.ask("GET", url))
        self.assertEqual(f"{self.hub.searchURL}/v1/search", url)
        self.assertEqual(self.hub.connections("search"), 2)

    async def test_disconnect(self) -> None:
        """
        Idle connections can be reset, as real servers do after a while.
        """
        url = f"{self.hub.searchURL}/v1/search"
        await readBody(await self.ask("GET", url))
        await self.hub.search.disconnect()
        await readBody(await self.ask("GET", url))
        self.assertEqual(self.hub.connections("search"), 2)


class AuthorityTests(LoopbackCase):
    async def serve(self, pem: bytes) -> int:
        """
        Serve with a certificate.

        @return: the port.
        """
        root = Resource()
        root.putChild(b"", Data(b"hello", "text/plain"))
        options = PrivateCertificate.loadPEM(pem).options()
        port = await SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1").listen(
            Site(root)
        )
        self.addCleanup(port.stopListening)
        return port.getHost().port

    async def test_names(self) -> None:
        """
        A server with a certificate of the Hub's CA is trusted by its own names only.
        """
        port = await self.serve(self.hub.serverPEM(["127.0.0.1"]))
        response = await self.ask("GET", f"https://127.0.0.1:{port}/")
        self.assertEqual(await readBody(response), b"hello")
        await self.assertRefuses(self.hub.serverPEM(["localhost"]))

    async def test_otherAuthority(self) -> None:
        await self.assertRefuses(EmbeddedHub(reactor).serverPEM(["127.0.0.1"]))

    async def assertRefuses(self, pem: bytes) -> None:
        """
        Check that clients don't accept a certificate from 127.0.0.1.
        """
        port = await self.serve(pem)
        await self.assertFailure(
            ensureDeferred(self.ask("GET", f"https://127.0.0.1:{port}/")), ResponseNeverReceived
        )
