"""
Rate limit fields: C{RateLimit-*} as Docker Hub sends them, and C{Retry-After}.
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
    @ivar remaining: how many pulls are left.
    @ivar window: seconds after which all are there again.
    @ivar limit: how many pulls there are in a window; C{None} when that is not said.
    """

    remaining: int
    window: float
    limit: int | None = None


def quotaOf(headers: Headers) -> Quota | None:
    """
    The value of C{ratelimit-remaining: 98;w=21600}, if the response has this field.
    """
    match = _QUOTA.match((headers.getRawHeaders(b"RateLimit-Remaining") or [b""])[0])
    if match is None:
        return None
    limit = _QUOTA.match((headers.getRawHeaders(b"RateLimit-Limit") or [b""])[0])
    window = min(_MOST, float(match[2] or 60))
    return Quota(int(match[1]), window, None if limit is None else int(limit[1]))


def retryAfter(headers: Headers, now: datetime | None = None) -> float | None:
    """
    The seconds that C{Retry-After} asks for (RFC 9110 10.2.3), at most a day; C{None} where there
    is none that can be read.

    @param now: by default the present time.
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
