"""
Defects of the nginx configuration and the Cloudflare Worker that hubmirror replaces, each as a test
that the mirror passes.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.error import ConnectionClosed
from twisted.web.client import PartialDownloadError, ResponseFailed

from tests.transport.support import ResolvingReactor
from tests.wire.loopback import LoopbackCase, digestOf
from tests.wire.test_names import Names

ALICE = "Basic YWxpY2U6c2VjcmV0"
"""alice, secret"""

WRONG = "Basic YWxpY2U6d3Jvbmc="
"""alice, wrong"""


class NginxTests(LoopbackCase):
    async def test_connectionForEachRequest(self) -> None:
        """The replaced proxy opens 20 TLS connections for 20 manifests."""
        self.start()
        self.hub.addImage("library/hello", "1")
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        for _ in range(20):
            await self.ask("GET", f"{self.plain}/v2/library/hello/manifests/1", fields)
        self.assertLessEqual(self.hub.connections("registry"), 2)

    async def test_certificatesNotVerified(self) -> None:
        self.start(ca_file=None)
        reply = await self.ask("GET", f"{self.plain}/v2/")
        self.assertEqual(reply.status, 502)
        self.assertEqual(self.hub.registry.seen, [])

    async def test_pushOver1MiB(self) -> None:
        """The replaced proxy responds with 413."""
        self.hub.addUser("alice", "secret", push=["alice/*"])
        self.start()
        fields = await self.authorize(self.plain, "repository:alice/a:push,pull", ALICE)
        reply = await self.ask("POST", f"{self.plain}/v2/alice/a/blobs/uploads/", fields)
        layer = b"x" * (2 * 1024 * 1024)
        location = f"{reply.field('Location')}&digest={digestOf(layer)}"
        reply = await self.ask("PUT", location, fields, layer)
        self.assertEqual(reply.status, 201)

    async def test_secondRedirect(self) -> None:
        """The replaced proxy passes the second redirect on to the client."""
        self.start()
        image = self.hub.addImage("library/hello", "1", sizes=[10])
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        target = f"/v2/library/hello/blobs/{image.layers[0].digest}"
        self.hub.registry.fail(
            302, b"", {"Location": f"{target}?again"}, when=lambda seen: b"?" not in seen.target
        )
        reply = await self.ask("GET", self.plain + target, fields)
        self.assertEqual((reply.status, digestOf(reply.body)), (200, image.layers[0].digest))
        self.assertEqual(self.exchanges[-1].redirects, 2)

    async def test_versionWithoutSlash(self) -> None:
        """The replaced proxy responds with 500."""
        self.start()
        reply = await self.ask("GET", f"{self.plain}/v2")
        self.assertEqual(reply.status, 401)

    async def test_realmWithoutPort(self) -> None:
        self.start()
        reply = await self.ask("GET", f"{self.plain}/v2/")
        self.assertIn(
            f'realm="http://127.0.0.1:{self.plainPort}/token"',
            reply.field("WWW-Authenticate") or "",
        )

    async def test_challengeOnEveryAnswer(self) -> None:
        self.start()
        self.hub.addImage("library/hello", "1")
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        for path in ("/v2/", "/v2/library/hello/manifests/1", "/v2/library/hello/manifests/x"):
            reply = await self.ask("GET", self.plain + path, fields)
            self.assertIsNone(reply.field("WWW-Authenticate"), path)

    async def test_challengeWithoutError(self) -> None:
        """The replaced proxy loses C{error=}, which states why a token was refused."""
        self.start()
        for token, error in (("nonsense", "invalid_token"), (None, "insufficient_scope")):
            fields = {"Authorization": f"Bearer {token}"}
            if token is None:
                fields = await self.authorize(self.plain, "repository:library/other:pull")
            reply = await self.ask("GET", f"{self.plain}/v2/library/hello/manifests/1", fields)
            self.assertEqual(reply.status, 401)
            challenge = reply.field("WWW-Authenticate") or ""
            self.assertIn(f'error="{error}"', challenge)
            self.assertIn('scope="repository:library/hello:pull"', challenge)

    async def test_searchWithoutParameters(self) -> None:
        """
        The replaced proxy loses all parameters but C{q}, does not remove C{library%2F}, and can't
        resolve names.
        """
        names = Names()
        names.known["localhost"] = "127.0.0.1"
        url = self.hub.searchURL.replace("127.0.0.1", "localhost")
        self.start(ResolvingReactor(reactor, names), search_url=url)
        reply = await self.ask("GET", f"{self.plain}/v1/search?n=7&q=library%2Fhello&page=2")
        self.assertEqual(reply.status, 200)
        [seen] = self.hub.search.seen
        self.assertEqual(seen.target, b"/v1/search?n=7&q=hello&page=2")

    async def test_clientAddressLost(self) -> None:
        self.start()
        await self.ask("GET", f"{self.plain}/v2/")
        [seen] = self.hub.registry.seen
        self.assertEqual(seen.field("X-Real-IP"), "127.0.0.1")
        self.assertEqual(seen.field("X-Forwarded-For"), "127.0.0.1")
        self.assertEqual(seen.field("X-Forwarded-Proto"), "http")

    async def test_doesNotStartWithoutNames(self) -> None:
        self.start(ResolvingReactor(reactor, Names()), registry_url="https://hub.invalid")
        reply = await self.ask("GET", f"{self.plain}/v2/")
        self.assertEqual(reply.status, 502)
        reply = await self.ask("GET", f"{self.plain}/v1/_ping")
        self.assertEqual(reply.status, 200)

    async def test_brokenBlobPassedOn(self) -> None:
        """
        A blob that was cut, corrupted or stalled must not look complete.  By default, the bytes of
        the registry itself are not verified, because clients do that.
        """
        self.start(stall_timeout=0.2, verify="always")
        blob = self.hub.addBlob("library/hello", 100_000)
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        url = f"{self.plain}/v2/library/hello/blobs/{blob.digest}"
        for fault in (self.hub.cdn.cut, self.hub.cdn.corrupt, self.hub.cdn.stall):
            fault(60_000)
            try:
                reply = await self.ask("GET", url, fields)
            except (ResponseFailed, PartialDownloadError, ConnectionClosed):
                pass
            else:
                self.assertEqual(digestOf(reply.body), blob.digest)
            self.hub.cdn.restore()

    async def test_catalogAsHTML(self) -> None:
        self.start()
        reply = await self.ask("GET", f"{self.plain}/v2/_catalog")
        self.assertEqual(reply.status, 404)
        self.assertEqual(reply.field("Content-Type"), "application/json")
        self.assertEqual(reply.json()["errors"][0]["code"], "NAME_UNKNOWN")
        self.assertEqual(self.hub.seen, [])


class WorkerTests(LoopbackCase):
    async def test_authorizationToTheCDN(self) -> None:
        """With the replaced proxy, the response to every request for a blob is 400."""
        self.start()
        image = self.hub.addImage("library/hello", "1", sizes=[10])
        [layer] = await self.pull(self.plain, "library/hello", "1")
        self.assertEqual(digestOf(layer), image.layers[0].digest)
        for seen in self.hub.cdn.seen:
            self.assertIsNone(seen.field("Authorization"))

    async def test_tokenWithoutBasic(self) -> None:
        """With the replaced proxy, a wrong password seems to succeed, and private pulls fail."""
        self.hub.addUser("alice", "secret", pull=["alice/private"])
        self.hub.addImage("alice/private", "1", sizes=[10])
        self.hub.private.add("alice/*")
        self.start()
        url = f"{self.plain}/token?service=registry.docker.io&scope=repository:alice/private:pull"
        reply = await self.ask("GET", url, {"Authorization": WRONG})
        self.assertEqual(reply.status, 401)
        fields = await self.authorize(self.plain, "repository:alice/private:pull", ALICE)
        reply = await self.ask("GET", f"{self.plain}/v2/alice/private/manifests/1", fields)
        self.assertEqual(reply.status, 200)
        fields = await self.authorize(self.plain, "repository:alice/private:pull")
        reply = await self.ask("GET", f"{self.plain}/v2/alice/private/manifests/1", fields)
        self.assertEqual(reply.status, 401)

    async def test_followsTheLocationOfA202(self) -> None:
        """With the replaced proxy, every push fails."""
        self.hub.addUser("alice", "secret", push=["alice/*"])
        self.start()
        fields = await self.authorize(self.plain, "repository:alice/a:push,pull", ALICE)
        reply = await self.ask("POST", f"{self.plain}/v2/alice/a/blobs/uploads/", fields)
        self.assertEqual(reply.status, 202)
        self.assertTrue((reply.field("Location") or "").startswith(self.plain))

    async def test_absentFieldsAsNull(self) -> None:
        self.start()
        await self.ask("GET", f"{self.plain}/v2/")
        await self.ask("GET", f"{self.plain}/token?service=a")
        for seen in self.hub.seen:
            for name, values in seen.headers.getAllRawHeaders():
                self.assertNotIn(b"null", [value.lower() for value in values], name)

    async def test_conditionsLost(self) -> None:
        self.start()
        image = self.hub.addImage("library/hello", "1")
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        reply = await self.ask(
            "GET",
            f"{self.plain}/v2/library/hello/manifests/1",
            {**fields, "If-None-Match": f'"{image.digest}"'},
        )
        self.assertEqual((reply.status, reply.body), (304, b""))

    async def test_versionWithoutSlash(self) -> None:
        """The replaced proxy responds with 502 and a stack trace."""
        self.start()
        reply = await self.ask("GET", f"{self.plain}/v2")
        self.assertEqual(reply.status, 401)
        self.assertEqual(reply.json()["errors"][0]["code"], "UNAUTHORIZED")

    async def test_hostWithPort(self) -> None:
        """The replaced proxy responds with 502."""
        self.start()
        reply = await self.ask("GET", f"{self.plain}/v2/", {"Host": "mirror.example:8443"})
        self.assertEqual(reply.status, 401)
        self.assertIn(
            'realm="http://mirror.example:8443/token"', reply.field("WWW-Authenticate") or ""
        )

    async def test_preflightNeverReached(self) -> None:
        self.start()
        reply = await self.ask(
            "OPTIONS",
            f"{self.plain}/v2/library/hello/manifests/1",
            {"Origin": "https://page.example", "Access-Control-Request-Method": "GET"},
        )
        self.assertEqual(reply.status, 204)
        self.assertEqual(reply.field("Access-Control-Allow-Origin"), "*")
        self.assertEqual(self.hub.seen, [])
