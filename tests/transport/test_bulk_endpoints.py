"""Tests of the mirror's TLS with real endpoints and real clients."""

from __future__ import annotations

import hashlib
from functools import partial
from itertools import product
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, serverFromString, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from hubmirror import HubMirror, MirrorConfig
from hubmirror.transport.tls import BATCH, BulkTLS
from hubmirror.transport.tlsendpoints import BulkTLSEndpoint, TLSReactor
from tests.transport.support import Negotiating
from tests.transport.tlspair import AUTHORITY, ROLES, TRUST, Peer, bytesOf


class Ending(Peer):
    """
    A protocol that reports its events.

    @ivar began: fires when the handshake is complete.
    @ivar ended: fires when the connection is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.began: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        super().handshakeCompleted()
        self.began.callback(None)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        self.ended.callback(None)


class EndpointCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.pem = self.mktemp()
        FilePath(self.pem).setContent(AUTHORITY.serverPEM(["localhost", "127.0.0.1"]))

    async def listen(self, description: str, peer: Protocol, on: Any = None) -> int:
        """
        Listen on a port.

        @return: the port's number.
        """
        endpoint = serverFromString(on or TLSReactor(reactor), description)
        port = await endpoint.listen(Negotiating.forProtocol([peer].pop))
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def connect(self, port: int, peer: Peer, *protocols: bytes, bulk: bool = True) -> None:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", port)
        creator = optionsForClientTLS(
            "localhost", trustRoot=TRUST, acceptableProtocols=list(protocols)
        )
        wrap = partial(BulkTLSEndpoint, reactor) if bulk else wrapClientTLS
        connected = await wrap(creator, endpoint).connect(Factory.forProtocol([peer].pop))
        self.assertIs(connected, peer)


class EndpointTests(EndpointCase):
    async def made(self, description: str) -> tuple[object, object]:
        """
        Connect a client.

        @return: the transports of client and server.
        """
        client, server = Ending(), Ending()
        await self.connect(await self.listen(description, server), client, b"http/1.1")
        await client.began
        self.assertEqual(client.transport.negotiatedProtocol, b"http/1.1")
        client.transport.loseConnection()
        await client.ended
        await server.ended
        return client.transport, server.transport

    async def test_ssl(self) -> None:
        for transport in await self.made(f"ssl:0:interface=127.0.0.1:privateKey={self.pem}"):
            self.assertIsInstance(transport, BulkTLS)
            self.assertTrue(ISSLTransport.providedBy(transport))

    async def test_longChain(self) -> None:
        """A handshake may have a long certificate chain."""
        chain = self.mktemp()
        FilePath(chain).setContent(AUTHORITY.pem * 100)
        await self.made(f"ssl:0:interface=127.0.0.1:privateKey={self.pem}:extraCertChain={chain}")

    async def test_tls(self) -> None:
        """C{tls:} uses the certificates of a folder, by the name that the client sends."""
        folder = FilePath(self.mktemp())
        folder.makedirs()
        # This is without the authority's own certificate, which makes Twisted loop for ever.
        pem, end, _ = AUTHORITY.serverPEM(["localhost"]).partition(b"-----END CERTIFICATE-----\n")
        folder.child("localhost.pem").setContent(pem + end)
        for transport in await self.made(f"tls:{folder.path}:0:interface=\\:\\:ffff\\:127.0.0.1"):
            self.assertIsInstance(transport, BulkTLS)

    async def test_tcp(self) -> None:
        server = Ending()
        port = await self.listen("tcp:0:interface=127.0.0.1", server)
        client = await HostnameEndpoint(reactor, "127.0.0.1", port).connect(
            Factory.forProtocol(Ending)
        )
        client.transport.loseConnection()
        await client.ended
        await server.ended
        self.assertNotIsInstance(server.transport, TLSMemoryBIOProtocol)

    async def test_bulk(self) -> None:
        """
        While a client pauses again and again, the producer of a large body waits, and nothing is
        lost.
        """
        size = 100 * BATCH

        class Pausing(Ending):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                if len(self.sizes) % 10 == 0:
                    self.transport.pauseProducing()
                    reactor.callLater(0.001, self.transport.resumeProducing)  # type: ignore[attr-defined]

        class Source(Ending):
            left = size
            pauses = 0

            def handshakeCompleted(self) -> None:
                super().handshakeCompleted()
                self.transport.registerProducer(self, True)
                self.resumeProducing()

            def resumeProducing(self) -> None:
                self.paused = False
                while self.left and not self.paused:
                    self.left -= BATCH
                    self.transport.write(bytesOf(BATCH, self.left))
                if not self.left:
                    self.transport.unregisterProducer()
                    self.transport.loseConnection()

            def pauseProducing(self) -> None:
                self.paused = True
                self.pauses += 1

            def stopProducing(self) -> None:
                pass

        expected = hashlib.sha256()
        for left in range(size - BATCH, -1, -BATCH):
            expected.update(bytesOf(BATCH, left))
        for bulkClient, bulkServer in ROLES:
            client, server = Pausing(), Source()
            port = await self.listen(
                f"ssl:0:interface=127.0.0.1:privateKey={self.pem}",
                server,
                None if bulkServer else reactor,
            )
            await self.connect(port, client, bulk=bulkClient)
            await client.ended
            assert client.reason is not None
            client.reason.trap(ConnectionDone)
            self.assertEqual(hashlib.sha256(client.got).digest(), expected.digest())
            self.assertGreater(server.pauses, 0)

    async def test_reasons(self) -> None:
        """
        Over TCP, which distinguishes an abort from an end, both sides get the same reason as with
        Twisted's TLS.
        """
        for which, end in product((0, 1), ("loseConnection", "abortConnection")):
            told = []
            for bulkClient, bulkServer in ROLES:
                sides = Ending(), Ending()
                client, server = sides
                port = await self.listen(
                    f"ssl:0:interface=127.0.0.1:privateKey={self.pem}",
                    server,
                    None if bulkServer else reactor,
                )
                await self.connect(port, client, bulk=bulkClient)
                await gatherResults([client.began, server.began])
                getattr(sides[which].transport, end)()
                await gatherResults([client.ended, server.ended])
                told.append([side.reason and side.reason.type for side in sides])
            self.assertEqual(told, [told[0]] * len(ROLES), (which, end))


class OptionTests(EndpointCase):
    async def test_plainTLS(self) -> None:
        """With C{plain-transport}, a port has Twisted's own TLS."""
        for plain in (False, True):
            description = f"ssl:0:interface=127.0.0.1:privateKey={self.pem}"
            mirror = HubMirror(reactor, MirrorConfig(port=description, plain_transport=plain))
            mirror.service.startService()
            self.addCleanup(mirror.service.stopService)
            [port] = mirror.service.ports
            client = Ending()
            await self.connect(port.getHost().port, client)
            await client.began
            [channel] = mirror.site._channels
            self.assertEqual(isinstance(channel.transport, BulkTLS), not plain)
            client.transport.loseConnection()
            await client.ended

    async def test_noProtocol(self) -> None:
        """
        A client that offers only unsupported protocols gets the alert, with both implementations.
        """
        for plain in (False, True):
            description = f"ssl:0:interface=127.0.0.1:privateKey={self.pem}"
            mirror = HubMirror(reactor, MirrorConfig(port=description, plain_transport=plain))
            mirror.service.startService()
            self.addCleanup(mirror.service.stopService)
            [port] = mirror.service.ports
            client = Ending()
            await self.connect(port.getHost().port, client, b"foo")
            await client.ended
            self.assertIn("alert no application protocol", str(client.reason))
