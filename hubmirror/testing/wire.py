"""
The HTTP/1.1 server of embedded registries, which is Twisted's, with connections that are counted.
"""

import re
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

# The longest head of a request, in bytes.
_LONGEST_HEAD = 1024 * 1024
_NUMBER = re.compile("[0-9]{1,9}")


def fieldValues(headers: Headers, name: str) -> list[str]:
    """
    The values of all fields of a name.  Bytes that are not UTF-8 are replaced.
    """
    return [value.decode(errors="replace") for value in headers.getRawHeaders(name.encode(), [])]


class Service(Protocol):
    """
    The service of a site, which is informed about its connections and requests.
    """

    def connected(self) -> int:
        """
        Count a new connection.

        @return: the number of the connection; the first is 1.
        """

    def received(self, channel: "HubChannel", length: int) -> None:
        """
        Count the bytes that a connection has received.
        """

    def answer(self, request: "HubRequest") -> None:
        """
        Respond to a request, now or later.
        """


class HubChannel(http.HTTPChannel):
    """
    A connection.

    @ivar number: the number of the connection; the first to a service is 1.
    @ivar lost: fires when the connection is closed.
    @ivar bytesReceived: the number of bytes that it has received.
    """

    site: "HubSite"
    transport: Any
    bytesReceived = 0
    # Tokens may be much longer than Twisted permits.
    totalHeadersSize = MAX_LENGTH = _LONGEST_HEAD

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
    A request whose response has a C{Content-Type} only if the service sets one.
    """

    channel: HubChannel
    content: BinaryIO
    defaultContentType = None

    def fieldOf(self, name: str) -> str:
        """
        The value of the last field of a name; empty when there is none.
        """
        return (fieldValues(self.requestHeaders, name)[-1:] or [""])[0]

    def login(self) -> tuple[str, str]:
        """
        The name and the password in C{Authorization} (RFC 7617); empty when there are none.
        """
        return self.getUser().decode(errors="replace"), self.getPassword().decode(errors="replace")

    @property
    def query(self) -> str:
        """
        The query, as the client wrote it.
        """
        return self.uri.partition(b"?")[2].decode("latin-1")

    def number(self, name: str, default: int, least: int) -> int | None:
        """
        The number in a parameter of the query.

        @return: L{None} when the parameter is no number, or is less than C{least}.
        """
        value = parse_qs(self.query).get(name, [str(default)])[0]
        number = int(value) if _NUMBER.fullmatch(value) else -1
        return number if number >= least else None


class _Root(Resource):
    """
    A resource for every path.
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
    A site for HTTP/1.1 only, because the faults concern its framing; without timeouts and access
    log.
    """

    protocol = HubChannel  # type: ignore[assignment] # without the wrapper that chooses HTTP/2
    requestFactory = HubRequest

    def __init__(self, service: Service) -> None:
        # The token service reads forms from the body itself.
        super().__init__(_Root(service), timeout=None, parsePOSTFormSubmission=False)
        self.service = service
        self.channels: set[HubChannel] = set()

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """
        Do nothing: there is no log whose timestamps must be updated.
        """

    def log(self, request: http.Request) -> None:
        """
        Do nothing.
        """
