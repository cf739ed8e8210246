"""Peers and consumers of the connections in these tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHostnameResolver,
    IProtocolNegotiationFactory,
    IReactorPluggableNameResolver,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

HERE = IPv4Address("TCP", "192.0.2.1", 40000)
THERE = IPv4Address("TCP", "198.51.100.1", 443)


def encrypted(pem: bytes) -> bytes:
    """
    Encrypt the key in a file that has also a certificate.
    """
    private = load_pem_private_key(pem, None)
    key = private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    return key + pem[pem.index(b"-----BEGIN CERT") :]


def changeMode(path: str, mode: int) -> None:
    """
    Change a file's mode, and with it its C{ctime}, whatever the resolution of the file system's
    clock is.
    """
    before = os.stat(path).st_ctime_ns
    while os.stat(path).st_ctime_ns == before:
        os.chmod(path, mode)


@implementer(IProtocolNegotiationFactory)
class Negotiating(Factory):
    """
    A transport of a server that prefers HTTP/2.
    """

    noisy = False

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]


class Receiver(Protocol):
    """
    Receives the body of a response.

    @ivar body: the bytes so far.
    @ivar reason: the reason for its end, once it has ended.
    """

    def __init__(
        self,
        made: Callable[[Any], object] = lambda transport: None,
        received: Callable[[Any], object] = lambda transport: None,
    ) -> None:
        """
        @param made: called with the body's transport before the first byte.
        @param received: called with the transport after each piece.
        """
        self.body = b""
        self.reason: BaseException | None = None
        self._made = made
        self._received = received

    def connectionMade(self) -> None:
        self._made(self.transport)

    def dataReceived(self, data: bytes) -> None:
        assert self.reason is None, "a body went on after its end"
        self.body += data
        self._received(self.transport)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert self.reason is None, "a body ended twice"
        self.reason = reason.value


@implementer(IBodyProducer)
class Body:
    """
    The body of a request, which the test writes.

    @ivar consumer: the consumer.
    @ivar finished: fired by the test when all is written.
    @ivar stopped: whether the consumer wants no more.
    """

    def __init__(self, length: int | None) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.finished: Deferred[None] = Deferred()
        self.stopped = False
        self.consumer: Any = None

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.finished

    def stopProducing(self) -> None:
        self.stopped = True

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass


@implementer(IHostnameResolver)
class Names:
    """
    A resolver that knows some names.  Like the system's, it resolves an address to itself.

    @ivar silent: names for which it never responds.
    """

    def __init__(self, **known: list[str]) -> None:
        """
        @param known: names (with C{_} for a dot) and their addresses.
        """
        self.silent: set[str] = set()
        self.known = {name.replace("_", "."): addresses for name, addresses in known.items()}

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, *rest: Any, **more: Any
    ) -> Any:
        resolutionReceiver.resolutionBegan(None)
        if hostName in self.silent:
            return
        try:
            addresses = [str(ip_address(hostName))]
        except ValueError:
            addresses = self.known.get(hostName, [])
        for address in addresses:
            family = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(family("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class ResolvingReactor:
    """
    A reactor with another name resolver.  The resolver of the wrapped reactor is not changed.
    """

    def __init__(self, reactor: Any, nameResolver: IHostnameResolver) -> None:
        self._reactor = reactor
        self.nameResolver = nameResolver

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
