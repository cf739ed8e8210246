"""
Simulates faults of a service.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from twisted.web.http_headers import Headers

from hubmirror.testing.answers import Answer, Ending, Serve, bytesAnswer, errorAnswer
from hubmirror.testing.credentials import Credential
from hubmirror.testing.wire import HubRequest, fieldValues


@dataclass(frozen=True)
class Seen:
    """
    A request that a service of an embedded registry has received.

    @ivar service: C{registry}, C{token}, C{search}, C{cdn} or C{mirror}.  The token service on a
        registry's own host is C{registry}, and that of a mirror is C{mirror}.
    @ivar registry: the name of the registry, such as C{docker.io} for the Hub.
    @ivar host: the name of the service's host, even if it listens on an address.
    @ivar method: the method.
    @ivar target: the request target, byte for byte.
    @ivar headers: all fields, grouped by name.
    @ivar connection: the number of the connection; the first to a service is 1.
    @ivar bodyLength: the length of the request's body, in bytes.
    @ivar credentials: all credentials in the request.
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
        The value of the last field of this name; L{None} when there is none.
        """
        values = fieldValues(self.headers, name)
        return values[-1] if values else None


#: Creates the response to a request in place of the service, whose own function is the second
#: argument.  No response is sent for C{None}.
Fault = Callable[[HubRequest, Serve], "Answer | None"]
#: Whether a fault applies to a request.
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

    Each method takes C{count}, the number of requests that the fault applies to (L{None} for all),
    and C{when}, a predicate that selects them.  If several faults match a request, the first one
    that was added applies.
    """

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def script(self, fault: Fault, *, count: int | None = None, when: When | None = None) -> None:
        """
        Respond with a function: C{fault(request, serve)} returns an L{Answer}, or L{None} when it
        has handled the request itself; C{serve(request)} returns the correct response.
        """
        self._rules.append(_Rule(fault, count, when))

    def restore(self) -> None:
        """
        Remove all faults that these methods have set.  Requests that hang continue to do so.
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
        Respond with a status.

        @param body: the body, which is C{text/plain} unless C{fields} has another C{Content-Type};
            by default, a registry's error in JSON.
        @param fields: further response fields.
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
        Never respond.
        """
        self.script(lambda request, serve: None, count=count, when=when)

    def closeBeforeHead(self, *, count: int | None = None, when: When | None = None) -> None:
        """
        Reset the connection instead of responding.
        """

        def fault(request: HubRequest, serve: Serve) -> None:
            request.channel.transport.abortConnection()

        self.script(fault, count=count, when=when)

    def cut(self, after: int, *, count: int | None = None, when: When | None = None) -> None:
        """
        Close the connection after C{after} bytes of the body.
        """
        self._end(after, Ending.CLOSE, count, when)

    def stall(self, after: int, *, count: int | None = None, when: When | None = None) -> None:
        """
        Send nothing after C{after} bytes of the body; the connection stays open.
        """
        self._end(after, Ending.HANG, count, when)

    def ignoreRange(self, *, count: int | None = None, when: When | None = None) -> None:
        """
        Ignore C{Range}: respond with status 200 and the whole body.
        """

        def fault(request: HubRequest, serve: Serve) -> Answer:
            request.requestHeaders.removeHeader("Range")
            return serve(request)

        self.script(fault, count=count, when=when)

    def misstateLength(
        self, by: int, *, count: int | None = None, when: When | None = None
    ) -> None:
        """
        Send a wrong C{Content-Length}.

        @param by: bytes to add.  If this is positive, the connection is closed after the body; if
            it is negative, the whole body is sent all the same.
        """

        def fault(request: HubRequest, serve: Serve) -> Answer:
            answer = serve(request)
            ending = Ending.CLOSE if by > 0 else Ending.FINISH
            return replace(answer, length=(answer.length or 0) + by, ending=ending)

        self.script(fault, count=count, when=when)

    def corrupt(self, at: int, *, count: int | None = None, when: When | None = None) -> None:
        """
        Flip the bits of one byte of the body.

        @param at: the position of the byte; the first is 0.
        """

        def fault(request: HubRequest, serve: Serve) -> Answer:
            answer = serve(request)
            return replace(answer, pieces=_flip(answer.pieces, at))

        self.script(fault, count=count, when=when)

    def choose(self, seen: Seen) -> Fault | None:
        """
        The fault that applies to a request, whose C{count} is reduced; L{None} when there is none.
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
    The first C{length} bytes.  No more pieces are read than are needed.
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
