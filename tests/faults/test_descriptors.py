"""
Tests of a mirror with few file descriptors, while a client has hundreds of requests in progress on
a few connections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamReset
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from hubmirror.testing.ca import Authority
from tests import PLAIN
from tests.faults.test_process import Mirror
from tests.wire.loopback import until

DESCRIPTORS = 128
SLOTS = 26
"""
How many requests to upstreams a process with so many descriptors has at once; one client may have
half of them.
"""
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


class Upstream(Protocol):
    """
    A registry's side of a connection.  It responds at once, but sends only one byte of a blob.
    """

    factory: Any

    def connectionMade(self) -> None:
        self.factory.open.add(self)
        self.factory.most = max(self.factory.most, len(self.factory.open))
        self._data = b""

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self._data.endswith(b"\r\n\r\n"):
            isSlow = b"/blobs/" in self._data
            self._data = b""
            self.transport.write(HEAD + (b"x" if isSlow else b"0123456789"))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.factory.open.discard(self)


class UpstreamFactory(Factory):
    """
    The server of the registry.

    @ivar open: the open connections.
    @ivar most: the highest number of connections at one time.
    """

    protocol = Upstream
    noisy = False

    def __init__(self) -> None:
        self.open: set[Upstream] = set()
        self.most = 0


@implementer(IHandshakeListener)
class Client(Protocol):
    """
    An HTTP/2 client.

    @ivar ready: fires when requests can be sent.
    @ivar statuses: the statuses of the responses that have begun, by stream.
    """

    transport: Any

    def __init__(self) -> None:
        self.ready: Deferred[Client] = Deferred()
        self.statuses: dict[int, bytes] = {}
        self.isOpen = True
        self._h2 = H2Connection()

    def handshakeCompleted(self) -> None:
        assert self.transport.negotiatedProtocol == b"h2"
        self._h2.initiate_connection()
        self._flush()
        self.ready.callback(self)

    def ask(self, path: str) -> int:
        """
        Send a GET request.

        @return: the stream.
        """
        stream = self._h2.get_next_available_stream_id()
        fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "mirror.example"),
            (":path", path),
        ]
        self._h2.send_headers(stream, fields, end_stream=True)
        self._flush()
        return stream

    def dataReceived(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = dict(event.headers)[b":status"]
            assert not isinstance(event, StreamReset), event
        self._flush()

    def _flush(self) -> None:
        self.transport.write(self._h2.data_to_send())

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.isOpen = False


class DescriptorTests(TestCase):
    timeout = 60

    async def start(self, *options: str) -> None:
        self.authority = Authority()
        pem = Path(self.mktemp())
        pem.write_bytes(self.authority.serverPEM(["mirror.example"]))
        self.upstream = UpstreamFactory()
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            self.upstream
        )
        self.addCleanup(listening.stopListening)
        self.mirror = Mirror(
            DESCRIPTORS,
            f"--port=ssl:0:interface=127.0.0.1:privateKey={pem.absolute()}",
            f"--registry-url=http://127.0.0.1:{listening.getHost().port}",
            *(["--plain-transport"] if PLAIN else []),
            *options,
        )
        self.addCleanup(self.end)
        self.port = await self.mirror.listening(b"https")

    async def end(self) -> None:
        if not self.mirror.ended.called:
            self.mirror.transport.signalProcess("KILL")
            await self.mirror.ended
        await until(lambda: not self.upstream.open)

    async def connect(self, host: str) -> Client:
        """
        Connect a client.

        @param host: the client's own address.
        """
        trust = trustRootFromCertificates([Certificate.loadPEM(self.authority.pem)])
        options = optionsForClientTLS("mirror.example", trust, acceptableProtocols=[b"h2"])
        place = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port, bindAddress=(host, 0))
        client = await wrapClientTLS(options, place).connect(Factory.forProtocol(Client))
        assert isinstance(client, Client)
        self.addCleanup(self.leave, client)
        return await client.ready

    async def leave(self, client: Client) -> None:
        if client.isOpen:
            client.transport.abortConnection()
        await until(lambda: not client.isOpen)

    async def test_slowStreams(self) -> None:
        """
        Three connections with a hundred slow GETs each neither use up the descriptors nor mark the
        upstream down, and another client is served meanwhile.
        """
        await self.start("--queue-timeout=1", "--stall-timeout=600")
        greedy = [await self.connect("127.0.0.2") for _ in range(3)]
        for client in greedy:
            for number in range(100):
                client.ask(f"/v2/library/a/blobs/sha256:{number:064}")
        await until(lambda: len(self.upstream.open) == SLOTS // 2)
        other = await self.connect("127.0.0.3")
        stream = other.ask("/v2/library/a/manifests/latest")
        await until(lambda: stream in other.statuses)
        self.assertEqual(other.statuses[stream], b"200")
        await until(lambda: sum(len(client.statuses) for client in greedy) == 300)
        statuses = [status for client in greedy for status in client.statuses.values()]
        self.assertEqual(statuses.count(b"200"), SLOTS // 2)
        self.assertEqual(statuses.count(b"503"), 300 - SLOTS // 2)
        # The connections of requests that have a response, and the idle connection of the other
        # client's request.
        self.assertEqual(self.upstream.most, SLOTS // 2 + 1)
        for client in greedy:
            await self.leave(client)
        stream = other.ask("/v2/library/a/manifests/latest")
        await until(lambda: stream in other.statuses)
        self.assertEqual(other.statuses[stream], b"200")
        for trace in (b"file descriptor", b"EMFILE", b"marked down", b"Traceback"):
            self.assertNotIn(trace, self.mirror.output)
        self.assertIn(b"too many requests to upstreams", self.mirror.output)
