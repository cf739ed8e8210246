"""
Tests of backpressure in both directions: exactly on a transport in memory, and also on loopback.
"""

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed, readBody

from hubmirror.testing import EmbeddedHub
from hubmirror.testing.blobs import PIECE
from tests.testing.support import LoopbackCase

HERE = IPv4Address("TCP", "127.0.0.1", 50000)


class FullTransport(StringTransport):
    """
    A transport that pauses its producer after each write, until the test reads.
    """

    def write(self, data: bytes) -> None:
        super().write(data)
        self.producer.pauseProducing()

    def read(self) -> bytes:
        data = self.value()
        self.clear()
        self.producer.resumeProducing()
        return data


class TransportTests(SynchronousTestCase):
    def connect(self, transport: StringTransport) -> IPushProducer:
        self.hub = EmbeddedHub(Clock())
        channel = self.hub.mirror.site.buildProtocol(HERE)
        channel.makeConnection(transport)
        return channel

    def test_slowReader(self) -> None:
        """
        No more is sent than the transport accepts.
        """
        transport = FullTransport()
        channel = self.connect(transport)
        size = 10 * PIECE
        blob = self.hub.addBlob("library/hello", size)
        token = self.hub.issueToken("library/hello")
        channel.dataReceived(
            f"GET /v2/library/hello/blobs/{blob.digest} HTTP/1.1\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        self.assertLessEqual(self.hub.mirror.bytesSent, PIECE)
        received = b""
        while data := transport.read():
            received += data
            self.assertLessEqual(self.hub.mirror.bytesSent, len(received) + PIECE)
        self.assertTrue(received.endswith(b"".join(blob.pieces(0, size))))

    def test_stopReading(self) -> None:
        transport = StringTransport()
        channel = self.connect(transport)
        self.hub.mirror.stopReading(after=100)
        channel.dataReceived(b"PUT / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        self.assertEqual(transport.producerState, "producing")
        channel.dataReceived(bytes(100))
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(self.hub.mirror.bytesReceived, 140)


class LoopbackTests(LoopbackCase):
    async def test_unreadBlob(self) -> None:
        """
        If a client does not read, the rest of its blob is not generated.
        """
        blob = self.hub.addBlob("library/hello", 100_000_000)
        response = await self.ask("GET", await self.link("library/hello", blob.digest))
        # Meanwhile another response is sent.
        await readBody(await self.ask("GET", f"{self.hub.searchURL}/v1/search"))
        self.assertLess(self.hub.cdn.bytesSent, 50_000_000)
        await self.hub.cdn.disconnect()
        await self.assertFailure(readBody(response), ResponseFailed)

    async def test_resumesReading(self) -> None:
        """
        What has not been read is read when the Hub is told to resume.
        """
        self.hub.registry.stopReading(after=1)
        pending = self.treq.put(f"{self.hub.registryURL}/v2/", data=bytes(1_000_000))
        await readBody(await self.ask("GET", f"{self.hub.searchURL}/v1/search"))
        self.assertEqual(self.hub.registry.seen, [])
        self.hub.registry.restore()
        response = await pending
        await readBody(response)
        self.assertEqual(self.hub.registry.seen[0].bodyLength, 1_000_000)
