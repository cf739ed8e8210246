"""
The whole mirror in memory, with the test as the client and the upstreams: they exchange raw bytes
with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress, IHandshakeListener, ISSLTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site
from zope.interface import directlyProvides

from hubmirror import HubMirror, MirrorConfig
from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import ConnectFailed, LocalFailure
from hubmirror.protocol.url import Origin
from hubmirror.transport.http1client import UpstreamConnection
from hubmirror.transport.pool import Pool
from hubmirror.upstream.agents import OriginAgent


class Line(StringTransport):
    """
    A connection whose other side is the test.

    @ivar negotiatedProtocol: the protocol that TLS has negotiated, if there is TLS.
    @ivar ended: C{"closed"} or C{"aborted"} when the mirror has ended it, C{"left"} when the test
        has; otherwise empty.
    """

    negotiatedProtocol: bytes | None = None

    def __init__(self, clock: Clock, protocol: Any, here: IAddress, there: IAddress) -> None:
        super().__init__(here, there, lenient=True)
        self._clock = clock
        self.protocol = protocol
        self.ended = ""

    def says(self, data: bytes) -> None:
        """Send bytes from the test's side."""
        self.protocol.dataReceived(data)

    def hears(self) -> bytes:
        """The bytes that were written to the test's side since the last call."""
        data = self.value()
        self.clear()
        return data

    def leaves(self) -> None:
        """Close the connection from the test's side."""
        self._end("left", ConnectionDone())

    def loseConnection(self) -> None:
        self._end("closed", ConnectionDone())

    def abortConnection(self) -> None:
        self._end("aborted", ConnectionAborted())

    def _end(self, how: str, reason: Exception) -> None:
        if not self.ended:
            self.ended = how
            # As in a reactor, this does not happen within the call.
            self._clock.callLater(0, self._lost, reason)

    def _lost(self, reason: Exception) -> None:
        if self.producer is not None:
            self.producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class Network:
    """
    The network of a C{Connector}.

    @ivar lines: the test's side of every connection that was opened, in order.
    @ivar origins: the origins of these connections.
    @ivar refuses: hosts that can't be connected to.
    @ivar short: whether this machine has no file descriptor left for a connection.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lines: list[Line] = []
        self.origins: list[Origin] = []
        self.refuses: set[bytes] = set()
        self.short = False

    async def connect(
        self, origin: Origin, released: Callable[[UpstreamConnection], None]
    ) -> UpstreamConnection:
        if self.short:
            raise LocalFailure("no file descriptor left")
        if origin.host in self.refuses:
            raise ConnectFailed("connection refused")
        protocol = UpstreamConnection(self._clock, False, released)
        line = Line(self._clock, protocol, _address("10.0.0.1"), _address("10.0.0.2"))
        self.lines.append(line)
        self.origins.append(origin)
        protocol.makeConnection(line)
        return protocol


def _address(host: str) -> IPv4Address:
    return IPv4Address("TCP", host, 443)


class Message(NamedTuple):
    """
    A request or a response, split into its parts but not interpreted.
    """

    start: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        return [value for found, value in self.fields if found.lower() == name.lower()]

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def error(self) -> str:
        """The code of a registry's error."""
        [error] = json.loads(self.body)["errors"]
        assert set(error) == {"code", "message", "detail"}
        return str(error["code"])


def read(raw: bytes) -> Message:
    """
    Split one message.
    """
    head, end, body = raw.partition(b"\r\n\r\n")
    assert end, raw
    start, *lines = head.split(b"\r\n")
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    return Message(start, fields, body)


def answer(
    status: int = 200, body: bytes = b"", fields: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """
    A response of an upstream, with a known length.
    """
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %d Status\r\n%b%b\r\n%b" % (status, lines, length, body)


class MemoryCase(SynchronousTestCase):
    """
    Tests of a mirror of C{https://hub.example} (registry), C{https://auth.example/token} and
    C{https://index.example}, with a Clock.

    @cvar options: the mirror's settings.
    """

    options: dict[str, Any] = {}
    peer = "192.0.2.7"

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.exchanges: list[Exchange] = []
        self.configure(**self.options)

    def configure(self, **options: Any) -> None:
        """Create the mirror, with further settings."""
        self.config = config = MirrorConfig(
            **{
                "port": (),
                "registry_url": "https://hub.example",
                "auth_url": "https://auth.example/token",
                "search_url": "https://index.example",
                # By default, the limits depend on this machine.
                "max_connections": 8192,
                "max_connections_per_client": 1024,
                "max_upstream_connections": 8192,
                "max_upstream_connections_per_client": 1024,
                **options,
            }
        )
        self.pool = Pool(self.clock, config.idle_timeout, 1000)
        self.mirror = HubMirror(
            self.clock,
            config,
            OriginAgent(self.clock, self.pool, self.network),  # type: ignore[arg-type]
            listeners=(self.exchanges.append,),
        )
        self.site = self.makeSite()

    def makeSite(self) -> Site:
        """The site that the clients connect to."""
        return self.mirror.site

    def connect(self, secure: bool = False, peer: str | None = None) -> Line:
        """Connect a client to the mirror."""
        there = IPv4Address("TCP", peer or self.peer, 50000)
        protocol: Protocol = self.site.buildProtocol(there)
        line = Line(self.clock, protocol, IPv4Address("TCP", "192.0.2.1", 5000), there)
        if secure:
            directlyProvides(line, ISSLTransport)
            line.negotiatedProtocol = b"http/1.1"
        protocol.makeConnection(line)
        if secure:
            IHandshakeListener(protocol).handshakeCompleted()
        return line

    def send(
        self,
        target: bytes,
        method: bytes = b"GET",
        fields: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes | None = None,
        line: Line | None = None,
        host: bytes = b"mirror.example",
    ) -> Line:
        """Connect a client, and send a request."""
        if line is None:
            line = self.connect()
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        if body is not None:
            lines += b"Content-Length: %d\r\n" % len(body)
        line.says(
            b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n%b" % (method, target, host, lines, body or b"")
        )
        return line

    def asked(self, number: int = -1) -> Message:
        """The request that an upstream was sent on one of the connections to it."""
        return read(self.network.lines[number].hears())

    def answered(self, line: Line) -> Message:
        """The response that the client was sent."""
        self.clock.advance(0)
        return read(line.hears())

    def exchange(self, target: bytes, reply: bytes, **request: Any) -> tuple[Message, Message]:
        """
        Send a request, to which an upstream responds.

        @return: the request that the upstream was sent, and the response that the client was sent.
        """
        client = self.send(target, **request)
        asked = self.asked()
        self.network.lines[-1].says(reply)
        return asked, self.answered(client)

    def local(self, target: bytes, **request: Any) -> Message:
        """Send a request to which the mirror responds itself, without asking an upstream."""
        before = len(self.network.lines)
        client = self.send(target, **request)
        self.assertEqual(len(self.network.lines), before, "an upstream was asked")
        return self.answered(client)
