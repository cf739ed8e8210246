"""
Everything that can go wrong, by the phase in which it does, and the answer each one becomes.

An error that reaches a client is the JSON of the OCI distribution spec ("Error codes").  The
texts say what failed and never carry a credential, a query or a path of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus

SERVER = b"hubmirror"
"""
What C{Server} says of an answer that the mirror itself has made.
"""


RETRY_SOON = ((b"Retry-After", b"5"),)
"""
The field that sends a client away for a few seconds.
"""


class MirrorError(Exception):
    """
    The root of hubmirror's own exceptions.

    @ivar status: the HTTP status it becomes.
    @ivar code: the registry error code it becomes.
    @ivar message: one sentence for the user.
    @ivar detail: further facts for the C{detail} member of the error.
    @ivar fields: response fields that go with it, such as C{Allow}.
    """

    status = 500
    code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        detail: Mapping[str, object] | None = None,
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = dict(detail or {})
        self.fields = tuple(fields)

    def body(self) -> bytes:
        """
        The registry error body.
        """
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return json.dumps({"errors": [error]}).encode("ascii") + b"\n"


def reasonOf(status: int) -> bytes:
    """
    The reason phrase of a status that the mirror itself gives.
    """
    return HTTPStatus(status).phrase.encode("ascii")


class RequestRefused(MirrorError):
    """
    The client's request is answered here: no upstream is asked.
    """


class BadRequest(RequestRefused):
    """
    Malformed, or with more than one possible meaning.
    """

    status, code = 400, "BAD_REQUEST"


class UnknownName(RequestRefused):
    """
    Asks for what is not mirrored here.
    """

    status, code = 404, "NAME_UNKNOWN"


class InvalidName(RequestRefused):
    """
    Names two registries at once.
    """

    status, code = 400, "NAME_INVALID"


class NothingHere(RequestRefused):
    """
    Is outside the secret path: nothing is told.
    """

    status, code = 404, "NOT_FOUND"


class Unauthorized(RequestRefused):
    """
    Has no credentials, or none that may be used.
    """

    status, code = 401, "UNAUTHORIZED"


class Denied(RequestRefused):
    """
    Is not permitted here.
    """

    status, code = 403, "DENIED"


class NotAllowed(RequestRefused):
    """
    Has a method that is not taken here.
    """

    status, code = 405, "UNSUPPORTED"


class ContentTooLarge(RequestRefused):
    """
    Has a body over the limit.
    """

    status, code = 413, "SIZE_INVALID"


class TargetTooLong(RequestRefused):
    """
    Has a first line over the limit.
    """

    status, code = 414, "BAD_REQUEST"


class FieldsTooLarge(RequestRefused):
    """
    Has a head over the limit.
    """

    status, code = 431, "BAD_REQUEST"


class VersionNotSupported(RequestRefused):
    """
    Is of another version of HTTP.
    """

    status, code = 505, "UNSUPPORTED"


class TransferCodingUnknown(RequestRefused):
    """
    Has a body in a transfer coding other than chunked.
    """

    status, code = 501, "UNSUPPORTED"


class LoopDetected(RequestRefused):
    """
    Has been through this mirror before.
    """

    status, code = 508, "UNAVAILABLE"


class Overloaded(RequestRefused):
    """
    Comes while as many requests are under way as there may be, and has waited for its turn.
    """

    status, code = 503, "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("too many requests are under way here; ask again", fields=RETRY_SOON)


class ShuttingDown(RequestRefused):
    """
    Comes while the mirror stops.
    """

    status, code = 503, "UNAVAILABLE"


class UpstreamFailed(MirrorError):
    """
    An upstream gave no usable answer.  The subclasses tell in which phase.
    """

    status, code = 502, "UNAVAILABLE"


class ConnectFailed(UpstreamFailed):
    """
    No connection: the name did not resolve, the address refused, TLS did not verify.
    """


class ConnectTimedOut(ConnectFailed):
    """
    No connection in time.
    """

    status = 504


class LocalFailure(ConnectFailed):
    """
    No connection, for a reason of this machine's own: it has no file descriptor, port, memory or
    route left.  That says nothing of the upstream.
    """

    status = 503

    def __init__(
        self,
        message: str,
        detail: Mapping[str, object] | None = None,
        fields: Sequence[tuple[bytes, bytes]] = RETRY_SOON,
    ) -> None:
        super().__init__(message, detail, fields)


class HeadFailed(UpstreamFailed):
    """
    Connected, but no complete and valid response head came.
    """


class NoAnswer(HeadFailed):
    """
    The connection closed before the whole head of the answer: what is only read may be asked again.
    """


class StaleConnection(NoAnswer):
    """
    A kept connection closed before a byte of the answer.
    """


class HeadTimedOut(HeadFailed):
    """
    Connected, but no response head in time.
    """

    status = 504


class RedirectRefused(UpstreamFailed):
    """
    The answer is a redirect that must not be followed.
    """


class AddressRefused(ConnectFailed, RedirectRefused):
    """
    A redirect's target resolves to addresses that may not be connected to.
    """


class CodingRefused(UpstreamFailed):
    """
    The answer has a content coding although identity was asked for.
    """


class BodyFailed(UpstreamFailed):
    """
    The answer's body broke, ended early or stalled.  By then the head is with the client,
    so this never becomes an answer: the connection is aborted.
    """


class LimitReached(MirrorError):
    """
    An upstream refuses for now to serve whoever asks, and its own words can't be handed on.
    """

    status, code = 429, "TOOMANYREQUESTS"


class OtherEntity(UpstreamFailed):
    """
    What an upstream has now is not what an answer began with.
    """


class UpstreamsFailed(UpstreamFailed):
    """
    No upstream served, and the first one gave no answer to hand on.
    """

    def __init__(self, attempts: Sequence[tuple[str, MirrorError]]) -> None:
        """
        @param attempts: what happened, as pairs of the upstream's name and its error, in order.
        """
        name, error = attempts[0]
        super().__init__(
            f"{name}: {error.message}",
            {"upstreams": [f"{name}: {error.message}" for name, error in attempts]},
            error.fields,
        )
        self.status = error.status
