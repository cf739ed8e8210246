"""
Tests of whole pulls and pushes over real connections, and of the number of connections.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from hubmirror.exchange import Outcome
from tests.wire.loopback import LoopbackCase, digestOf

LOGIN = "Basic YWxpY2U6c2VjcmV0"
"""alice, secret"""


class PullTests(LoopbackCase):
    async def test_pull(self) -> None:
        """
        A pull over TCP and over TLS: challenge, token, index, manifests, and blobs with redirects.
        """
        self.start()
        amd = self.hub.addImage("library/hello", "amd", sizes=[300_000, 10])
        arm = self.hub.addImage("library/hello", "arm", sizes=[10], platform="linux/arm64")
        self.hub.addIndex("library/hello", "latest", {"linux/amd64": amd, "linux/arm64": arm})
        for base in (self.plain, self.secure):
            layers = await self.pull(base, "library/hello", "latest")
            self.assertEqual(
                [digestOf(layer) for layer in layers],
                [layer.digest for image in (amd, arm) for layer in image.layers],
            )
        self.assertEqual({exchange.outcome for exchange in self.exchanges}, {Outcome.COMPLETE})
        for seen in self.hub.cdn.seen:
            self.assertEqual((seen.field("Authorization"), seen.field("X-Real-IP")), (None, None))

    async def test_head(self) -> None:
        """The response to HEAD has the length and the digest."""
        self.start()
        image = self.hub.addImage("library/hello", "1", sizes=[10])
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        reply = await self.ask("HEAD", f"{self.plain}/v2/library/hello/manifests/1", fields)
        self.assertEqual(reply.field("Docker-Content-Digest"), image.digest)
        self.assertEqual(reply.field("Content-Length"), str(len(image.manifest.body)))
        blob = image.layers[0]
        reply = await self.ask("HEAD", f"{self.plain}/v2/library/hello/blobs/{blob.digest}", fields)
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertEqual(reply.field("Content-Length"), str(blob.size))

    async def test_pieces(self) -> None:
        """The CDN responds to single and multiple ranges, and to conditions."""
        self.start()
        blob = self.hub.addBlob("library/hello", 100_000)
        whole = b"".join(blob.pieces(0, blob.size))
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        url = f"{self.plain}/v2/library/hello/blobs/{blob.digest}"
        reply = await self.ask("GET", url, {**fields, "Range": "bytes=99990-"})
        self.assertEqual((reply.status, reply.body), (206, whole[99990:]))
        self.assertEqual(reply.field("Content-Range"), "bytes 99990-99999/100000")
        ranges = ",".join(f"{start}-{start}" for start in range(0, 2000, 10))
        reply = await self.ask("GET", url, {**fields, "Range": f"bytes={ranges}"})
        self.assertEqual(reply.status, 206)
        self.assertTrue((reply.field("Content-Type") or "").startswith("multipart/byteranges;"))
        self.assertEqual(reply.body.count(b"Content-Range: bytes "), 200)
        reply = await self.ask("GET", url, {**fields, "Range": "bytes=100000-"})
        self.assertEqual(reply.status, 416)
        etag = reply.field("ETag") or ""
        reply = await self.ask("GET", url, {**fields, "If-None-Match": etag})
        self.assertEqual((reply.status, reply.body), (304, b""))

    async def test_fallback(self) -> None:
        """When the Hub responds with 429, another mirror of it serves the image."""
        self.start(fallback=self.hub.mirrorURL)
        image = self.hub.addImage("library/hello", "latest", sizes=[1000])
        self.hub.registry.fail(429, when=lambda seen: seen.target != b"/v2/")
        [layer] = await self.pull(self.plain, "library/hello", "latest")
        self.assertEqual(digestOf(layer), image.layers[0].digest)
        self.assertEqual(
            {exchange.upstream for exchange in self.exchanges if b"/library/" in exchange.target},
            {self.hub.mirrorURL.removeprefix("https://")},
        )

    async def test_limited(self) -> None:
        """Without another mirror, the client is sent the Hub's own response."""
        self.start()
        self.hub.registry.fail(429, b"Too Many Requests (HAP429)", {"Retry-After": "60"})
        reply = await self.ask("GET", f"{self.plain}/v2/library/hello/manifests/1")
        self.assertEqual((reply.status, reply.body), (429, b"Too Many Requests (HAP429)"))
        self.assertEqual(reply.field("Retry-After"), "60")

    async def test_search(self) -> None:
        self.start()
        self.hub.addImage("library/hello", "latest")
        reply = await self.ask("GET", f"{self.plain}/v1/search?q=library%2Fhello&n=5")
        self.assertEqual(reply.json()["results"][0]["name"], "hello")


class PushTests(LoopbackCase):
    async def test_push(self) -> None:
        """Push a layer of some MiB in one piece, and a manifest, as skopeo and docker do."""
        self.hub.addUser("alice", "secret", push=["alice/*"])
        self.start()
        for base, size in ((self.plain, 5_000_000), (self.secure, 3_000_000)):
            image = self.hub.addImage("scratch/made", "1", sizes=[size])
            fields = await self.authorize(base, "repository:alice/made:push,pull", LOGIN)
            url = f"{base}/v2/alice/made"
            for blob in (image.config, image.layers[0]):
                location = await self.begin(base, url, fields)
                reply = await self.ask("PUT", f"{location}&digest={blob.digest}", fields, blob.data)
                self.assertEqual(reply.status, 201, reply)
            reply = await self.ask(
                "PUT",
                f"{url}/manifests/1",
                {**fields, "Content-Type": image.manifest.mediaType},
                image.manifest.body,
            )
            self.assertEqual(reply.status, 201, reply)
            self.assertEqual(reply.field("Location"), f"{url}/manifests/{image.digest}")
            [layer] = await self.pullPrivate(base, "alice/made", fields)
            self.assertEqual(len(layer), image.layers[0].size)
        self.assertEqual({exchange.outcome for exchange in self.exchanges}, {Outcome.COMPLETE})

    async def begin(self, base: str, url: str, fields: dict[str, str]) -> str:
        """Begin an upload, whose location leads to the mirror."""
        reply = await self.ask("POST", f"{url}/blobs/uploads/", fields)
        self.assertEqual(reply.status, 202, reply)
        location = reply.field("Location") or ""
        self.assertTrue(location.startswith(f"{base}/v2/alice/made/blobs/uploads/"), location)
        return location

    async def pullPrivate(self, base: str, repository: str, fields: dict[str, str]) -> list[bytes]:
        reply = await self.ask("GET", f"{base}/v2/{repository}/manifests/1", fields)
        return [
            (await self.ask("GET", f"{base}/v2/{repository}/blobs/{layer['digest']}", fields)).body
            for layer in reply.json()["layers"]
        ]

    async def test_pieces(self) -> None:
        """Push a layer in pieces, each to the location in the last response."""
        self.hub.addUser("alice", "secret", push=["alice/*"])
        self.start()
        fields = await self.authorize(self.plain, "repository:alice/made:push,pull", LOGIN)
        url = f"{self.plain}/v2/alice/made"
        location = await self.begin(self.plain, url, fields)
        for number in range(3):
            reply = await self.ask("PATCH", location, fields, b"%d" % number * 1000)
            self.assertEqual(reply.status, 202, reply)
            location = reply.field("Location") or ""
        whole = b"0" * 1000 + b"1" * 1000 + b"2" * 1000
        reply = await self.ask("PUT", f"{location}&digest={digestOf(whole)}", fields)
        self.assertEqual(reply.status, 201, reply)
        reply = await self.ask("GET", f"{url}/blobs/{digestOf(whole)}", fields)
        self.assertEqual(reply.body, whole)


class ConnectionTests(LoopbackCase):
    """
    A TLS connection to the Hub costs more than the requests on it.
    """

    async def test_manifests(self) -> None:
        """Twenty manifests, one after another, take at most two connections."""
        self.start()
        self.hub.addImage("library/hello", "1")
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        for _ in range(20):
            reply = await self.ask("GET", f"{self.plain}/v2/library/hello/manifests/1", fields)
            self.assertEqual(reply.status, 200)
        self.assertLessEqual(self.hub.connections("registry"), 2)
        self.assertEqual(self.hub.connections("token"), 1)

    async def test_blobs(self) -> None:
        """Ten blobs, three at a time as with clients, take at most four connections."""
        self.start()
        image = self.hub.addImage("library/hello", "1", sizes=[200_000] * 10)
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        left = iter(image.layers)

        async def worker() -> None:
            for layer in left:
                reply = await self.ask(
                    "GET", f"{self.plain}/v2/library/hello/blobs/{layer.digest}", fields
                )
                self.assertEqual(digestOf(reply.body), layer.digest)

        await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(3)])
        self.assertEqual(len(self.hub.cdn.seen), 10)
        self.assertLessEqual(self.hub.connections("registry"), 4)
        self.assertLessEqual(self.hub.connections("cdn"), 4)

    async def test_headsAndErrors(self) -> None:
        """Responses without a body, or with one that is not used, do not cost a connection."""
        self.start(fallback=self.hub.mirrorURL)
        image = self.hub.addImage("library/hello", "1", sizes=[10])
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        url = f"{self.plain}/v2/library/hello"
        for _ in range(3):
            for method, path in (
                ("HEAD", "manifests/1"),
                ("HEAD", f"blobs/{image.layers[0].digest}"),
                ("GET", "manifests/missing"),
            ):
                await self.ask(method, f"{url}/{path}", fields)
        self.hub.registry.fail(503)
        for _ in range(3):
            reply = await self.ask("GET", f"{url}/manifests/1", fields)
            self.assertEqual(
                (reply.status, reply.field("Content-Type")), (200, image.manifest.mediaType)
            )
        self.assertEqual(self.hub.connections("registry"), 1)
        self.assertEqual(self.hub.connections("cdn"), 1)
        self.assertEqual(self.hub.connections("mirror"), 1)

    async def test_lostWhileIdle(self) -> None:
        """An idle connection that the Hub has closed is replaced without the client's notice."""
        self.start()
        url = f"{self.plain}/v1/search?q=a"
        await self.ask("GET", url)
        await self.hub.search.disconnect()
        reply = await self.ask("GET", url)
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.hub.connections("search"), 2)
