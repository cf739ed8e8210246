"""
Tests of the push side of the registry.
"""

from base64 import b64encode
from urllib.parse import quote

from hubmirror.testing import OCI_MANIFEST, pushes
from hubmirror.testing.blobs import digestOf
from hubmirror.testing.images import makeImage
from tests.testing.support import MemoryCase, Reply

FIRST, SECOND = b"first piece, ", b"second piece"
DIGEST = digestOf(FIRST + SECOND)


class PushCase(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.hub.addUser("alice", "rabbit", push=["alice/*"])
        basic = {"Authorization": f"Basic {b64encode(b'alice:rabbit').decode()}"}
        self.good = self.token("repository:alice/app:pull,push", fields=basic)
        self.base = f"{self.hub.registryURL}/v2/alice/app"

    def push(self, method: str, url: str, body: bytes = b"", **fields: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.ask(method, url, named, body, token=self.good)

    def begin(self) -> str:
        reply = self.push("POST", f"{self.base}/blobs/uploads/")
        self.assertEqual((reply.status, reply.field("Range")), (202, "0-0"))
        self.assertIn(reply.field("Docker-Upload-UUID"), reply.field("Location"))
        return reply.field("Location")

    def pulled(self, digest: str) -> bytes | None:
        """
        The blob in the repository, if it has one.
        """
        reply = self.push("GET", f"{self.base}/blobs/{digest}")
        return self.ask("GET", reply.field("Location")).body if reply.status == 307 else None


class UploadTests(PushCase):
    def test_pieces(self) -> None:
        reply = self.push("PATCH", self.begin(), FIRST)
        self.assertEqual((reply.status, reply.field("Range")), (202, "0-12"))
        reply = self.push("PATCH", reply.field("Location"), SECOND)
        reply = self.push("PUT", f"{reply.field('Location')}&digest={quote(DIGEST)}")
        self.assertEqual(reply.status, 201)
        self.assertEqual(reply.field("Docker-Content-Digest"), DIGEST)
        self.assertEqual(reply.field("Location"), f"{self.base}/blobs/{DIGEST}")
        self.assertEqual(self.pulled(DIGEST), FIRST + SECOND)

    def test_lastPieceWithPut(self) -> None:
        location = self.push("PATCH", self.begin(), FIRST).field("Location")
        self.push("PUT", f"{location}&digest={DIGEST}", SECOND)
        self.assertEqual(self.pulled(DIGEST), FIRST + SECOND)

    def test_monolithic(self) -> None:
        url = f"{self.base}/blobs/uploads/?digest={DIGEST}"
        self.assertEqual(self.push("POST", url, FIRST + SECOND).status, 201)
        self.assertEqual(self.pulled(DIGEST), FIRST + SECOND)

    def test_wrongDigest(self) -> None:
        reply = self.push("PUT", f"{self.begin()}&digest={DIGEST}", FIRST)
        self.assertEqual((reply.status, reply.error), (400, "DIGEST_INVALID"))
        self.assertIsNone(self.pulled(DIGEST))
        self.assertIsNone(self.pulled(digestOf(FIRST)))

    def test_outOfOrder(self) -> None:
        location = self.begin()
        reply = self.push("PATCH", location, SECOND, Content_Range="13-24")
        self.assertEqual((reply.status, reply.field("Range")), (416, "0-0"))
        reply = self.push("PATCH", location, FIRST, Content_Range="0-12")
        self.assertEqual(reply.status, 202)

    def test_state(self) -> None:
        """
        A location must be used without changes, and only once.
        """
        first = self.begin()
        self.assertIn("?_state=", first)
        self.push("PATCH", first, FIRST)
        for location in (first, first.partition("?")[0], first[:-4]):
            reply = self.push("PATCH", location, SECOND)
            self.assertEqual((reply.status, reply.error), (400, "BLOB_UPLOAD_INVALID"))

    def test_status(self) -> None:
        location = self.push("PATCH", self.begin(), FIRST).field("Location")
        for method in ("GET", "HEAD"):
            reply = self.push(method, location)
            self.assertEqual((reply.status, reply.field("Range")), (204, "0-12"))
            self.assertEqual(reply.field("Location"), location)

    def test_cancel(self) -> None:
        location = self.begin()
        self.assertEqual(self.push("DELETE", location).status, 204)
        reply = self.push("GET", location)
        self.assertEqual((reply.status, reply.error), (404, "BLOB_UPLOAD_UNKNOWN"))

    def test_begin(self) -> None:
        self.assertEqual(self.push("PUT", f"{self.base}/blobs/uploads/").status, 405)

    def test_notKept(self) -> None:
        """
        Only the digest and size of a large blob are kept.
        """
        self.patch(pushes, "KEPT", len(FIRST))
        self.push("POST", f"{self.base}/blobs/uploads/?digest={DIGEST}", FIRST + SECOND)
        location = self.push("HEAD", f"{self.base}/blobs/{DIGEST}").field("Location")
        self.assertEqual(self.ask("HEAD", location).field("Content-Length"), "25")
        self.assertEqual(self.ask("GET", location).status, 404)

    def test_mount(self) -> None:
        layer = self.hub.addImage("library/base", "latest", layers=[FIRST]).layers[0]
        url = f"{self.base}/blobs/uploads/?mount={layer.digest}&from=library/base"
        self.assertEqual(self.push("POST", url).status, 202)
        basic = {"Authorization": f"Basic {b64encode(b'alice:rabbit').decode()}"}
        self.good = self.token(
            "repository:alice/app:pull,push", "repository:library/base:pull", fields=basic
        )
        self.assertEqual(self.push("POST", url).status, 201)
        self.assertEqual(self.pulled(layer.digest), FIRST)


class ManifestTests(PushCase):
    def setUp(self) -> None:
        super().setUp()
        self.image = makeImage([FIRST], "linux/amd64", OCI_MANIFEST)

    def pushBlobs(self) -> None:
        for blob in (self.image.config, *self.image.layers):
            body = b"".join(blob.pieces(0, blob.size))
            self.push("POST", f"{self.base}/blobs/uploads/?digest={blob.digest}", body)

    def put(self, reference: str, body: bytes | None = None) -> Reply:
        return self.push(
            "PUT",
            f"{self.base}/manifests/{reference}",
            self.image.manifest.body if body is None else body,
            Content_Type=OCI_MANIFEST,
        )

    def test_push(self) -> None:
        self.pushBlobs()
        reply = self.put("v1")
        self.assertEqual(reply.status, 201)
        self.assertEqual(reply.field("Docker-Content-Digest"), self.image.digest)
        reply = self.push("GET", f"{self.base}/manifests/v1")
        self.assertEqual(reply.body, self.image.manifest.body)
        self.assertEqual(reply.field("Content-Type"), OCI_MANIFEST)

    def test_byDigest(self) -> None:
        self.pushBlobs()
        self.assertEqual(self.put(self.image.digest).status, 201)
        self.assertEqual(self.put(DIGEST).error, "DIGEST_INVALID")

    def test_missingBlob(self) -> None:
        reply = self.put("v1")
        self.assertEqual((reply.status, reply.error), (400, "MANIFEST_BLOB_UNKNOWN"))

    def test_invalid(self) -> None:
        for body in (b"", b"not JSON", b"[]", b'{"layers": [{}]}', b'{"config": 1}'):
            self.assertEqual(self.put("v1", body).error, "MANIFEST_INVALID", body)

    def test_tooLong(self) -> None:
        self.patch(pushes, "LONGEST_MANIFEST", 100)
        self.assertEqual(self.put("v1").status, 413)

    def test_delete(self) -> None:
        self.pushBlobs()
        self.put("v1")
        self.put("v2")
        self.assertEqual(self.push("DELETE", f"{self.base}/manifests/v1").status, 202)
        self.assertEqual(self.push("GET", f"{self.base}/manifests/v1").status, 404)
        self.assertEqual(self.push("GET", f"{self.base}/manifests/v2").status, 200)
        digest = self.image.digest
        self.assertEqual(self.push("DELETE", f"{self.base}/manifests/{digest}").status, 202)
        self.assertEqual(self.push("GET", f"{self.base}/manifests/v2").status, 404)
        self.assertEqual(self.push("DELETE", f"{self.base}/manifests/v2").status, 404)
