"""
Tests of the pull side of the registry.
"""

from hubmirror.testing import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.testing.support import MemoryCase, Reply


class RegistryCase(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.image = self.hub.addImage("library/hello", "latest", layers=[b"one", b"two"])

    def get(self, path: str, fields: dict[str, str] | None = None, *, method: str = "GET") -> Reply:
        """
        Send a request for a part of library/hello, with a token.
        """
        token = self.token("repository:library/hello:pull")
        return self.ask(method, f"{self.hub.registryURL}/v2/{path}", fields, token=token)


class ChallengeTests(RegistryCase):
    def challenge(self, path: str, token: str | None = None, method: str = "GET") -> str | None:
        reply = self.ask(method, self.hub.registryURL + path, token=token)
        self.assertEqual((reply.status, reply.error), (401, "UNAUTHORIZED"))
        self.assertEqual(reply.field("Docker-Distribution-API-Version"), "registry/2.0")
        return reply.field("WWW-Authenticate")

    def test_ping(self) -> None:
        self.assertEqual(
            self.challenge("/v2/"),
            'Bearer realm="https://token.hub.test/token",service="registry.docker.io"',
        )
        reply = self.get("")
        self.assertEqual((reply.status, reply.body), (200, b"{}"))
        self.assertEqual(reply.field("Docker-Distribution-API-Version"), "registry/2.0")

    def test_scope(self) -> None:
        self.assertIn(
            ',scope="repository:library/hello:pull"',
            self.challenge("/v2/library/hello/manifests/latest"),
        )
        self.assertIn(
            ',scope="repository:library/hello:pull,push"',
            self.challenge("/v2/library/hello/manifests/latest", method="PUT"),
        )

    def test_error(self) -> None:
        path = "/v2/library/hello/manifests/latest"
        self.assertNotIn("error", self.challenge(path))
        self.assertIn(',error="invalid_token"', self.challenge(path, "nonsense"))
        other = self.token("repository:library/other:pull")
        self.assertIn(',error="insufficient_scope"', self.challenge(path, other))

    def test_unknownRepository(self) -> None:
        """
        To anonymous clients, repositories that do not exist and private ones look the same.
        """
        token = self.token("repository:library/other:pull")
        self.challenge("/v2/library/other/manifests/latest", token)

    def test_catalog(self) -> None:
        self.challenge("/v2/_catalog")
        for path in ("_catalog", "_catalog/?n=10", "/_catalog", "%5Fcatalog"):
            self.assertEqual(self.get(path).json(), {"repositories": ["library/hello"]}, path)

    def test_withoutSlash(self) -> None:
        self.assertEqual(self.ask("GET", f"{self.hub.registryURL}/v2").field("Location"), "/v2/")

    def test_elsewhere(self) -> None:
        self.assertEqual(self.ask("GET", f"{self.hub.registryURL}/v1/search").status, 404)


class ManifestTests(RegistryCase):
    def test_byTagAndDigest(self) -> None:
        for reference in ("latest", self.image.digest, self.image.digest.replace(":", "%3A")):
            reply = self.get(f"library/hello/manifests/{reference}")
            self.assertEqual((reply.status, reply.body), (200, self.image.manifest.body))
            self.assertEqual(reply.field("Content-Type"), DOCKER_MANIFEST)
            self.assertEqual(reply.field("Docker-Content-Digest"), self.image.digest)
            self.assertEqual(reply.field("ETag"), f'"{self.image.digest}"')
            self.assertEqual(reply.length, len(self.image.manifest.body))

    def test_head(self) -> None:
        reply = self.get("library/hello/manifests/latest", method="HEAD")
        self.assertEqual((reply.status, reply.body), (200, b""))
        self.assertEqual(reply.field("Content-Length"), str(len(self.image.manifest.body)))
        self.assertEqual(reply.field("Docker-Content-Digest"), self.image.digest)

    def test_notModified(self) -> None:
        reply = self.get(
            "library/hello/manifests/latest", {"If-None-Match": f'W/"x", "{self.image.digest}"'}
        )
        self.assertEqual((reply.status, reply.body), (304, b""))
        self.assertEqual(reply.field("Docker-Content-Digest"), self.image.digest)

    def test_rateLimit(self) -> None:
        """
        A HEAD does not count as a pull, a GET does.
        """
        left = []
        for method in ("HEAD", "GET", "GET", "HEAD"):
            reply = self.get("library/hello/manifests/latest", method=method)
            left.append(reply.field("ratelimit-remaining"))
            self.assertEqual(reply.field("ratelimit-limit"), "100;w=21600")
            self.assertEqual(reply.field("docker-ratelimit-source"), "127.0.0.1")
        self.assertEqual(left, ["100;w=21600", "99;w=21600", "98;w=21600", "98;w=21600"])

    def test_accept(self) -> None:
        self.hub.addIndex("library/hello", "multi", {"linux/amd64": self.image})
        path = "library/hello/manifests/multi"
        for accept, status in (
            (DOCKER_INDEX, 200),
            (f"{DOCKER_MANIFEST}, {DOCKER_INDEX};q=0.5", 200),
            ("*/*", 200),
            (DOCKER_MANIFEST, 404),
            (f"{OCI_INDEX},{OCI_MANIFEST}", 404),
        ):
            self.assertEqual(self.get(path, {"Accept": accept}).status, status, accept)

    def test_index(self) -> None:
        other = self.hub.addImage("library/base", "arm", layers=[b"x"], mediaType=OCI_MANIFEST)
        index = self.hub.addIndex("library/hello", "multi", {"linux/arm64": other})
        reply = self.get("library/hello/manifests/multi")
        self.assertEqual(
            (reply.body, reply.field("Content-Type")), (index.manifest.body, OCI_INDEX)
        )
        [entry] = reply.json()["manifests"]
        reply = self.get(f"library/hello/manifests/{entry['digest']}")
        self.assertEqual(reply.body, other.manifest.body)

    def test_unknown(self) -> None:
        reply = self.get("library/hello/manifests/none")
        self.assertEqual((reply.status, reply.error), (404, "MANIFEST_UNKNOWN"))

    def test_methods(self) -> None:
        self.hub.addUser("alice", "rabbit", push=["library/hello"])
        fields = {"Authorization": "Basic YWxpY2U6cmFiYml0"}
        token = self.token("repository:library/hello:pull,push", fields=fields)
        for path in ("manifests/latest", f"blobs/{self.image.config.digest}"):
            url = f"{self.hub.registryURL}/v2/library/hello/{path}"
            reply = self.ask("PATCH", url, token=token)
            self.assertEqual((reply.status, reply.error), (405, "UNSUPPORTED"))


class BlobTests(RegistryCase):
    def test_redirect(self) -> None:
        digest = self.image.layers[1].digest
        for method in ("GET", "HEAD"):
            reply = self.get(f"library/hello/blobs/{digest}", method=method)
            self.assertEqual((reply.status, reply.body), (307, b""))
            self.assertTrue(reply.field("Location").startswith(f"{self.hub.cdnOrigin}/"))
        self.assertEqual(self.ask("GET", reply.field("Location")).body, b"two")

    def test_unknown(self) -> None:
        reply = self.get(f"library/hello/blobs/sha256:{'0' * 64}")
        self.assertEqual((reply.status, reply.error), (404, "BLOB_UNKNOWN"))

    def test_big(self) -> None:
        blob = self.hub.addBlob("library/hello", 1_000_000)
        location = self.get(f"library/hello/blobs/{blob.digest}").field("Location")
        self.assertEqual(self.ask("GET", location).body, b"".join(blob.pieces(0, blob.size)))


class ListTests(RegistryCase):
    def test_tags(self) -> None:
        for tag in ("a", "b", "c"):
            self.hub.addImage("library/hello", tag, layers=[b"one"])
        reply = self.get("library/hello/tags/list")
        self.assertEqual(reply.json(), {"name": "library/hello", "tags": ["a", "b", "c", "latest"]})
        self.assertIsNone(reply.field("Link"))

    def test_pages(self) -> None:
        for tag in ("a", "b"):
            self.hub.addImage("library/hello", tag, layers=[b"one"])
        reply = self.get("library/hello/tags/list?n=2")
        self.assertEqual(reply.json()["tags"], ["a", "b"])
        link = reply.field("Link")
        self.assertEqual(link, '</v2/library/hello/tags/list?last=b&n=2>; rel="next"')
        reply = self.get(link[len("</v2/") :].partition(">")[0])
        self.assertEqual(reply.json()["tags"], ["latest"])
        self.assertIsNone(reply.field("Link"))

    def test_referrers(self) -> None:
        reply = self.get(f"library/hello/referrers/{self.image.digest}")
        self.assertEqual(reply.field("Content-Type"), OCI_INDEX)
        self.assertEqual(reply.json()["manifests"], [])

    def test_search(self) -> None:
        self.hub.addImage("alice/hello", "latest", layers=[b"x"])
        self.hub.addImage("alice/hello-secret", "latest", layers=[b"x"])
        self.hub.private.add("alice/hello-*")
        url = f"{self.hub.searchURL}/v1/search?q="
        names = [entry["name"] for entry in self.ask("GET", f"{url}hello").json()["results"]]
        self.assertEqual(names, ["alice/hello", "hello"])
        self.assertEqual(self.ask("GET", f"{url}library/hello").json()["num_results"], 0)
        found = self.ask("GET", f"{url}hello&n=1&page=2").json()
        self.assertEqual((found["num_results"], found["num_pages"], found["page"]), (2, 2, 2))
        self.assertEqual([entry["name"] for entry in found["results"]], ["hello"])
        self.assertEqual(self.ask("GET", f"{self.hub.searchURL}/v1/_ping").status, 404)


class MirrorTests(RegistryCase):
    """
    The further mirror is the same Hub on a single origin.
    """

    def test_pull(self) -> None:
        base = self.hub.mirrorURL
        challenge = self.ask("GET", f"{base}/v2/").field("WWW-Authenticate")
        self.assertIn(f'realm="{base}/token"', challenge)
        scope = "repository:library/hello:pull"
        token = self.ask("GET", f"{base}/token?scope={scope}").json()["token"]
        url = f"{base}/v2/library/hello/blobs/{self.image.layers[0].digest}"
        reply = self.ask("GET", url, {"Range": "bytes=1-"}, token=token)
        self.assertEqual((reply.status, reply.body), (206, b"ne"))
        self.assertEqual(self.ask("GET", f"{base}/v1/search?q=hello").json()["num_results"], 1)
        self.assertEqual({seen.service for seen in self.hub.seen}, {"mirror"})
