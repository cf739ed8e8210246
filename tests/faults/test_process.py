"""
Tests of the mirror as a process, with few file descriptors, and when it is stopped.
"""

from __future__ import annotations

import os
import re
import sys
from hashlib import sha256
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from hubmirror.testing import EmbeddedHub
from tests import PLAIN
from tests.faults.table import REPOSITORY
from tests.wire.loopback import until

PING = b"GET /v1/_ping HTTP/1.1\r\nHost: a\r\n\r\n"
PONG = b"\r\n\r\ntrue"
BLOB = 32 * 1024 * 1024
"""
More than the buffers between the Hub and a client that does not read.
"""


class Mirror(ProcessProtocol):
    """
    The process of C{twistd hubmirror} with a limited number of file descriptors.

    @ivar ended: fires with the exit status.
    """

    def __init__(self, descriptors: int, *options: str) -> None:
        self.output = b""
        self.ended: Deferred[int | None] = Deferred()
        reactor.spawnProcess(
            self,
            "/bin/sh",
            [
                *("sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"),
                *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                *("-n", "--pidfile=", "hubmirror", "--port=tcp:0:interface=127.0.0.1"),
                *options,
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value.exitCode)

    async def listening(self, scheme: bytes = b"http") -> int:
        """The port that the mirror listens on."""
        pattern = re.compile(rb"listening on %b://127.0.0.1:([0-9]+)\s" % scheme)
        await until(lambda: self.ended.called or pattern.search(self.output) is not None)
        found = pattern.search(self.output)
        assert found is not None, self.output
        return int(found[1])


class Client(Protocol):
    """
    A client.

    @ivar data: the bytes that it has read.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.isOpen = False

    def connectionMade(self) -> None:
        self.isOpen = True

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.isOpen = False


class ProcessCase(TestCase):
    timeout = 60

    async def start(self, descriptors: int, *options: str) -> None:
        self.hub = hub = EmbeddedHub(reactor)
        await hub.start()
        self.addCleanup(hub.stop)
        self.blob = hub.addBlob(REPOSITORY, BLOB)
        self.mirror = Mirror(
            descriptors,
            f"--registry-url={hub.registryURL}",
            f"--auth-url={hub.authURL}",
            f"--search-url={hub.searchURL}",
            f"--allow-redirects-to={hub.cdnOrigin}",
            f"--ca-file={hub.caFile}",
            *(["--plain-transport"] if PLAIN else []),
            *options,
        )
        self.addCleanup(self.end)
        self.port = await self.mirror.listening()

    async def end(self) -> None:
        if not self.mirror.ended.called:
            self.mirror.transport.signalProcess("KILL")
            await self.mirror.ended

    async def connect(self) -> Client:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        client = await endpoint.connect(Factory.forProtocol(Client))
        self.addCleanup(self.leave, client)
        assert isinstance(client, Client)
        return client

    async def leave(self, client: Client) -> None:
        transport: Any = client.transport
        transport.abortConnection()
        await until(lambda: not client.isOpen)

    async def ping(self, client: Client) -> None:
        client.data.clear()
        transport: Any = client.transport
        transport.write(PING)
        await until(lambda: client.data.endswith(PONG) or not client.isOpen)
        self.assertTrue(client.data.endswith(PONG), client.data)

    async def begin(self) -> Client:
        """Connect a client that requests the blob and pauses."""
        client = await self.connect()
        token = self.hub.issueToken(REPOSITORY, "pull")
        transport: Any = client.transport
        transport.write(
            f"GET /v2/{REPOSITORY}/blobs/{self.blob.digest} HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        await until(lambda: len(client.data) > 0)
        transport.pauseProducing()
        return client

    async def finish(self, client: Client) -> None:
        """Let a client read the rest."""
        transport: Any = client.transport
        transport.resumeProducing()
        start = client.data.index(b"\r\n\r\n") + 4
        await until(lambda: len(client.data) == start + BLOB or not client.isOpen)
        digest = sha256(memoryview(client.data)[start:]).hexdigest()
        self.assertEqual(f"sha256:{digest}", self.blob.digest)


class DescriptorTests(ProcessCase):
    async def test_exhausted(self) -> None:
        """
        With more connections than descriptors, existing ones go on, others are closed, and all is
        as before when descriptors are free again.  Only limits that do not fit cause this, and the
        log has a warning about it.
        """
        await self.start(40, "--max-connections=1000", "--max-connections-per-client=1000")
        self.assertIn(
            b"1000 connections of clients and 4 to upstreams need 1069 open files, but this"
            b" process may have 40: raise that limit",
            self.mirror.output,
        )
        pulling, asking = await self.begin(), await self.connect()
        await self.ping(asking)
        crowd = [await self.connect() for _ in range(60)]
        await until(lambda: not all(client.isOpen for client in crowd))
        for _ in range(5):
            await self.ping(asking)
        await self.finish(pulling)
        for client in crowd:
            await self.leave(client)
        late = await self.begin()
        await self.finish(late)
        self.assertFalse(self.mirror.ended.called)
        self.assertNotIn(b"Traceback", self.mirror.output)
        # The kernel reports each connection that can't be accepted once, and the process does not
        # spin.
        self.assertLessEqual(self.mirror.output.count(b"EMFILE encountered"), 60)
        self.assertIn(b"EMFILE encountered", self.mirror.output)


class SignalTests(ProcessCase):
    async def refuses(self) -> None:
        """Wait until the mirror no longer listens."""
        while True:
            try:
                await self.connect()
            except ConnectError:
                return

    async def test_drain(self) -> None:
        """
        SIGTERM: no new connections are accepted, requests in progress end, and the status is 0.
        """
        await self.start(1000)
        pulling, idle = await self.begin(), await self.connect()
        await self.ping(idle)
        self.mirror.transport.signalProcess("TERM")
        await self.refuses()
        await until(lambda: not idle.isOpen)
        self.assertTrue(pulling.isOpen)
        self.assertFalse(self.mirror.ended.called)
        await self.finish(pulling)
        self.assertEqual(await self.mirror.ended, 0, self.mirror.output)

    async def test_deadline(self) -> None:
        """Requests that take too long are aborted; the status is 0 all the same."""
        await self.start(1000, "--drain-timeout=0.5")
        pulling = await self.begin()
        self.mirror.transport.signalProcess("TERM")
        self.assertEqual(await self.mirror.ended, 0, self.mirror.output)
        self.assertIn(b"drain-timeout has passed: aborting 1 requests", self.mirror.output)
        pulling.transport.resumeProducing()
        await until(lambda: not pulling.isOpen)
        self.assertLess(len(pulling.data), BLOB)

    async def test_twice(self) -> None:
        """A second signal ends the process at once."""
        await self.start(1000)
        pulling = await self.begin()
        self.mirror.transport.signalProcess("TERM")
        await self.refuses()
        self.assertFalse(self.mirror.ended.called)
        self.mirror.transport.signalProcess("TERM")
        self.assertEqual(await self.mirror.ended, 128 + 15, self.mirror.output)
        pulling.transport.resumeProducing()
        await until(lambda: not pulling.isOpen)
        self.assertLess(len(pulling.data), BLOB)
