"""
The response fields of rate limits: C{RateLimit-*} as Docker Hub sends them, and C{Retry-After}.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from twisted.web.http_headers import Headers

_QUOTA = re.compile(rb"([0-9]{1,9})(?:;w=([0-9]{1,9}))?")
_MOST = 86400.0


class Quota(NamedTuple):
    """
    A rate limit on pulls.

    @ivar remaining: how many pulls are left.
    @ivar window: the window of the limit, in seconds: after so long all pulls are available again.
    @ivar limit: how many pulls a window has; C{None} when the response does not state it.
    """

    remaining: int
    window: float
    limit: int | None = None


def quotaOf(headers: Headers) -> Quota | None:
    """
    The quota in C{RateLimit-Remaining} (such as C{98;w=21600}) and C{RateLimit-Limit}; C{None} when
    the response has no valid C{RateLimit-Remaining}.
    """
    remaining = readQuota(headers, b"RateLimit-Remaining")
    if remaining is None:
        return None
    limit = readQuota(headers, b"RateLimit-Limit")
    window = 60 if remaining[1] is None else remaining[1]
    return Quota(remaining[0], min(_MOST, window), None if limit is None else limit[0])


def readQuota(headers: Headers, field: bytes) -> tuple[int, int | None] | None:
    """
    The value of C{RateLimit-Remaining} or C{RateLimit-Limit}.

    @return: the number of pulls, and the window in seconds as the response states it, or C{None}
        instead of the window when it states none; C{None} when there is no valid value.
    """
    match = _QUOTA.match((headers.getRawHeaders(field) or [b""])[0])
    return None if match is None else (int(match[1]), int(match[2]) if match[2] else None)


def retryAfter(headers: Headers, now: datetime | None = None) -> float | None:
    """
    The delay that C{Retry-After} asks for (RFC 9110 10.2.3), in seconds, at most a day; C{None}
    when the field is absent or malformed.

    @param now: the time from which the delay to a date is counted, by default the present.
    """
    value = (headers.getRawHeaders(b"Retry-After") or [b""])[0].strip()
    if re.match(rb"[0-9]{1,9}\Z", value):
        return min(_MOST, float(value))
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
    except (TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    seconds = (date - (now or datetime.now(timezone.utc))).total_seconds()
    return max(0.0, min(_MOST, seconds))
