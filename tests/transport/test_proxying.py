"""Tests of the dialogues with an outgoing proxy, byte for byte."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from hubmirror.protocol.errors import ConnectFailed
from hubmirror.protocol.url import Origin
from hubmirror.transport.proxying import ProxiedEndpoint
from tests.transport.support import HERE, THERE
from tests.wire.support import Line

NAME = Origin(b"https", b"registry-1.docker.io", 443)
IPV4 = Origin(b"http", b"192.0.2.1", 5000)
IPV6 = Origin(b"https", b"2001:db8::1", 443)

PACKED6 = bytes.fromhex("20010db8000000000000000000000001")

#: Responses of SOCKS 5 to a request: connected, and bound to an address of each kind.
CONNECTED = [
    b"\x05\x00\x00\x01\x0a\x00\x00\x01\x1f\x90",
    b"\x05\x00\x00\x03\x05proxy\x1f\x90",
    b"\x05\x00\x00\x04" + PACKED6 + b"\x1f\x90",
]


@implementer(IStreamClientEndpoint)
class Proxy:
    """
    The endpoint of the proxy, which is the test itself.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.line: Any = None

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        protocol = protocolFactory.buildProtocol(THERE)
        self.line = Line(self.clock, protocol, HERE, THERE)
        protocol.makeConnection(self.line)
        return succeed(protocol)


class Inside(Protocol):
    """
    The protocol with the origin, through the proxy.
    """

    heard = b""
    reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.reason = reason


class ProxyCase(SynchronousTestCase):
    def connect(self, socks: bool, origin: Origin = NAME) -> Deferred[Any]:
        proxy = Proxy()
        endpoint = ProxiedEndpoint(proxy, socks, origin)
        connecting = endpoint.connect(Factory.forProtocol(Inside))
        self.line: Line = proxy.line
        self.clock = proxy.clock
        return connecting

    def assertRefused(self, connecting: Deferred[Any], text: str) -> None:
        error = self.failureResultOf(connecting, ConnectFailed).value
        self.assertEqual(error.message, text)
        self.assertEqual(self.line.ended, "aborted")
        self.clock.advance(0)

    def assertPasses(self, connecting: Deferred[Any]) -> None:
        """Check that the inner protocol has the connection to itself."""
        inside = self.successResultOf(connecting)
        self.assertEqual(inside.heard, b"")
        inside.transport.write(b"hello")
        self.assertEqual(self.line.hears(), b"hello")
        self.line.says(b"\x05\x01HTTP/1.1 403\r\n\r\n")
        self.assertEqual(inside.heard, b"\x05\x01HTTP/1.1 403\r\n\r\n")
        self.line.leaves()
        self.clock.advance(0)
        self.assertIsNotNone(inside.reason)


class ConnectTests(ProxyCase):
    def test_request(self) -> None:
        for origin, authority in (
            (NAME, b"registry-1.docker.io:443"),
            (IPV4, b"192.0.2.1:5000"),
            (IPV6, b"[2001:db8::1]:443"),
        ):
            self.connect(False, origin)
            expected = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)
            self.assertEqual(self.line.hears(), expected)

    def test_accepted(self) -> None:
        for answer in (
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n",
            b"HTTP/1.1 204\r\n\r\n",
        ):
            connecting = self.connect(False)
            self.line.hears()
            for byte in answer:
                self.assertNoResult(connecting)
                self.line.says(bytes([byte]))
            self.assertPasses(connecting)

    def test_refused(self) -> None:
        for answer, text in (
            (b"HTTP/1.1 407 Proxy\r\nX: secret\r\n\r\n", "the proxy refused the connection (407)"),
            (b"HTTP/1.1 302 Found\r\n\r\n", "the proxy refused the connection (302)"),
            (b"HTTP/2 200\r\n\r\n", "the proxy refused the connection (no HTTP)"),
            (b"\x05\xff\r\n\r\n", "the proxy refused the connection (no HTTP)"),
            (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000, "the proxy's answer is too long"),
        ):
            connecting = self.connect(False)
            self.line.says(answer)
            self.assertRefused(connecting, text)


class SocksTests(ProxyCase):
    def test_request(self) -> None:
        for origin, request in (
            (NAME, b"\x05\x01\x00\x03\x14registry-1.docker.io\x01\xbb"),
            (IPV4, b"\x05\x01\x00\x01\xc0\x00\x02\x01\x13\x88"),
            (IPV6, b"\x05\x01\x00\x04" + PACKED6 + b"\x01\xbb"),
        ):
            connecting = self.connect(True, origin)
            # Version 5, one method: no authentication.
            self.assertEqual(self.line.hears(), b"\x05\x01\x00")
            self.line.says(b"\x05\x00")
            self.assertEqual(self.line.hears(), request)
            self.assertNoResult(connecting)

    @given(st.sampled_from(CONNECTED), st.data())
    def test_accepted(self, answer: bytes, data: st.DataObject) -> None:
        """The result does not depend on how the responses are split."""
        connecting = self.connect(True)
        for wire in (b"\x05\x00", answer):
            while wire:
                self.assertNoResult(connecting)
                size = data.draw(st.integers(1, len(wire)))
                self.line.says(wire[:size])
                wire = wire[size:]
        self.line.hears()
        self.assertPasses(connecting)

    def test_refused(self) -> None:
        greeting = "the proxy wants authentication or is no SOCKS 5 proxy"
        for answers, text in (
            ([b"\x05\xff"], greeting),
            ([b"\x05\x02"], greeting),
            ([b"\x04\x5a"], greeting),
            ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], greeting),
            (
                [b"\x05\x00", b"\x05\x05\x00\x01\0\0\0\0\0\0"],
                "the proxy could not connect (SOCKS reply 5)",
            ),
            (
                [b"\x05\x00", b"\x05\x00\x00\x02\0\0\0\0\0\0"],
                "the proxy's answer is no SOCKS 5",
            ),
        ):
            connecting = self.connect(True)
            for answer in answers:
                self.line.says(answer)
            self.assertRefused(connecting, text)


class EndTests(ProxyCase):
    def test_closes(self) -> None:
        for socks, answer in ((False, b""), (False, b"HTTP/1.1 200"), (True, b"\x05")):
            connecting = self.connect(socks)
            self.line.says(answer)
            self.line.leaves()
            self.clock.advance(0)
            error = self.failureResultOf(connecting, ConnectFailed).value
            self.assertEqual(error.message, "the proxy closed the connection")

    def test_cancelled(self) -> None:
        connecting = self.connect(True)
        connecting.cancel()
        self.assertEqual(self.line.ended, "aborted")
        self.failureResultOf(connecting, CancelledError)
        self.clock.advance(0)
