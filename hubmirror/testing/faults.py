"""
Faults: what goes wrong at a service, how often, and for which requests.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from twisted.web.http_headers import Headers

from hubmirror.testing.answers import Answer, Ending, Serve, bytesAnswer, errorAnswer
from hubmirror.testing.credentials import Credential
from hubmirror.testing.wire import HubRequest


@dataclass(frozen=True)
class Seen:
    """
    A request, as a service of an embedded registry got it.

    @ivar service: C{registry}, C{token}, C{search}, C{cdn} or C{mirror}.
    @ivar registry: name of the registry whose service that is; the Hub's is C{docker.io}.
    @ivar host: name of the service's host, also where it listens on an address.
    @ivar target: the request target, byte for byte.
    @ivar headers: all fields; those of one name are together.
    @ivar connection: which connection to that service this was, counted from 1.
    @ivar bodyLength: length of the request's body, in bytes.
    @ivar credentials: all that the request had to say who asks.
    """

    service: str
    registry: str
    host: str
    method: bytes
    target: bytes
    headers: Headers
    connection: int
    bodyLength: int
    credentials: tuple[Credential, ...]

    def field(self, name: str) -> str | None:
        """
        The last field of this name, or L{None}.
        """
        values = self.headers.getRawHeaders(name, [])
        return values[-1] if values else None


#: Answers a request wrongly, with the help of the right way to do it; C{None} for not at all.
Fault = Callable[[HubRequest, Serve], "Answer | None"]
#: Picks the requests that a fault is for.
When = Callable[[Seen], bool]

_LIMITED = (
    "You have reached your unauthenticated pull rate limit. "
    "https://www.docker.com/increase-rate-limit"
)


@dataclass
class _Rule:
    fault: Fault
    count: int | None
    when: When | None

    def applies(self, seen: Seen) -> bool:
        return self.count != 0 and (self.when is None or self.when(seen))


class Faults:
    """
    The faults of one service.

    Each method takes C{count}, the number of requests to spoil (L{None}: all of them), and
    C{when}, a predicate of L{Seen} that picks them. Of several faults that fit, the one given
    first is it.
    """

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def script(self, fault: Fault, *, count: int | None = None, when: When | None = None) -> None:
        """
        Answer with a function of your own: C{fault(request, serve)} returns an L{Answer}, or
        L{None} when it has seen to the request itself; C{serve(request)} is the right answer.
        """
        self._rules.append(_Rule(fault, count, when))

    def restore(self) -> None:
        """
        All is well again, but for the requests that hang already.
        """
        self._rules.clear()

    def fail(
        self,
        status: int = 429,
        body: bytes | None = None,
        fields: Mapping[str, str] | None = None,
        *,
        count: int | None = None,
        when: When | None = None,
    ) -> None:
        """
        Answer with a status.

        @param body: by default a registry's error; a C{Content-Type} comes with C{fields}.
        """
        if body is None:
            code = "TOOMANYREQUESTS" if status == 429 else "UNAVAILABLE"
            message = _LIMITED if status == 429 else f"the embedded Hub was told to answer {status}"
            answer = errorAnswer(status, code, message, fields=fields)
        else:
            answer = bytesAnswer(status, "text/plain", body, fields)
        self.script(lambda request, serve: answer, count=count, when=when)

    def hang(self, *, count: int | None = None, when: When | None = None) -> None:
        """
        Never answer.
        """
        self.script(lambda request, serve: None, count=count, when=when)

    def closeBeforeHead(self, *, count: int | None = None, when: When | None = None) -> None:
        """
        Reset the connection instead of answering.
        """

        def fault(request: HubRequest, serve: Serve) -> None:
            request.channel.transport.abortConnection()

        self.script(fault, count=count, when=when)

    def cut(self, after: int, *, count: int | None = None, when: When | None = None) -> None:
        """
        Close the connection after so many bytes of the body.
        """
        self._end(after, Ending.CLOSE, count, when)

    def stall(self, after: int, *, count: int | None = None, when: When | None = None) -> None:
        """
        Send no more after so many bytes of the body; the connection stays open.
        """
        self._end(after, Ending.HANG, count, when)

    def ignoreRange(self, *, count: int | None = None, when: When | None = None) -> None:
        """
        Answer 200 and the whole, whatever range was asked for.
        """

        def fault(request: HubRequest, serve: Serve) -> Answer:
            request.requestHeaders.removeHeader("Range")
            return serve(request)

        self.script(fault, count=count, when=when)

    def misstateLength(
        self, by: int, *, count: int | None = None, when: When | None = None
    ) -> None:
        """
        Put the C{Content-Length} wrong: too long (C{by} > 0; the connection is closed when there
        is no more to send), or too short (C{by} < 0; the bytes above it are sent all the same).
        """

        def fault(request: HubRequest, serve: Serve) -> Answer:
            answer = serve(request)
            ending = Ending.CLOSE if by > 0 else Ending.FINISH
            return replace(answer, length=(answer.length or 0) + by, ending=ending)

        self.script(fault, count=count, when=when)

    def corrupt(self, at: int, *, count: int | None = None, when: When | None = None) -> None:
        """
        Flip the bits of one byte of the body, counted from 0.
        """

        def fault(request: HubRequest, serve: Serve) -> Answer:
            answer = serve(request)
            return replace(answer, pieces=_flip(answer.pieces, at))

        self.script(fault, count=count, when=when)

    def choose(self, seen: Seen) -> Fault | None:
        """
        The fault for a request, used up by one.
        """
        rule = next((rule for rule in self._rules if rule.applies(seen)), None)
        if rule is None:
            return None
        if rule.count is not None:
            rule.count -= 1
        return rule.fault

    def _end(self, after: int, ending: Ending, count: int | None, when: When | None) -> None:
        def fault(request: HubRequest, serve: Serve) -> Answer:
            answer = serve(request)
            return replace(answer, pieces=_first(answer.pieces, after), ending=ending)

        self.script(fault, count=count, when=when)


def _first(pieces: Iterable[bytes], length: int) -> Iterator[bytes]:
    """
    No more than the first bytes; reads not one piece more than that takes.
    """
    remaining = iter(pieces)
    while length > 0:
        piece = next(remaining, b"")
        if not piece:
            return
        yield piece[:length]
        length -= len(piece)


def _flip(pieces: Iterable[bytes], at: int) -> Iterator[bytes]:
    for piece in pieces:
        if 0 <= at < len(piece):
            piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
        at -= len(piece)
        yield piece
