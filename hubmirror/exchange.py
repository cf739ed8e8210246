"""
The record of one exchange: the request, the upstream that responded, the number of bytes, and how
it ended.

The modules that serve requests write into it, and listeners such as the access log are called with
it when the exchange has ended.  Neither of the two knows the other.
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
    """The client got the whole answer."""
    REFUSED = "refused"
    """The mirror answered by itself: the request could not be taken."""
    FAILED = "failed"
    """No upstream served; the mirror answered with an error."""
    BROKEN = "broken"
    """The answer broke in its middle, and the client's connection was aborted."""
    CLIENT_LEFT = "client left"
    """The client closed before the answer was whole."""
    CLIENT_STALLED = "client stalled"
    """The client took nothing for too long, and its connection was aborted."""


@attrs.define(eq=False)
class Exchange:
    """
    @ivar method: the request's method.
    @ivar target: the request target as the client wrote it.
    @ivar kind: what was asked for; C{None} when it could not be read.
    @ivar client: the client's address, as far as it is known.
    @ivar started: when it began, in seconds of the reactor's clock.
    @ivar status: of the answer; 0 before there is one.
    @ivar registry: the name of the registry that was meant; C{None} when that could not be read.
    @ivar requestID: identifies the exchange in logs, here and upstream.
    @ivar rule: the operator's rule that the request was refused by, named as its option is.
    @ivar upstream: the name of the upstream that answered.
    @ivar userAgent: the request's C{User-Agent}.
    @ivar version: the request's HTTP version, such as C{HTTP/1.1}.
    @ivar failures: upstreams that did not, or whose answer broke for good, and why.
    @ivar attempts: the upstreams that were asked, each with the status of its answer, or the name
        of the exception that came instead.
    @ivar skipped: the upstreams that would have been asked before, and why they were not: C{down}
        or C{limited}.
    @ivar breaks: the upstreams whose answer broke in its body, and how: C{ended}, C{stalled},
        C{other entity} or C{wrong digest}.
    @ivar redirects: how many were followed.
    @ivar fromCDN: the last answer is to a request for a blob, and came from another origin than the
        upstream's, which a redirect had named.
    @ivar resumes: how often the answer broke and went on.
    @ivar headAfter: seconds from the start to the answer's head.
    @ivar sent: bytes of body sent to the client.
    @ivar received: bytes of body taken from the client.
    @ivar seconds: how long it took, once it has ended.
    @ivar outcome: how it ended, once it has.
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
        Complete the record and call the listeners.  Only the first call has an effect: a response
        can break while its client leaves.
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
