"""
An agent that the test answers for, and answers that know what became of them.
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


@implementer(IResponse, IPushProducer)
class Response:
    """
    An answer, and its body's transport.  With a C{body} it gives that at once, else what the test
    gives.

    @ivar state: of the body: C{"waiting"} for somebody to read it, then C{"flowing"},
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
        """A piece of the body arrives."""
        assert self.state == "flowing", f"a body arrives that is {self.state}"
        self._protocol.dataReceived(data)

    def ends(self, reason: BaseException | None = None) -> None:
        """The body ends: whole, or with an error."""
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
    A request that an agent was given.

    @ivar reply: what the agent gave for it.
    """

    method: bytes
    uri: bytes
    headers: Headers
    body: Any
    reply: Deferred[Any]


@implementer(IAgent)
class RecordingAgent:
    """
    @ivar asked: every request, in order; the test fires their C{reply}.
    @ivar cancelled: the URIs of those that were cancelled.
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
        """Answer the latest request."""
        self.asked[-1].reply.callback(response)
        return response

    def fail(self, error: Exception) -> None:
        """Fail the latest request."""
        self.asked[-1].reply.errback(error)


def newExchange(method: bytes = b"GET", told: list[Outcome] | None = None) -> Exchange:
    """
    A record of a request that just began.
    """

    def listener(exchange: Exchange) -> None:
        assert told is not None and exchange.outcome is not None
        told.append(exchange.outcome)

    listeners = () if told is None else (listener,)
    return Exchange(method, b"/v2/a", None, Clock().seconds(), listeners)
