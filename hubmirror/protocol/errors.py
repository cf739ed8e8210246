"""
The exceptions of hubmirror, by the phase in which they occur, and the response that a client gets
for each.

The response has an error in JSON (OCI distribution spec, "Error codes").  The messages state what
failed, and never contain a credential, a query or a path of this machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus

SERVER = b"hubmirror"
"""
The value of C{Server} in responses that the mirror itself creates.
"""


RETRY_SOON = ((b"Retry-After", b"5"),)
"""
The response field that asks a client to try again in a few seconds.
"""


class MirrorError(Exception):
    """
    The base class of hubmirror's own exceptions.

    @ivar status: the HTTP status of the response.
    @ivar code: the registry's error code in the response.
    @ivar message: one sentence for the user.
    @ivar detail: further facts for the C{detail} member of the error.
    @ivar fields: additional response fields, such as C{Allow}.
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
        The body of the response: JSON with the one error.
        """
        error = {"code": self.code, "message": self.message, "detail": self.detail}
        return json.dumps({"errors": [error]}).encode("ascii") + b"\n"


def reasonOf(status: int) -> bytes:
    """
    The reason phrase of a status.
    """
    return HTTPStatus(status).phrase.encode("ascii")


class RequestRefused(MirrorError):
    """
    The mirror refuses the request, without asking an upstream.
    """


class Rejected(RequestRefused):
    """
    A rule that the operator has set does not permit the request.

    @ivar rule: the name of the rule's option; C{None} when the rule has no option.
    """

    def __init__(
        self, message: str, rule: str | None = None, fields: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message, fields=fields)
        self.rule = rule


class BadRequest(RequestRefused):
    """
    The request is malformed or ambiguous.
    """

    status, code = 400, "BAD_REQUEST"


class UnknownName(RequestRefused):
    """
    The request asks for something that this mirror does not serve.
    """

    status, code = 404, "NAME_UNKNOWN"


class InvalidName(RequestRefused):
    """
    The request names two registries.
    """

    status, code = 400, "NAME_INVALID"


class NothingHere(Rejected):
    """
    The request lacks the secret path, and its response must reveal nothing about the mirror.
    """

    status, code = 404, "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("page not found", "secret-path")


class Unauthorized(RequestRefused):
    """
    The request has no valid credentials.
    """

    status, code = 401, "UNAUTHORIZED"


class Denied(Rejected):
    """
    The request is not permitted.
    """

    status, code = 403, "DENIED"


class TooManyRequests(Rejected):
    """
    The client has reached a limit that the operator has set for each client.
    """

    status, code = 429, "TOOMANYREQUESTS"

    def __init__(self, message: str, rule: str, seconds: float) -> None:
        """
        @param seconds: seconds until a further request will be served.
        """
        retryAfter = max(1, math.ceil(seconds))
        super().__init__(message, rule, [(b"Retry-After", b"%d" % retryAfter)])


class NotAllowed(RequestRefused):
    """
    The method is not allowed.
    """

    status, code = 405, "UNSUPPORTED"


class ContentTooLarge(RequestRefused):
    """
    The body is larger than the limit.
    """

    status, code = 413, "SIZE_INVALID"


class TargetTooLong(RequestRefused):
    """
    The request line is longer than the limit.
    """

    status, code = 414, "BAD_REQUEST"


class FieldsTooLarge(RequestRefused):
    """
    The head is larger than the limit.
    """

    status, code = 431, "BAD_REQUEST"


class VersionNotSupported(RequestRefused):
    """
    The request has an unsupported version of HTTP.
    """

    status, code = 505, "UNSUPPORTED"


class TransferCodingUnknown(RequestRefused):
    """
    The body has a transfer coding other than chunked.
    """

    status, code = 501, "UNSUPPORTED"


class LoopDetected(RequestRefused):
    """
    The request has passed through this mirror before.
    """

    status, code = 508, "UNAVAILABLE"


class Overloaded(RequestRefused):
    """
    The request has waited in vain for one of the requests in progress to end: there are as many as
    the mirror allows.
    """

    status, code = 503, "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("too many requests are in progress here; try again", fields=RETRY_SOON)


class ShuttingDown(RequestRefused):
    """
    The mirror is shutting down.
    """

    status, code = 503, "UNAVAILABLE"


class UpstreamFailed(MirrorError):
    """
    An upstream gave no usable response.  The subclasses stand for the phase in which it failed.
    """

    status, code = 502, "UNAVAILABLE"


class ConnectFailed(UpstreamFailed):
    """
    No connection was established: the name did not resolve, the connection was refused, the
    certificate did not verify.
    """


class ConnectTimedOut(ConnectFailed):
    """
    No connection was established in time.
    """

    status = 504


class LocalFailure(ConnectFailed):
    """
    No connection was established because this machine has no file descriptor, port, memory or route
    left.  The upstream is not to blame.
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
    No complete and valid response head was received.
    """


class NoAnswer(HeadFailed):
    """
    The connection was closed before the response head was complete.  A request with a safe method
    (RFC 9110 9.2.1) may be repeated.
    """


class StaleConnection(NoAnswer):
    """
    A reused connection was closed before the first byte of the response.
    """


class HeadTimedOut(HeadFailed):
    """
    No response head was received in time.
    """

    status = 504


class NoCredentials(UpstreamFailed):
    """
    The upstream responded, but demands credentials that the mirror can't get.
    """


class RedirectRefused(UpstreamFailed):
    """
    The response is a redirect that must not be followed.
    """


class AddressRefused(ConnectFailed, RedirectRefused):
    """
    A redirect's target resolves to addresses that may not be connected to.
    """


class CodingRefused(UpstreamFailed):
    """
    The response has a content coding that was not requested.
    """


class BodyFailed(UpstreamFailed):
    """
    The body of a response was malformed, ended early or stalled, or that of the client's request
    ended early.  If the client has already been sent the head of the response, its connection is
    aborted instead of an error response.
    """


class LimitReached(MirrorError):
    """
    An upstream's rate limit has been reached, and its own response can't be passed on.
    """

    status, code = 429, "TOOMANYREQUESTS"


class OtherEntity(UpstreamFailed):
    """
    The rest of a body was requested, and the upstream now has another entity than the one that the
    response began with.
    """


class UpstreamsFailed(UpstreamFailed):
    """
    No upstream served the request, and there was no response that could be passed on.

    @ivar attempts: pairs of an upstream's name and its error, in the order of the configuration,
        including the upstreams that were skipped.  The first determines the response.
    """

    def __init__(self, attempts: Sequence[tuple[str, MirrorError]]) -> None:
        """
        @param attempts: at least one.
        """
        self.attempts = attempts
        name, error = attempts[0]
        super().__init__(
            f"{name}: {error.message}",
            {"upstreams": [f"{name}: {error.message}" for name, error in attempts]},
            error.fields,
        )
        self.status = error.status
