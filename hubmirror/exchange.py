"""
The record of one exchange: the request, the upstream that responded, the number of bytes, and how
it ended.

The modules that serve requests write into the record.  When the exchange has ended, listeners such
as the access log are called with it, so that neither side depends on the other.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import attrs
from twisted.logger import Logger

from hubmirror.protocol.forwarded import Address
from hubmirror.protocol.target import Kind

_log = Logger()


class Outcome(enum.Enum):
    """
    How an exchange ended.
    """

    COMPLETE = "complete"
    """The client was sent the whole response."""
    REFUSED = "refused"
    """The mirror refused the request with a response of its own."""
    FAILED = "failed"
    """No upstream gave a usable response; the mirror responded with an error."""
    BROKEN = "broken"
    """The upstream's body ended early or was wrong, and the client's connection was aborted."""
    CLIENT_LEFT = "client left"
    """The client closed its connection before the response was complete."""
    CLIENT_STALLED = "client stalled"
    """The client accepted no data for too long, and its connection was aborted."""


@attrs.define(eq=False)
class Exchange:
    """
    The record of one request of a client and its response.

    @ivar method: the request's method.
    @ivar target: the request target as the client wrote it, but without the secret path.
    @ivar kind: the kind of the target; C{None} when the target could not be parsed.
    @ivar client: the client's address; C{None} when it is not known.
    @ivar started: when the exchange began, in seconds of the reactor's clock.
    @ivar status: the status of the response; 0 as long as there is none.
    @ivar registry: the name of the registry that the request addresses; C{None} when it could not
        be determined.
    @ivar requestID: identifies the exchange in the logs of the mirror and of the upstreams.
    @ivar rule: the rule of the operator that refused the request, by the name of its option.
    @ivar upstream: the name of the upstream whose response was used.
    @ivar userAgent: the request's C{User-Agent}.
    @ivar version: the request's HTTP version, such as C{HTTP/1.1}.
    @ivar failures: the upstreams that gave no usable response, or whose body could not be
        completed, each with the reason.
    @ivar attempts: the requests to upstreams: the name of the upstream, and the status of the
        response or the name of the exception.
    @ivar skipped: the upstreams that were not asked although it was their turn, each with the
        reason: C{down} or C{limited}.
    @ivar breaks: the upstreams whose body broke, each with the reason: C{ended}, C{stalled},
        C{other entity} or C{wrong digest}.
    @ivar redirects: how many redirects were followed.
    @ivar fromCDN: whether the request was for a blob, and the last response came from another
        origin than the upstream's, to which a redirect led.
    @ivar resumes: how often a body that broke was resumed.
    @ivar headAfter: seconds from the start until the response head was available.
    @ivar sent: bytes of the response body that were sent to the client.
    @ivar received: bytes of the request body that were received from the client.
    @ivar seconds: the duration in seconds, once the exchange has ended.
    @ivar outcome: how the exchange ended, once it has.
    """

    method: bytes
    target: bytes
    client: Address | None
    started: float
    _listeners: Sequence[Callable[[Exchange], None]] = ()
    kind: Kind | None = None
    status: int = 0
    registry: str | None = None
    requestID: str = ""
    rule: str | None = None
    upstream: str | None = None
    userAgent: bytes | None = None
    version: bytes = b""
    failures: list[tuple[str, str]] = attrs.Factory(list)
    attempts: list[tuple[str, str]] = attrs.Factory(list)
    skipped: list[tuple[str, str]] = attrs.Factory(list)
    breaks: list[tuple[str, str]] = attrs.Factory(list)
    redirects: int = 0
    fromCDN: bool = False
    resumes: int = 0
    headAfter: float | None = None
    sent: int = 0
    received: int = 0
    seconds: float | None = None
    outcome: Outcome | None = None

    def end(self, outcome: Outcome, now: float) -> None:
        """
        Complete the record and call the listeners.  Only the first call has an effect, because an
        exchange may end for two reasons at once: the body breaks while the client disconnects.

        @param now: the present time, in seconds of the reactor's clock.
        """
        if self.outcome is not None:
            return
        self.outcome = outcome
        self.seconds = now - self.started
        for listener in self._listeners:
            try:
                listener(self)
            except Exception:
                _log.failure("a listener failed")
