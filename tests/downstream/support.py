"""
A request on a real channel, without an upstream.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.internet.task import Clock
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import directlyProvides

from hubmirror.downstream.site import MirrorSite
from tests.wire.support import Line

HERE = IPv4Address("TCP", "192.0.2.1", 5000)
THERE = IPv4Address("TCP", "192.0.2.7", 50000)


class Held(Resource):
    """
    A resource that keeps the requests that it is asked to render.
    """

    isLeaf = True
    streamsBody = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Any] = []

    def render(self, request: Any) -> int:
        self.requests.append(request)
        return NOT_DONE_YET


class Server:
    """
    A mirror's site, whose resource does not respond by itself.
    """

    def __init__(self, resource: Resource | None = None, idleTimeout: float = 75) -> None:
        self.clock = Clock()
        self.held = Held()
        self.site = MirrorSite(resource or self.held, self.clock, idleTimeout)

    def connect(
        self, secure: bool = False, negotiated: bytes | None = None, handshake: bool = True
    ) -> Line:
        """
        A client's connection.

        @param negotiated: the protocol that TLS has negotiated.
        @param handshake: whether the TLS handshake is complete.
        """
        protocol = self.site.buildProtocol(THERE)
        line = Line(self.clock, protocol, HERE, THERE)
        line.negotiatedProtocol = negotiated
        if secure:
            directlyProvides(line, ISSLTransport)
        protocol.makeConnection(line)
        if secure and handshake:
            IHandshakeListener(protocol).handshakeCompleted()
        return line

    def ask(self, head: bytes = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n") -> tuple[Line, Any]:
        """A client's connection, and the request that was received on it."""
        line = self.connect()
        line.says(head)
        return line, self.held.requests[-1]
