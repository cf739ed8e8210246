"""
Why a check of the doctor has failed: converts statuses, exceptions and time limits to L{Wrong}.
"""

from __future__ import annotations

from typing import NoReturn

from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.iweb import IResponse

from hubmirror.operations.findings import Wrong
from hubmirror.operations.pulling import PullFailed
from hubmirror.transport.failures import describeFailure


def expectServed(response: IResponse) -> None:
    """
    @raise Wrong: for the statuses of rate limits and of failing upstreams.
    """
    if response.code == 429:
        mediaType = response.headers.getRawHeaders("Content-Type", [""])[0]
        if "json" not in mediaType:
            raise Wrong(
                "the response is 429, but not a registry's: all requests from an address are"
                " limited",
                "many may share the address, such as that of a Cloudflare Worker or of a cloud; run"
                " the mirror elsewhere, or give it a --fallback",
            )
        raise Wrong(
            "the response is 429: too many requests from this address or account",
            "wait, log in, or give the mirror a --fallback",
        )
    if response.code in (502, 503, 504):
        raise Wrong(
            f"the response is {response.code}: a server behind this one fails",
            "the log of a mirror has the reason; without a URL, this command checks the connection"
            " to the Hub itself",
        )


def late(_: object, limit: float) -> NoReturn:
    """
    Fail a check that has not ended within its time limit, as the C{onTimeoutCancel} of a deferred.
    """
    raise Wrong(f"no response within {limit:g} s", "clients wait no longer than that")


def asWrong(error: Exception) -> Wrong:
    """
    Describe any exception of a check.
    """
    if isinstance(error, Wrong):
        return error
    if isinstance(error, PullFailed):
        return Wrong(str(error))
    if isinstance(error, (KeyError, TypeError)):
        return Wrong("the response is JSON, but not what a registry sends")
    reason = error.reasons[0] if isinstance(error, ResponseFailed) else Failure(error)
    return Wrong(describeFailure(reason))
