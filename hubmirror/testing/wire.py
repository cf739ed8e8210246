"""
HTTP/1.1 as the embedded Hub speaks it: Twisted's own, with connections that are counted.
"""

from typing import Any, BinaryIO, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site


class Service(Protocol):
    """
    What a site tells about its connections.
    """

    def connected(self) -> int:
        """
        There is a new connection; returns its number.
        """

    def received(self, channel: "HubChannel", length: int) -> None:
        """
        A connection brought so many bytes.
        """

    def answer(self, request: "HubRequest") -> None:
        """
        Answer a request, now or later.
        """


class HubChannel(http.HTTPChannel):
    """
    A connection.

    @ivar number: which one to its service, counted from 1.
    @ivar lost: fires when it is gone.
    """

    site: "HubSite"
    transport: Any
    bytesReceived = 0

    def connectionMade(self) -> None:
        self.number = self.site.service.connected()
        self.lost: Deferred[None] = Deferred()
        self.site.channels.add(self)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self.bytesReceived += len(data)
        self.site.service.received(self, len(data))
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.site.channels.discard(self)
        self.lost.callback(None)


class HubRequest(Request):
    """
    A request that sends no C{Content-Type} but the one it was given.
    """

    channel: HubChannel
    content: BinaryIO
    defaultContentType = None

    def fieldOf(self, name: str) -> str:
        """
        The last field of a name, empty when there is none.
        """
        value: str | None = self.getHeader(name)
        return value or ""

    @property
    def query(self) -> str:
        """
        What follows the C{?}, as it came in.
        """
        return self.uri.partition(b"?")[2].decode("latin-1")


class _Root(Resource):
    """
    Takes every path as it came in.
    """

    isLeaf = True

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def render(self, request: HubRequest) -> int:
        self._service.answer(request)
        return NOT_DONE_YET


class HubSite(Site):
    """
    HTTP/1.1 only, since the faults are those of its framing; no timeouts, no access log.
    """

    protocol = HubChannel  # type: ignore[assignment] # without the wrapper that chooses HTTP/2
    requestFactory = HubRequest

    def __init__(self, service: Service) -> None:
        # A form is left in the request's body, where the token service reads it.
        super().__init__(_Root(service), timeout=None, parsePOSTFormSubmission=False)
        self.service = service
        self.channels: set[HubChannel] = set()

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """
        Start no clock for a log.
        """

    def log(self, request: http.Request) -> None:
        """
        Write no log.
        """
