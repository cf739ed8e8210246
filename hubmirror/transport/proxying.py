"""
Connections through an outgoing proxy, by HTTP C{CONNECT} (RFC 9110 section 9.3.6) or SOCKS 5 (RFC
1928).  The proxy resolves the name.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from hubmirror.protocol.buffers import ReceiveBuffer
from hubmirror.protocol.errors import ConnectFailed, RequestRefused
from hubmirror.protocol.url import Origin

_MAX_ANSWER = 16 * 1024  # bytes


class _Tunnel(Protocol):
    """
    Performs the dialogue with the proxy, then passes the transport to the actual protocol.

    The origin sends nothing before it receives data, so no data can follow the proxy's response.

    @ivar done: a deferred that fires with the actual protocol, or fails with L{ConnectFailed}.
    """

    transport: Any

    def __init__(self, dialogue: Any, factory: IProtocolFactory) -> None:
        self._dialogue = dialogue
        self._factory = factory
        self._buffer = ReceiveBuffer()
        self.done: Deferred[Any] = Deferred(lambda _: self._giveUp())

    def connectionMade(self) -> None:
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        self._buffer.add(data)
        self._advance()

    def _advance(self) -> None:
        try:
            if len(self._buffer) > _MAX_ANSWER:
                raise ConnectFailed("the proxy's answer is too long")
            toSend, finished = self._dialogue.step(self._buffer)
        except ConnectFailed as error:
            self._fail(error)
            return
        if toSend:
            self.transport.write(toSend)
        if finished:
            protocol: Any = self._factory.buildProtocol(self.transport.getPeer())
            self.dataReceived = protocol.dataReceived  # type: ignore[method-assign]
            self.connectionLost = protocol.connectionLost  # type: ignore[method-assign]
            protocol.makeConnection(self.transport)
            self.done.callback(protocol)

    def _fail(self, error: ConnectFailed) -> None:
        self._giveUp()
        if not self.done.called:
            self.done.errback(error)

    def _giveUp(self) -> None:
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        if not self.done.called:
            self.done.errback(ConnectFailed("the proxy closed the connection"))


class _Connect:
    """
    The dialogue of HTTP C{CONNECT}.
    """

    def __init__(self, origin: Origin) -> None:
        host = b"[%b]" % origin.host if b":" in origin.host else origin.host
        self._authority = b"%b:%d" % (host, origin.port)
        self._asked = False

    def step(self, answer: ReceiveBuffer) -> tuple[bytes, bool]:
        if not self._asked:
            self._asked = True
            return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % ((self._authority,) * 2), False
        try:
            head = answer.takeHead(_MAX_ANSWER)
        except RequestRefused:
            raise ConnectFailed("the proxy's answer is no HTTP") from None
        if head is None:
            return b"", False
        match = re.match(rb"HTTP/1\.[01] ([0-9]{3})", head)
        if match is None or not match[1].startswith(b"2"):
            status = match[1].decode() if match else "no HTTP"
            raise ConnectFailed(f"the proxy refused the connection ({status})")
        return b"", True


class _Socks5:
    """
    The dialogue of SOCKS 5 without authentication.
    """

    def __init__(self, origin: Origin) -> None:
        try:
            packed = ip_address(origin.host.decode("ascii")).packed
            address = (b"\x01" if len(packed) == 4 else b"\x04") + packed
        except ValueError:
            address = b"\x03" + bytes([len(origin.host)]) + origin.host
        self._request = b"\x05\x01\x00" + address + origin.port.to_bytes(2, "big")
        self._step = 0

    def step(self, answer: ReceiveBuffer) -> tuple[bytes, bool]:
        if self._step == 0:
            self._step = 1
            return b"\x05\x01\x00", False
        if self._step == 1:
            if len(answer) < 2:
                return b"", False
            if answer.take(2) != b"\x05\x00":
                raise ConnectFailed("the proxy wants authentication or is no SOCKS 5 proxy")
            self._step = 2
            return self._request, False
        if self._step == 2:
            if len(answer) < 5:
                return b"", False
            head = answer.take(5)
            if head[1]:
                raise ConnectFailed(f"the proxy could not connect (SOCKS reply {head[1]})")
            bound = {1: 4, 3: 1 + head[4], 4: 16}.get(head[3])
            if bound is None:
                raise ConnectFailed("the proxy's answer is no SOCKS 5")
            # One byte of the address has been taken already.  The two bytes of the port follow it.
            self._left = bound - 1 + 2
            self._step = 3
        if len(answer) < self._left:
            return b"", False
        answer.take(self._left)
        return b"", True


@implementer(IStreamClientEndpoint)
class ProxiedEndpoint:
    """
    Connects to an origin through a proxy.
    """

    def __init__(self, proxy: IStreamClientEndpoint, socks: bool, origin: Origin) -> None:
        """
        @param proxy: the endpoint of the proxy.
        @param socks: whether the proxy uses SOCKS 5; otherwise it uses HTTP.
        @param origin: the origin to which the proxy connects.
        """
        self._proxy = proxy
        self._dialogue = _Socks5 if socks else _Connect
        self._origin = origin

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """
        @see: L{IStreamClientEndpoint.connect}
        """
        dialogue = self._dialogue(self._origin)
        factory = Factory.forProtocol(lambda: _Tunnel(dialogue, protocolFactory))
        factory.noisy = False
        connecting: Deferred[Any] = self._proxy.connect(factory)
        return connecting.addCallback(lambda tunnel: tunnel.done)
