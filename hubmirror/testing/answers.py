"""
Answers as plain values, and the producer that writes one to a request.

A service makes an L{Answer} of a request; a fault makes another of it; C{send} writes the outcome.
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

    FINISH = enum.auto()  #: the answer is complete, the connection stays
    CLOSE = enum.auto()  #: the connection is closed in the midst of the answer
    HANG = enum.auto()  #: nothing, for ever


@dataclass(frozen=True)
class Answer:
    """
    What a service answers to a request.

    @ivar length: value of C{Content-Length}; L{None} for no such field.
    @ivar pieces: the body, taken as fast as the client reads it.
    """

    status: int
    fields: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    pieces: Iterable[bytes] = ()
    ending: Ending = Ending.FINISH


#: How a service answers: a request in, an answer out.
Serve = Callable[[HubRequest], Answer]


def bytesAnswer(
    status: int, contentType: str, body: bytes, fields: Mapping[str, str] | None = None
) -> Answer:
    """
    An answer with a small body.
    """
    return Answer(status, {"Content-Type": contentType, **(fields or {})}, len(body), (body,))


def jsonAnswer(status: int, value: object, fields: Mapping[str, str] | None = None) -> Answer:
    """
    An answer with a JSON body.
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
    An error as the distribution specification has it, "Error Codes".
    """
    error = {"code": code, "message": message, "detail": detail}
    return jsonAnswer(status, {"errors": [error]}, fields)


def send(request: HubRequest, answer: Answer, wrote: Callable[[int], None]) -> None:
    """
    Write an answer to a request, no faster than the client reads it.

    @param wrote: called with the number of bytes of each piece of a body.
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
    Writes the pieces of a body until the transport says that it has enough for now.
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
