"""
Responses as plain values, and the producer that writes one to a client.

A service creates an L{Answer} for a request, a fault may replace it, and C{send} writes it.
"""

import enum
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from hubmirror.testing.wire import HubRequest


class Ending(enum.Enum):
    """
    What happens after the last piece of a body.
    """

    FINISH = enum.auto()  #: the response is complete, and the connection stays open
    CLOSE = enum.auto()  #: the connection is closed before the response is complete
    HANG = enum.auto()  #: nothing is sent any more, and the connection stays open


@dataclass(frozen=True)
class Answer:
    """
    The response of a service.

    @ivar status: the status.
    @ivar fields: the fields.
    @ivar length: the value of C{Content-Length}; L{None} for no such field.
    @ivar pieces: the body, which is iterated only as fast as the client reads it.
    @ivar ending: what happens after the body.
    """

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    pieces: Iterable[bytes] = ()
    ending: Ending = Ending.FINISH


#: Creates the response to a request.
Serve = Callable[[HubRequest], Answer]


def bytesAnswer(
    status: int, contentType: str, body: bytes, fields: Mapping[str, str] | None = None
) -> Answer:
    """
    Create a response with a small body.
    """
    return Answer(status, {"Content-Type": contentType, **(fields or {})}, len(body), (body,))


def jsonAnswer(status: int, value: object, fields: Mapping[str, str] | None = None) -> Answer:
    """
    Create a response with a JSON body.
    """
    return bytesAnswer(status, "application/json", json.dumps(value).encode(), fields)


def errorAnswer(
    status: int,
    code: str,
    message: str,
    detail: Any = None,
    fields: Mapping[str, str] | None = None,
) -> Answer:
    """
    Create an error response (OCI distribution specification, "Error Codes").
    """
    error = {"code": code, "message": message, "detail": detail}
    return jsonAnswer(status, {"errors": [error]}, fields)


def send(request: HubRequest, answer: Answer, wrote: Callable[[int], None]) -> None:
    """
    Write a response, no faster than the client reads it.

    @param wrote: called with the length in bytes of each piece of the body.
    """
    request.setResponseCode(answer.status)
    for name, value in answer.fields.items():
        request.responseHeaders.addRawHeader(name, value)
    if answer.length is not None:
        request.setHeader("Content-Length", str(answer.length))
    pieces = () if request.method == b"HEAD" else answer.pieces
    producer = _AnswerProducer(request, iter(pieces), answer.ending, wrote)
    request.registerProducer(producer, True)
    request.write(b"")
    producer.resumeProducing()


@implementer(IPushProducer)
class _AnswerProducer:
    """
    Writes the pieces of a body, and pauses when the transport asks for it.
    """

    def __init__(
        self,
        request: HubRequest,
        pieces: Iterator[bytes],
        ending: Ending,
        wrote: Callable[[int], None],
    ) -> None:
        self._request = request
        self._pieces = pieces
        self._ending = ending
        self._wrote = wrote
        self._flowing = False
        self._done = False

    def resumeProducing(self) -> None:
        if self._done:
            return
        self._flowing = True
        while self._flowing:
            piece = next(self._pieces, None)
            if piece is None:
                self._end()
                return
            self._wrote(len(piece))
            self._request.write(piece)

    def pauseProducing(self) -> None:
        self._flowing = False

    def stopProducing(self) -> None:
        self._flowing = False
        self._done = True

    def _end(self) -> None:
        self.stopProducing()
        self._request.unregisterProducer()
        if self._ending is Ending.FINISH:
            self._request.finish()
        elif self._ending is Ending.CLOSE:
            self._request.channel.loseConnection()
