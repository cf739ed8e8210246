"""
Tests of backpressure: a reader that stops also stops the sender, in either direction, and nothing
is buffered in between.

The limit is what the two connections hold: the buffers of the four sockets, of TLS, and of the
reactor. Most of it is the buffer of some MiB that the kernel gives a socket on loopback.
"""

from __future__ import annotations

import socket
from hashlib import sha256
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import cooperate

from hubmirror.exchange import Outcome
from tests.wire.loopback import LoopbackCase, settled, until

BOUND = 16 * 1024 * 1024
"""
Bytes that may lie between an upstream and a client that does not read.
"""

BLOB = 8 * BOUND
"""
The size of what is sent.
"""


class Client(Protocol):
    """
    A client that reads only when it is told to.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._head = b""
        self.received = 0
        self.hash = sha256()
        self.lost: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()
        transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if b"\r\n\r\n" not in self._head:
            self._head += data
            self._head, _, data = self._head.partition(b"\r\n\r\n")
            self._head += b"\r\n\r\n"
        self.received += len(data)
        self.hash.update(data)

    def connectionLost(self, reason: Any) -> None:
        self.lost.callback(None)


class BoundCase(LoopbackCase):
    async def connect(self, request: bytes) -> Client:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.plainPort)
        client = await endpoint.connect(Factory.forProtocol(lambda: Client(request)))
        # By default, the kernel would enlarge the buffer again and again.
        client.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.addCleanup(self.leave, client)
        return client

    async def leave(self, client: Client) -> None:
        client.transport.abortConnection()
        if not client.lost.called:
            await client.lost

    async def stalled(self, blob: Any) -> Client:
        """A client that has requested a blob, and does not read."""
        fields = await self.authorize(self.plain, "repository:library/hello:pull")
        return await self.connect(
            f"GET /v2/library/hello/blobs/{blob.digest} HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: {fields['Authorization']}\r\n\r\n".encode()
        )


class PullBoundTests(BoundCase):
    async def test_stalledReader(self) -> None:
        """
        A client that does not read stops the CDN; when it reads again, it receives everything.
        """
        self.start()
        blob = self.hub.addBlob("library/hello", BLOB)
        client = await self.stalled(blob)
        await until(lambda: self.hub.cdn.bytesSent > 0)
        self.assertLess(await settled(lambda: self.hub.cdn.bytesSent), BOUND)
        self.assertEqual(client.received, 0)
        client.transport.resumeProducing()
        await until(lambda: client.received == BLOB)
        self.assertEqual(f"sha256:{client.hash.hexdigest()}", blob.digest)

    async def test_several(self) -> None:
        """Each stalled client has a limit of its own, and stops no other."""
        self.start()
        blob = self.hub.addBlob("library/hello", BLOB)
        for _ in range(4):
            await self.stalled(blob)
        await until(lambda: len(self.hub.cdn.seen) == 4)
        self.assertLess(await settled(lambda: self.hub.cdn.bytesSent), 4 * BOUND)
        self.hub.addImage("library/hello", "latest", sizes=[1_000_000])
        self.assertEqual(len(await self.pull(self.plain, "library/hello", "latest")), 1)

    async def test_leaves(self) -> None:
        """
        When a client leaves in the middle, its upstream stream is closed, and no more is sent.
        """
        self.start()
        client = await self.stalled(self.hub.addBlob("library/hello", BLOB))
        await until(lambda: self.hub.cdn.bytesSent > 0)
        await settled(lambda: self.hub.cdn.bytesSent)
        await self.leave(client)
        await until(lambda: not self.hub.cdn.site.channels)
        self.assertLess(self.hub.cdn.bytesSent, BOUND)
        await until(lambda: self.exchanges[-1].target.startswith(b"/v2/library/"))
        self.assertIs(self.exchanges[-1].outcome, Outcome.CLIENT_LEFT)


class PushBoundTests(BoundCase):
    async def test_stalledUpstream(self) -> None:
        """
        A registry that does not read stops the client; when it reads again, it receives everything.
        """
        self.hub.addUser("alice", "secret", push=["alice/*"])
        self.start()
        fields = await self.authorize(
            self.plain, "repository:alice/made:push,pull", "Basic YWxpY2U6c2VjcmV0"
        )
        reply = await self.ask("POST", f"{self.plain}/v2/alice/made/blobs/uploads/", fields)
        target = (reply.field("Location") or "").removeprefix(self.plain)
        self.hub.registry.stopReading(after=1_000_000)
        client = await self.connect(
            f"PATCH {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {BLOB}\r\n"
            f"Authorization: {fields['Authorization']}\r\n\r\n".encode()
        )
        sent = 0

        def body() -> Any:
            nonlocal sent
            piece = b"x" * 65536
            for _ in range(BLOB // len(piece)):
                sent += len(piece)
                client.transport.write(piece)
                yield

        sending = cooperate(body())
        client.transport.registerProducer(Pausing(sending), True)
        await until(lambda: self.hub.registry.bytesReceived > 1_000_000)
        self.assertLess(await settled(lambda: sent), BOUND)
        self.hub.registry.restore()
        await sending.whenDone()
        client.transport.unregisterProducer()
        client.transport.resumeProducing()
        await until(lambda: self.exchanges[-1].method == b"PATCH")
        self.assertEqual((self.exchanges[-1].status, self.exchanges[-1].received), (202, BLOB))


class Pausing:
    """
    A cooperative task that is a producer.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self.resumeProducing = task.resume
        self.pauseProducing = task.pause
        self.stopProducing = task.stop
