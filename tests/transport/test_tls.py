"""
Tests of TLS connections to upstreams on 127.0.0.1: which certificates are trusted, and the errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor, ssl
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import AddressRefused, ConnectFailed
from hubmirror.protocol.url import Origin
from hubmirror.testing.ca import Authority
from hubmirror.transport.connecting import Connector, loadTrust
from hubmirror.transport.pool import Pool
from hubmirror.transport.tls import BulkTLS
from tests import PLAIN
from tests.transport.support import Names, Negotiating, Receiver, ResolvingReactor

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
SECURE = "ssl:0:interface=127.0.0.1:privateKey={pem}"
UNENCRYPTED = "tcp:0:interface=127.0.0.1"


class Hello(Protocol):
    """
    Responds to any data with the same bytes.
    """

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(OK)  # type: ignore[union-attr]


class HangUp(Protocol):
    def connectionMade(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]


class TLSTests(TestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        self.names = Names(mirror_example=["127.0.0.1"], other_example=["127.0.0.1"])
        self.reactor: Any = ResolvingReactor(reactor, self.names)
        bundle = self.file(self.authority.pem)
        self.connector = self.makeConnector(loadTrust(bundle))

    def file(self, content: bytes) -> str:
        file = FilePath(self.mktemp())
        file.setContent(content)
        return file.path

    def makeConnector(self, trust: Any, permitted: bool = True, on: Any = None) -> Connector:
        return Connector(
            on or self.reactor,
            trust=trust,
            permits=lambda origin, address: permitted,
            timeout=5.0,
            plainTLS=PLAIN,
        )

    async def listen(
        self,
        protocol: type[Protocol] = Hello,
        endpoint: str = SECURE,
        certified: Sequence[str] = ("mirror.example", "127.0.0.1"),
    ) -> int:
        """
        Listen on a port.

        @param certified: the name in the server's certificate.
        @return: the port's number.
        """
        pem = self.file(self.authority.serverPEM(list(certified)))
        server = serverFromString(reactor, endpoint.format(pem=pem))
        port = await server.listen(Negotiating.forProtocol(protocol))
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def failure(self, port: int, host: bytes = b"mirror.example") -> str:
        with self.assertRaises(ConnectFailed) as caught:
            await self.connector.connect(Origin(b"https", host, port), lambda connection: None)
        return caught.exception.message

    async def test_verified(self) -> None:
        """The server is verified by name or by address, and the connection is kept."""
        port = await self.listen()
        pool = Pool(self.reactor, 75.0, 10)
        for host in (b"mirror.example", b"127.0.0.1", b"mirror.example"):
            origin = Origin(b"https", host, port)
            response = await pool.request(self.connector, origin, b"GET", b"/", Headers(), None)
            receiver = Receiver()
            response.deliverBody(receiver)
            self.assertEqual(receiver.body, b"hello")
        await pool.close()

    async def test_whose(self) -> None:
        """An option selects the TLS implementation."""
        port = await self.listen()
        connection = await self.connector.connect(Origin(b"https", b"127.0.0.1", port), id)
        self.assertEqual(isinstance(connection.transport, BulkTLS), not PLAIN)
        connection.abort()
        await connection.closed

    async def test_otherName(self) -> None:
        text = await self.failure(await self.listen(), b"other.example")
        self.assertEqual(text, "its certificate is for another name")

    async def succeed(self, port: int, host: bytes) -> None:
        """Check that this host's certificate is accepted."""
        self.names.known[host.decode()] = ["127.0.0.1"]
        connection = await self.connector.connect(Origin(b"https", host, port), id)
        connection.abort()
        await connection.closed

    async def test_underscore(self) -> None:
        """Names that IDNA refuses are verified like others."""
        names = (b"under_score.example", b"_x.example", b"r3---cdn.example", b"a-.example")
        port = await self.listen(certified=[name.decode() for name in names])
        for host in names:
            await self.succeed(port, host)
        await self.succeed(port, b"under_score.example.")
        for host in (b"under-score.example", b"other_.example", b"a.under_score.example"):
            self.names.known[host.decode()] = ["127.0.0.1"]
            text = await self.failure(port, host)
            self.assertEqual(text, "its certificate is for another name", host)

    async def test_wildcard(self) -> None:
        """A wildcard stands for one label, with an underscore or without."""
        port = await self.listen(certified=["*.cdn.example"])
        for host in (b"a_b.cdn.example", b"_.cdn.example", b"ab.cdn.example"):
            await self.succeed(port, host)
        for host in (b"a_b.c_d.cdn.example", b"cdn.example", b"a_b.other.example"):
            self.names.known[host.decode()] = ["127.0.0.1"]
            text = await self.failure(port, host)
            self.assertEqual(text, "its certificate is for another name", host)

    async def test_otherAddress(self) -> None:
        """A name in a certificate is not valid for an address."""
        text = await self.failure(await self.listen(certified=["mirror.example"]), b"127.0.0.1")
        self.assertEqual(text, "its certificate is for another name")

    async def test_nobodysCertificate(self) -> None:
        """
        A certificate without names, or with a wildcard that is too wide or not the first label, is
        refused although its authority is trusted.
        """
        for certified in ((), ("*.example",), ("*",), ("a.*.example",)):
            port = await self.listen(certified=certified)
            text = await self.failure(port, b"mirror.example")
            self.assertEqual(text, "its certificate names no host as it should", certified)

    async def test_otherAuthority(self) -> None:
        self.connector = self.makeConnector(loadTrust(self.file(Authority().pem)))
        text = await self.failure(await self.listen())
        self.assertEqual(text, "its certificate does not verify")

    async def test_system(self) -> None:
        """Without a bundle the system's authorities are trusted, of which this one is none."""
        self.connector = self.makeConnector(ssl.platformTrust())
        text = await self.failure(await self.listen())
        self.assertEqual(text, "its certificate does not verify")

    async def test_noTLS(self) -> None:
        text = await self.failure(await self.listen(endpoint=UNENCRYPTED))
        self.assertRegex(text, r"\ATLS failed \([a-z ]+\)\Z")

    async def test_hangsUp(self) -> None:
        text = await self.failure(await self.listen(HangUp, UNENCRYPTED))
        self.assertEqual(text, "the connection closed while it was set up")

    async def test_nobodyListens(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")  # type: ignore[attr-defined]
        number = port.getHost().port
        await port.stopListening()
        self.assertEqual(await self.failure(number), "connection refused")

    async def test_spelledLoopback(self) -> None:
        """What the system's resolver interprets as 127.0.0.1 is judged as that address."""
        connector = self.makeConnector(ssl.platformTrust(), permitted=False, on=reactor)
        for host in (b"localhost", b"127.1", b"2130706433", b"0x7f.0.0.1"):
            with self.assertRaises(AddressRefused):
                await connector.connect(Origin(b"http", host, 9), lambda connection: None)
