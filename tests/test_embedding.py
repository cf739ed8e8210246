"""
Tests of the mirror in other services: the example of the documentation, and Twisted's own site.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from tests.wire.loopback import LoopbackCase, digestOf

EXAMPLE = Path(__file__).parent.parent / "examples" / "beside.py"
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


class ExampleTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Start the example as its docstring explains, on a port that the kernel chooses."""
        self.process = subprocess.Popen(
            [*TWISTD, "--nodaemon", "--pidfile=", "--python", str(EXAMPLE)],
            env={
                **os.environ,
                "PORT": "tcp:0:interface=127.0.0.1",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.stop)
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            listening = re.search(r"listening on http://127\.0\.0\.1:([0-9]+)", line)
            if listening is not None:
                self.port = int(listening[1])
                return
        self.fail(said)

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    def test_beside(self) -> None:
        """The page and the mirror are on the same port."""
        self.assertEqual(self.get("/status"), (200, b"all is well\n"))
        self.assertEqual(self.get("/v1/_ping"), (200, b"true"))
        status, body = self.get("/v2/_catalog")
        self.assertEqual(status, 404)
        self.assertIn(b"NAME_UNKNOWN", body)


class PlainSiteTests(LoopbackCase):
    """
    Everything works under Twisted's own site, too.
    """

    async def setUp(self) -> None:
        await super().setUp()
        mirror = self.start()
        site = Site(mirror.resource)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        self.base = f"http://127.0.0.1:{port.getHost().port}"

    async def test_pull(self) -> None:
        image = self.hub.addImage("library/hello", "1", sizes=[1_000_000])
        [layer] = await self.pull(self.base, "library/hello", "1")
        self.assertEqual(digestOf(layer), image.layers[0].digest)

    async def test_push(self) -> None:
        self.hub.addUser("alice", "secret", push=["alice/*"])
        fields = await self.authorize(
            self.base, "repository:alice/a:push,pull", "Basic YWxpY2U6c2VjcmV0"
        )
        url = f"{self.base}/v2/alice/a"
        for body in (b"", b"x" * 3_000_000):
            reply = await self.ask("POST", f"{url}/blobs/uploads/", fields)
            self.assertEqual(reply.status, 202)
            location = f"{reply.field('Location')}&digest={digestOf(body)}"
            reply = await self.ask("PUT", location, fields, body)
            self.assertEqual(reply.status, 201, reply)
            reply = await self.ask("GET", f"{url}/blobs/{digestOf(body)}", fields)
            self.assertEqual(reply.body, body)

    async def test_refusedPush(self) -> None:
        """A push is refused whose body was not read."""
        reply = await self.ask(
            "PUT", f"{self.base}/v2/alice/a/blobs/uploads/1", None, b"x" * 3_000_000
        )
        self.assertEqual(reply.status, 401)
