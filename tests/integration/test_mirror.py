"""
Tests of the mirror's behaviour towards the Hub.
"""

from __future__ import annotations

import itertools
import json
import re

from tests.integration.mirror import Mirror, ask
from tests.integration.programs import (
    Server,
    eventually,
    freePort,
    listens,
    pythonProgram,
    require,
    run,
)
from tests.integration.tokens import SERVICE
from tests.integration.world import IntegrationTestCase

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class MirrorTests(IntegrationTestCase):
    def bearer(self, repository: str) -> dict[str, str]:
        """The request fields of a client that may pull from a public repository."""
        scope = f"repository:{repository}:pull"
        answer = self.mirror.ask(f"/token?service={SERVICE}&scope={scope}")
        token = json.loads(answer.body)["token"]
        return {"Authorization": f"Bearer {token}", "Accept": _MANIFEST}

    def test_connectionsToTheRegistry(self) -> None:
        """
        Twenty manifests one after another, each on a new connection as with dockerd, take at most
        two connections to the registry.
        """
        fields = self.bearer("library/tags")
        for number in range(1, 21):
            answer = self.mirror.ask(f"/v2/library/tags/manifests/{number}", fields)
            published = self.hub.images[f"library/tags:{number}"]
            self.assertEqual(answer.headers["Docker-Content-Digest"], published.digest)
        asked = self.seen(self.hub.front.log)
        self.assertEqual(len(asked), 20)
        self.assertLessEqual(len({request["connection"] for request in asked}), 2)

    def test_connectionsToTheCdn(self) -> None:
        """Ten blobs one after another take at most four connections to the CDN."""
        fields = self.bearer("library/ten")
        blobs = self.hub.images["library/ten:latest"].blobs
        connection = self.mirror.connect()
        self.addCleanup(connection.close)
        for blob in blobs:
            self.assertEqual(ask(connection, f"/v2/library/ten/blobs/{blob}", fields).status, 200)
        fetched = self.seen(self.hub.cdn.log)
        self.assertEqual(len(fetched), len(blobs))
        self.assertLessEqual(len({request["connection"] for request in fetched}), 4)

    def test_registryLearnsTheClient(self) -> None:
        """
        The client's address is sent to the registry and the token service, but not to the CDN.
        """
        fields = {**self.bearer("library/one"), "User-Agent": "probe/1"}
        blob = min(self.hub.images["library/one:latest"].blobs)
        self.mirror.ask(f"/v2/library/one/blobs/{blob}", fields)
        [asked] = self.seen(self.hub.front.log)
        self.assertEqual(asked["forwardedFor"], "127.0.0.1")
        self.assertEqual(asked["authorization"], "Bearer")
        self.assertEqual(asked["userAgent"], "probe/1")
        self.assertNotEqual(asked["via"], "")
        [fetched] = self.seen(self.hub.cdn.log)
        self.assertEqual((fetched["forwardedFor"], fetched["authorization"]), ("", ""))
        self.assertEqual(self.seen(self.hub.services)[0]["forwardedFor"], "127.0.0.1")

    def test_range(self) -> None:
        fields = {**self.bearer("library/one"), "Range": "bytes=1-3"}
        blob = min(self.hub.images["library/one:latest"].blobs)
        answer = self.mirror.ask(f"/v2/library/one/blobs/{blob}", fields)
        self.assertEqual((answer.status, len(answer.body)), (206, 3))
        self.assertTrue(answer.headers["Content-Range"].startswith("bytes 1-3/"))

    def test_limitedWithoutHelp(self) -> None:
        """When the fallback does not serve either, the client is sent the first upstream's 429."""
        front, backdoor = self.hub.front, self.hub.backdoor
        self.forgetAfterwards()
        for server in (front, backdoor):
            self.addCleanup(server.switchOff, server.LIMITED)
            server.switchOn(server.LIMITED)
        answer = self.mirror.ask("/v2/library/one/manifests/latest", self.bearer("library/one"))
        self.assertEqual((answer.status, answer.headers["Retry-After"]), (429, "30"))
        self.assertEqual(json.loads(answer.body)["errors"][0]["code"], "TOOMANYREQUESTS")

    def test_noCredentialInItsLog(self) -> None:
        """The log contains neither the bearer token nor the signature of a redirect."""
        before = len(self.mirror.server.output())

        def output() -> str:
            return self.mirror.server.output()[before:]

        fields = self.bearer("library/one")
        blob = min(self.hub.images["library/one:latest"].blobs)
        self.mirror.ask(f"/v2/library/one/blobs/{blob}", fields)
        eventually(lambda: re.search(f"/blobs/{blob} 200 .*\n", output()) is not None, "logged")
        self.assertNotIn(fields["Authorization"].partition(" ")[2], output())
        self.assertNotIn("Expires=", output())

    def test_http2(self) -> None:
        """A client that offers HTTP/2 gets it, and the whole layer."""
        require("curl")
        fields = self.bearer("library/one")
        blobs = self.hub.images["library/one:latest"].blobs
        layer = max(blobs, key=lambda blob: blobs[blob])
        command = ["curl", "--silent", "--fail", "--http2", "--output", "/dev/null"]
        options = {
            "--cacert": str(self.world.authority.bundle),
            "--header": f"Authorization: {fields['Authorization']}",
            "--write-out": "%{http_version} %{size_download}",
            "--url": f"https://127.0.0.1:{self.mirror.port}/v2/library/one/blobs/{layer}",
        }
        answer = run([*command, *itertools.chain(*options.items())])
        self.assertEqual(answer, f"2 {blobs[layer]}")


class NamesTests(IntegrationTestCase):
    """Mirrors of their own, which can't resolve any name at the start."""

    def setUp(self) -> None:
        super().setUp()
        self.hosts = self.world.hostsFile(self.id(), "")

    def start(self, *options: str) -> Mirror:
        name = f"{self.id().rpartition('.')[2].lower()}.test"
        mirror = self.world.makeMirror(name, self.hosts, self.hub.registryUrl, *options)
        self.addCleanup(mirror.server.stop)
        mirror.server.start()
        return mirror

    def test_namesThatResolveLate(self) -> None:
        """
        While the Hub's name does not resolve, the response is 502; when it resolves, the Hub is
        used.
        """
        mirror = self.start()
        answer = mirror.ask("/v2/")
        self.assertEqual(answer.status, 502)
        self.assertIn("errors", json.loads(answer.body))
        with self.hosts.open("a") as hosts:
            hosts.write(self.hub.hosts)
        self.assertEqual(mirror.ask("/v2/").status, 401)

    def test_resolver(self) -> None:
        """C{--resolver} names the DNS server to use, which is C{twistd dns} here."""
        port = freePort()
        command = [pythonProgram("twistd"), "-n", "--pidfile=", "dns", "--interface=127.0.0.1"]
        options = [f"--port={port}", f"--hosts-file={self.world.hubHosts}"]
        resolver = Server(
            "dns", [*command, *options], self.world.folder, ready=lambda: listens(port)
        )
        self.addCleanup(resolver.stop)
        resolver.start()
        mirror = self.start(f"--resolver=127.0.0.1:{port}")
        self.assertEqual(mirror.ask("/v2/").status, 401)
