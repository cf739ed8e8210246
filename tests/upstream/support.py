"""
An agent for which the test responds, and responses that record the state of their body.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse
from zope.interface import implementer

from hubmirror.exchange import Exchange, Outcome
from hubmirror.upstream.policy import Service, Upstream


@implementer(IResponse, IPushProducer)
class Response:
    """
    A response and the transport of its body.  If C{body} is given, it is sent at once; otherwise
    the test supplies it.

    @ivar state: the state of the body: C{"waiting"} until it is read, then C{"flowing"},
        C{"paused"}, C{"stopped"} or C{"ended"}.
    """

    version = (b"HTTP", 1, 1)
    request = None
    previousResponse = None

    def __init__(
        self,
        code: int = 200,
        length: int | None = None,
        body: bytes | None = None,
        **fields: bytes | list[bytes],
    ) -> None:
        self.code = code
        self.phrase = b"Phrase"
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.headers = Headers()
        for name, value in fields.items():
            values = value if isinstance(value, list) else [value]
            self.headers.setRawHeaders(name.replace("_", "-"), values)
        self.state = "waiting"
        self._protocol: Any = None
        self._body = body

    def setPreviousResponse(self, response: IResponse) -> None:
        self.previousResponse = response

    def deliverBody(self, protocol: Any) -> None:
        assert self.state == "waiting", "a body was read twice"
        self.state = "flowing"
        self._protocol = protocol
        protocol.makeConnection(self)
        if self._body is not None:
            self.gives(self._body)
            self.ends()

    def gives(self, data: bytes) -> None:
        """Deliver a piece of the body."""
        assert self.state == "flowing", f"a body arrives that is {self.state}"
        self._protocol.dataReceived(data)

    def ends(self, reason: BaseException | None = None) -> None:
        """End the body, completely or with an error."""
        self.state = "ended"
        self._protocol.connectionLost(Failure(reason or ResponseDone()))

    def pauseProducing(self) -> None:
        assert self.state != "stopped"
        self.state = "paused"

    def resumeProducing(self) -> None:
        assert self.state != "stopped"
        self.state = "flowing"

    def stopProducing(self) -> None:
        self.state = "stopped"


class Asked(NamedTuple):
    """
    A request to the agent.

    @ivar reply: the Deferred that the agent returned for it.
    """

    method: bytes
    uri: bytes
    headers: Headers
    body: Any
    reply: Deferred[Any]


@implementer(IAgent)
class RecordingAgent:
    """
    An agent for which the test responds.

    @ivar asked: all requests, in order; the test fires their C{reply}.
    @ivar cancelled: the URIs of the requests that were cancelled.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.cancelled: list[bytes] = []

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        reply: Deferred[Any] = Deferred(lambda _: self.cancelled.append(uri))
        self.asked.append(Asked(method, uri, headers, bodyProducer, reply))
        return reply

    @property
    def uris(self) -> list[bytes]:
        return [asked.uri for asked in self.asked]

    def answer(self, response: Response) -> Response:
        """Respond to the latest request."""
        self.asked[-1].reply.callback(response)
        return response

    def fail(self, error: Exception) -> None:
        """Make the latest request fail."""
        self.asked[-1].reply.errback(error)


def upstream(name: str) -> Upstream:
    """
    Create an upstream whose services are all on C{https://NAME.example}.
    """
    base = f"https://{name}.example".encode()
    return Upstream(
        name, {Service.REGISTRY: base, Service.TOKEN: base + b"/token", Service.SEARCH: base}
    )


def newExchange(method: bytes = b"GET", told: list[Outcome] | None = None) -> Exchange:
    """
    Create the record of a request that has just begun.
    """

    def listener(exchange: Exchange) -> None:
        assert told is not None and exchange.outcome is not None
        told.append(exchange.outcome)

    listeners = () if told is None else (listener,)
    return Exchange(method, b"/v2/a", None, Clock().seconds(), listeners)
