"""
Tests of the CDN: signed URLs, ranges, and refusals.
"""

from hubmirror.testing import EmbeddedHub
from tests.testing.support import MemoryCase, Reply

CONTENT = bytes(range(100))


class CDNTests(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        image = self.hub.addImage("library/hello", "latest", layers=[CONTENT])
        token = self.token("repository:library/hello:pull")
        self.url = f"{self.hub.registryURL}/v2/library/hello/blobs/{image.layers[0].digest}"
        self.link = self.ask("GET", self.url, token=token).field("Location")

    def get(self, method: str = "GET", **fields: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.ask(method, self.link, named)

    def test_whole(self) -> None:
        reply = self.get()
        self.assertEqual((reply.status, reply.body, reply.length), (200, CONTENT, 100))
        self.assertEqual(reply.field("Content-Type"), "application/octet-stream")
        self.assertEqual(reply.field("Accept-Ranges"), "bytes")
        self.assertEqual(self.hub.cdn.bytesSent, 100)

    def test_head(self) -> None:
        reply = self.get("HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertEqual(reply.field("Content-Length"), "100")
        self.assertEqual(self.hub.cdn.bytesSent, 0)

    def test_credentials(self) -> None:
        """
        Object stores refuse a second credential.
        """
        self.assertEqual(self.get(Authorization="Bearer x").status, 400)
        self.assertEqual(self.get(Cookie="a=b").status, 400)

    def test_signature(self) -> None:
        """
        Re-encoding the URL makes it invalid.
        """
        path, _, query = self.link.partition("?")
        for changed in (
            query.replace("~", "%7E"),
            query.replace("%7E", "~"),
            query.replace("%2b", "%2B"),
            query.replace("%3D", "="),
            query.replace("&&", "&"),
            query.replace("flag&", "flag=&"),
            query.replace("&empty=", ""),
            query.replace("Expires=1200", "Expires=1201"),
            "&".join(reversed(query.split("&"))),
            "",
        ):
            self.assertNotEqual(changed, query)
            self.assertEqual(self.ask("GET", f"{path}?{changed}").status, 403, changed)

    def test_otherBlob(self) -> None:
        self.link = self.link.replace("/data", "/other")
        self.assertEqual(self.get().status, 403)

    def test_expires(self) -> None:
        self.clock.advance(self.hub.links.lifetime)
        self.assertEqual(self.get().status, 200)
        self.clock.advance(1)
        self.assertEqual(self.get().status, 403)

    def test_host(self) -> None:
        self.assertEqual(self.get(Host="registry.hub.test").status, 403)

    def test_methods(self) -> None:
        self.assertEqual(self.get("PUT").status, 405)

    def test_gone(self) -> None:
        """
        The URL is valid, but the blob does not exist (any more).
        """
        self.hub = EmbeddedHub(self.clock)
        self.agent = self.hub.agent()
        self.assertEqual(self.get().status, 404)

    def test_range(self) -> None:
        for value, start, stop in (
            ("bytes=10-19", 10, 20),
            ("bytes=90-", 90, 100),
            ("bytes=-1", 99, 100),
            ("bytes=0-", 0, 100),
        ):
            reply = self.get(Range=value)
            self.assertEqual((reply.status, reply.body), (206, CONTENT[start:stop]), value)
            self.assertEqual(reply.field("Content-Range"), f"bytes {start}-{stop - 1}/100")
            self.assertEqual(reply.length, stop - start)

    def test_unsatisfiable(self) -> None:
        reply = self.get(Range="bytes=100-")
        self.assertEqual((reply.status, reply.body), (416, b""))
        self.assertEqual(reply.field("Content-Range"), "bytes */100")

    def test_nonsense(self) -> None:
        self.assertEqual(self.get(Range="lines=1-2").status, 200)

    def test_multipart(self) -> None:
        reply = self.get(Range="bytes=0-1,-2")
        self.assertEqual((reply.status, reply.length), (206, len(reply.body)))
        kind, _, boundary = reply.field("Content-Type").partition("; boundary=")
        self.assertEqual(kind, "multipart/byteranges")
        first, second, end = reply.body.split(f"\r\n--{boundary}".encode())[1:]
        self.assertEqual(
            first,
            b"\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Range: bytes 0-1/100\r\n\r\n" + CONTENT[:2],
        )
        self.assertTrue(second.endswith(b"bytes 98-99/100\r\n\r\n" + CONTENT[-2:]))
        self.assertEqual(end, b"--\r\n")

    def test_ifRange(self) -> None:
        reply = self.get()
        for value, status in (
            (reply.field("ETag"), 206),
            (reply.field("Last-Modified"), 206),
            ('"other"', 200),
            ("Tue, 02 Jan 2024 00:00:00 GMT", 200),
        ):
            self.assertEqual(self.get(Range="bytes=1-", If_Range=value).status, status, value)

    def test_ifNoneMatch(self) -> None:
        reply = self.get(If_None_Match=self.get().field("ETag"))
        self.assertEqual((reply.status, reply.body), (304, b""))
