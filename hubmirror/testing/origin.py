"""
An origin: one service of an embedded registry with its port, its faults, and its counters.
"""

from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IReactorSSL
from twisted.internet.ssl import CertificateOptions
from twisted.web.http_headers import Headers

from hubmirror.testing.answers import Serve, send
from hubmirror.testing.credentials import credentialsOf
from hubmirror.testing.faults import Faults, Seen
from hubmirror.testing.wire import HubChannel, HubRequest, HubSite


class Origin(Faults):
    """
    A service on an origin of its own.

    @param name: the name of the service.
    @param host: the host by which the agent in memory finds the service until it listens.
    @param registry: the name of the service's registry.
    @param logs: the lists to which each request is appended.
    @ivar site: the site of all connections to the service.
    @ivar fields: fields that are added to every response.
    @ivar connections: the number of connections that were ever made to the service.
    @ivar bytesSent: bytes of bodies that were written to transports.
    @ivar bytesReceived: bytes that were received from clients, including heads, after decryption.
    """

    def __init__(self, name: str, host: str, registry: str, *logs: list[Seen]) -> None:
        super().__init__()
        self.name = name
        self.host = host
        self._registry = registry
        self.fields = Headers()
        self.connections = 0
        self.bytesSent = 0
        self.bytesReceived = 0
        #: Whether it refuses connections.
        self.refusing = False
        self.serve: Serve
        self._logs = logs
        self._address = ""
        self._tls: CertificateOptions | None = None
        self._reactor: IReactorSSL
        self._port: IListeningPort | None = None
        self._portNumber = 0
        self._readingLimit: int | None = None
        self.site = HubSite(self)

    @property
    def url(self) -> str:
        """
        The origin, without a slash at the end.  Until the service listens, it has the name by which
        the agent in memory finds it.
        """
        if not self._portNumber:
            return f"https://{self.host}"
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"https://{host}:{self._portNumber}"

    @property
    def seen(self) -> list[Seen]:
        """
        The requests to this service, in the order in which they were received.
        """
        return [seen for seen in self._logs[0] if seen.service == self.name]

    def listenWith(self, reactor: IReactorSSL, address: str, tls: CertificateOptions) -> None:
        """
        Set the reactor, address and certificate for C{startListening}.
        """
        self._reactor, self._address, self._tls = reactor, address, tls

    @inlineCallbacks
    def startListening(self) -> Generator[Deferred[Any], Any, None]:
        """
        Listen, on the same port as before if there was one.
        """
        self.refusing = False
        if self._tls is None or self._port is not None:
            return
        endpoint = SSL4ServerEndpoint(
            self._reactor, self._portNumber, self._tls, interface=self._address
        )
        port = yield endpoint.listen(self.site)
        self._port, self._portNumber = port, port.getHost().port

    @inlineCallbacks
    def stopListening(self) -> Generator[Deferred[Any], Any, None]:
        """
        Refuse new connections, and reset all existing ones.
        """
        self.refusing = True
        if self._port is not None:
            port, self._port = self._port, None
            yield maybeDeferred(port.stopListening)
        yield self.disconnect()

    @inlineCallbacks
    def disconnect(self) -> Generator[Deferred[Any], Any, None]:
        """
        Reset all connections, whether they are idle or not.
        """
        channels = list(self.site.channels)
        for channel in channels:
            channel.transport.abortConnection()
        yield gatherResults([channel.lost for channel in channels])

    def stopReading(self, after: int) -> None:
        """
        Stop reading from every connection that has received C{after} bytes, until C{restore}.
        """
        self._readingLimit = after

    def restore(self) -> None:
        """
        Remove all faults, except that C{fields} stay, and the effect of L{stopListening}.  Requests
        that hang continue to do so.
        """
        super().restore()
        self._readingLimit = None
        for channel in self.site.channels:
            channel.transport.resumeProducing()

    def connected(self) -> int:
        """
        Count a connection.
        """
        self.connections += 1
        return self.connections

    def received(self, channel: HubChannel, length: int) -> None:
        """
        Count the bytes that a connection has received, and pause it if L{stopReading} requires it.
        """
        self.bytesReceived += length
        if self._readingLimit is not None and channel.bytesReceived >= self._readingLimit:
            channel.transport.pauseProducing()

    def answer(self, request: HubRequest) -> None:
        """
        Record a request, and respond to it correctly or with a fault.
        """
        seen = Seen(
            service=self.name,
            registry=self._registry,
            host=self.host,
            method=request.method,
            target=request.uri,
            headers=request.requestHeaders.copy(),
            connection=request.channel.number,
            bodyLength=_lengthOf(request),
            credentials=credentialsOf(request),
        )
        for log in self._logs:
            log.append(seen)
        for name, values in self.fields.getAllRawHeaders():
            for value in values:
                request.responseHeaders.addRawHeader(name, value)
        fault = self.choose(seen)
        answer = self.serve(request) if fault is None else fault(request, self.serve)
        if answer is not None:
            send(request, answer, self._wrote)

    def _wrote(self, length: int) -> None:
        self.bytesSent += length


def _lengthOf(request: HubRequest) -> int:
    request.content.seek(0, 2)
    length = request.content.tell()
    request.content.seek(0)
    return length
