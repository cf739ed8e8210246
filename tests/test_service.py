"""
Tests of the mirror as a service: how it starts to listen, and how it stops.
"""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, quoteStringArgument, wrapClientTLS
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site
from zope.interface import implementer

from hubmirror import HubMirror, MirrorConfig, makeSite
from hubmirror.config import ConfigError, RegistryConfig
from hubmirror.downstream.site import MirrorSite
from hubmirror.exchange import Outcome
from hubmirror.testing.ca import Authority
from hubmirror.transport.closingports import FIRST_REQUEST
from tests.upstream.support import RecordingAgent
from tests.wire.support import MemoryCase, answer, read

DRAIN = 30
"""
Seconds that requests in progress have to end when the mirror stops.
"""


@implementer(IHandshakeListener)
class Shaken(Protocol):
    """
    A client.

    @ivar shaken: fires when the TLS handshake is complete.
    """

    def __init__(self) -> None:
        self.shaken: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        self.shaken.callback(None)


class ListenTests(TestCase):
    def mirror(self, *ports: str) -> HubMirror:
        mirror = HubMirror(reactor, MirrorConfig(port=ports), RecordingAgent())
        self.addCleanup(mirror.service.stopService)
        return mirror

    def connect(self, port: int) -> Deferred[Protocol]:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return endpoint.connect(Factory.forProtocol(Protocol))

    async def test_several(self) -> None:
        """The mirror listens on every port, and on none after it is stopped."""
        service = self.mirror(*["tcp:0:interface=127.0.0.1"] * 2).service
        service.privilegedStartService()
        service.startService()
        numbers = [port.getHost().port for port in service.ports]
        self.assertEqual(len(set(numbers)), 2)
        for number in numbers:
            client = await self.connect(number)
            client.transport.abortConnection()
        await service.stopService()
        for number in numbers:
            await self.assertFailure(self.connect(number), ConnectError)

    async def test_chain(self) -> None:
        """
        All certificates of a file are sent, each once: without its chain, a public certificate is
        not trusted.
        """
        authority = Authority()
        folder = Path(self.mktemp(), "with:colon")
        folder.mkdir(parents=True)
        file = folder / "server.pem"
        file.write_bytes(authority.serverPEM(["127.0.0.1"]))
        quoted = quoteStringArgument(str(file))
        service = self.mirror(f"ssl:0:interface=127.0.0.1:privateKey={quoted}").service
        service.privilegedStartService()
        service.startService()
        address = TCP4ClientEndpoint(reactor, "127.0.0.1", service.ports[0].getHost().port)
        trust = trustRootFromCertificates([Certificate.loadPEM(authority.pem)])
        options = optionsForClientTLS("127.0.0.1", trust)
        client = await wrapClientTLS(options, address).connect(Factory.forProtocol(Shaken))
        await client.shaken
        chain = client.transport.getHandle().get_peer_cert_chain()
        self.assertEqual(
            [each.get_subject().CN for each in chain], ["127.0.0.1", "hubmirror.testing CA"]
        )
        client.transport.abortConnection()
        await service.stopService()

    def test_started(self) -> None:
        """The ports are bound even without C{privilegedStartService}."""
        service = self.mirror("tcp:0:interface=127.0.0.1").service
        service.startService()
        self.assertEqual(len(service.ports), 1)

    def test_taken(self) -> None:
        """If a port is in use, starting fails at once, and the other ports are closed."""
        first = self.mirror("tcp:0:interface=127.0.0.1").service
        first.startService()
        number = first.ports[0].getHost().port
        second = self.mirror(
            "tcp:0:interface=127.0.0.1", f"tcp:{number}:interface=127.0.0.1"
        ).service
        error = self.assertRaises(CannotListenError, second.privilegedStartService)
        self.assertIn(str(number), str(error))

    async def test_none(self) -> None:
        service = self.mirror().service
        service.startService()
        self.assertEqual(service.ports, [])
        await service.stopService()


class RefusalTests(SynchronousTestCase):
    def refused(self, **options: object) -> str:
        config = MirrorConfig(**{"port": (), **options})
        text = str(self.assertRaises(ConfigError, HubMirror, reactor, config))
        self.assertNotIn("\n", text)
        return text

    def test_noCertificate(self) -> None:
        """The error for C{ssl:443} names the file that is missing."""
        text = self.refused(port=("ssl:443",))
        self.assertTrue(text.startswith("--port ssl:443: "), text)
        self.assertIn("server.pem", text)
        self.assertIn("certKey=", text)

    def test_noEndpoint(self) -> None:
        self.assertIn("--port nonsense:1", self.refused(port=("nonsense:1",)))
        self.assertIn("--port tcp:x", self.refused(port=("tcp:x",)))

    def test_noBundle(self) -> None:
        self.assertIn("--ca-file: ", self.refused(ca_file="no such file"))
        registry = RegistryConfig(name="ghcr.test", ca_file="no such file")
        problem = self.refused(registries=[registry])
        self.assertTrue(problem.startswith('[registry."ghcr.test"] ca_file: no such'), problem)
        path = Path(self.mktemp())
        path.write_text("no certificate")
        self.assertIn("contains no PEM certificates", self.refused(ca_file=str(path)))


class EmbeddingTests(SynchronousTestCase):
    def test_makeSite(self) -> None:
        agent = RecordingAgent()
        site = makeSite(MirrorConfig(), reactor, agent)
        self.assertIsInstance(site, MirrorSite)

    def test_names(self) -> None:
        """Each mirror has a different name in C{Via}."""
        vias = {
            HubMirror(reactor, MirrorConfig(port=()), RecordingAgent()).service._mirror.via
            for _ in range(20)
        }
        self.assertEqual(len(vias), 20)


class DrainTests(MemoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.mirror.service.startService()

    def stop(self) -> Deferred[None]:
        stopping: Deferred[None] = self.mirror.service.stopService()
        self.clock.advance(0)
        return stopping

    def test_nothing(self) -> None:
        self.successResultOf(self.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_idle(self) -> None:
        """A kept connection without a request ends at once, a new one gets some time for it."""
        fresh, other = self.connect(), self.connect()
        used = self.send(b"/v1/_ping")
        stopping = self.stop()
        self.assertEqual((fresh.ended, used.ended), ("", "closed"))
        self.send(b"/v1/_ping", line=other)
        self.assertEqual(read(other.value()).status, 200)
        self.clock.advance(FIRST_REQUEST)
        self.clock.advance(0)
        self.assertEqual((fresh.ended, other.ended), ("closed", "closed"))
        self.successResultOf(stopping)

    def test_transfer(self) -> None:
        """A request in progress ends normally, and then its connection is closed."""
        client = self.send(b"/v2/a")
        upstream = self.network.lines[0]
        upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        stopping = self.stop()
        self.clock.pump([1] * 10)
        self.assertNoResult(stopping)
        self.assertEqual(client.ended, "")
        upstream.says(b"67890")
        self.assertTrue(client.value().endswith(b"1234567890"))
        self.assertEqual(client.ended, "closed")
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.assertIs(self.exchanges[0].outcome, Outcome.COMPLETE)

    def test_beforeTheHead(self) -> None:
        """A response that begins while the mirror stops has C{Connection: close}."""
        client = self.send(b"/v2/a")
        stopping = self.stop()
        self.network.lines[0].says(answer(200, b"body"))
        got = self.answered(client)
        self.assertEqual((got.values(b"Connection"), got.body), ([b"close"], b"body"))
        self.successResultOf(stopping)

    def test_upload(self) -> None:
        client = self.connect()
        client.says(b"PUT /v2/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        stopping = self.stop()
        client.says(b"67890")
        self.assertNoResult(stopping)
        self.network.lines[0].says(answer(201))
        self.assertEqual(self.answered(client).status, 201)
        self.successResultOf(stopping)

    def test_tooLong(self) -> None:
        """After the timeout, the remaining requests are aborted, and their number is logged."""
        clients = [self.send(b"/v2/a") for _ in range(2)]
        for upstream in self.network.lines:
            upstream.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        stopping = self.stop()
        with capturedLogs() as events:
            for _ in range(DRAIN):
                self.assertNoResult(stopping)
                for upstream in self.network.lines:
                    upstream.says(b"x" * 10_000)
                self.clock.advance(1)
        self.clock.advance(0)
        self.successResultOf(stopping)
        self.assertEqual([client.ended for client in clients], ["aborted"] * 2)
        self.assertEqual([line.ended for line in self.network.lines], ["aborted"] * 2)
        self.assertEqual(len(self.exchanges), 2)
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["drain-timeout has passed: aborting 2 requests"],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clientThatDoesNotRead(self) -> None:
        """A connection that can't be closed properly is aborted."""
        client = self.connect()
        client.loseConnection = lambda: None
        stopping = self.stop()
        self.assertNoResult(stopping)
        self.clock.advance(DRAIN)
        self.clock.advance(0)
        self.assertEqual(client.ended, "aborted")
        self.successResultOf(stopping)


class PlainSiteDrainTests(MemoryCase):
    """
    The mirror under another site, whose connections it can't close.
    """

    def makeSite(self) -> Site:
        return Site(self.mirror.resource, reactor=self.clock)

    def test_refused(self) -> None:
        """New requests are refused, so that the client tries its next host."""
        client = self.connect()
        stopping = self.mirror.service.stopService()
        got = self.local(b"/v2/", line=client)
        self.assertEqual((got.status, got.error), (503, "UNAVAILABLE"))
        self.assertEqual(got.values(b"Retry-After"), [b"5"])
        self.successResultOf(stopping)

    def test_transfer(self) -> None:
        client = self.send(b"/v2/a")
        stopping = self.mirror.service.stopService()
        self.assertNoResult(stopping)
        self.network.lines[0].says(answer(200, b"body"))
        self.assertEqual(self.answered(client).body, b"body")
        self.successResultOf(stopping)
