"""
Rate limits of upstreams: the identity for which they count a pull, the number of pulls that are
left, and the 429 responses that they gave.

The Hub has two limits.  The limit on pulls applies to the manifest requests of one identity; the
limit against abuse applies to all requests from the mirror's address.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import secrets

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from hubmirror.protocol.ratelimit import Quota, quotaOf, retryAfter
from hubmirror.protocol.target import Kind
from hubmirror.upstream.cachedresponse import CachedResponse
from hubmirror.upstream.policy import Upstream, limitsPulls

ANONYMOUS = b""
"""
The identity of all requests with an anonymous token.
"""

# Identities that are not hashes: requests without credentials, and all requests.
_UNAUTHENTICATED = b"?"
_ALL_IDENTITIES = b"*"
# The duration of a limit whose end is not announced, in seconds.
_DEFAULT = 60.0
# The time for which a 429 is repeated without asking the upstream, in seconds.
_FRESH = 3.0
_MOST_IDENTITIES = 10_000


@attrs.define
class _Limit:
    """
    @ivar until: when the limit ends, in seconds of the reactor's clock.
    @ivar said: when the upstream last announced it.
    @ivar answer: the 429 response that announced it, if it was one.
    @ivar method: the method of the request that got this response.
    """

    until: float
    said: float
    answer: CachedResponse | None
    method: bytes


@attrs.frozen
class KnownQuota:
    """
    The number of pulls that one identity has left, as the upstream last reported it.

    @ivar upstream: the upstream's name.
    @ivar identity: see L{Quotas.identity}.
    @ivar remaining: how many pulls are left.
    @ivar limit: how many pulls a window allows; C{None} when that is not known.
    @ivar until: when the upstream reported it, plus the window, in seconds of the reactor's clock:
        the identity has all of its pulls again then, or earlier.
    """

    upstream: str
    identity: bytes
    remaining: int
    limit: int | None
    until: float

    @property
    def isAnonymous(self) -> bool:
        """
        Whether these are the pulls of clients without an account.
        """
        return self.identity == ANONYMOUS


class Quotas:
    """
    The rate limits that are in force, for each upstream and identity.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, key: bytes | None = None) -> None:
        """
        @param key: the key of the hashes that stand for credentials; by default a random one.
        """
        self._reactor = reactor
        self._key = key or secrets.token_bytes(16)
        self._limits: dict[tuple[str, bytes], _Limit] = {}
        self._known: dict[tuple[str, bytes], KnownQuota] = {}

    def identity(self, headers: Headers) -> bytes:
        """
        The identity for which an upstream counts a request, as a hash: the subject of its token
        (RFC 7519 section 4.1.2), or else its credentials.  All tokens without a subject are one
        identity, and so are all requests without credentials.  The latter get a challenge whether
        or not any limit on pulls is used up.
        """
        credentials = (headers.getRawHeaders(b"Authorization") or [b""])[0]
        subject = _subject(credentials)
        if subject is not None:
            credentials = subject
        if not credentials:
            return _UNAUTHENTICATED if subject is None else ANONYMOUS
        return hashlib.blake2b(credentials, key=self._key, digest_size=16).digest()

    def known(self) -> list[KnownQuota]:
        """
        The quotas of all identities whose window has not ended.  After its end, an identity has
        all of its pulls again.
        """
        now = self._reactor.seconds()
        return [each for each in self._known.values() if each.until > now]

    def remaining(self, upstream: Upstream, identity: bytes) -> float:
        """
        How many pulls an identity has left; infinity when that is not known.
        """
        limit = self._limit(upstream, Kind.MANIFEST, identity)
        if limit is not None:
            return 0.0
        known = self._known.get((upstream.name, identity))
        if known is None or known.until <= self._reactor.seconds():
            return math.inf
        return known.remaining

    def limited(self, upstream: Upstream, kind: Kind | None, identity: bytes) -> bool:
        """
        Whether a limit of an upstream is in force for a request, so that other upstreams are asked
        first.
        """
        return self._limit(upstream, kind, identity) is not None

    def remembered(
        self, upstream: Upstream, kind: Kind | None, identity: bytes, method: bytes
    ) -> CachedResponse | None:
        """
        The 429 that an upstream gave within the last three seconds, or C{None}.  Its C{Retry-After}
        is the remaining time.
        """
        limit = self._limit(upstream, kind, identity)
        now = self._reactor.seconds()
        if limit is None or limit.answer is None or now - limit.said > _FRESH:
            return None
        if limit.method == b"HEAD" and method != b"HEAD":
            # The remembered response has no body, and this request needs one.
            return None
        headers = limit.answer.headers.copy()
        left = max(1, math.ceil(limit.until - now))
        headers.setRawHeaders(b"Retry-After", [b"%d" % left])
        return CachedResponse(
            limit.answer, b"" if method == b"HEAD" else limit.answer.body, headers
        )

    def _limit(self, upstream: Upstream, kind: Kind | None, identity: bytes) -> _Limit | None:
        now = self._reactor.seconds()
        for whose in (_ALL_IDENTITIES, identity) if kind is Kind.MANIFEST else (_ALL_IDENTITIES,):
            limit = self._limits.get((upstream.name, whose))
            if limit is not None:
                if limit.until > now:
                    return limit
                del self._limits[upstream.name, whose]
        return None

    def answered(
        self,
        upstream: Upstream,
        kind: Kind | None,
        identity: bytes,
        method: bytes,
        answer: IResponse,
    ) -> None:
        """
        Update the limits from the header fields of a response, whatever its status.
        """
        if answer.code == 429:
            everybody = not limitsPulls(answer.code, answer.headers)
            if not everybody and kind is not Kind.MANIFEST:
                return
            seconds = retryAfter(answer.headers)
            if seconds is None:
                quota = quotaOf(answer.headers)
                seconds = _DEFAULT if quota is None else quota.window
            self._set(
                upstream,
                _ALL_IDENTITIES if everybody else identity,
                seconds,
                answer if isinstance(answer, CachedResponse) else None,
                method,
            )
        elif kind is Kind.MANIFEST and (quota := quotaOf(answer.headers)) is not None:
            self._remember(upstream, identity, quota)
            if quota.remaining == 0:
                self._set(upstream, identity, quota.window, None, method)
            else:
                self._limits.pop((upstream.name, identity), None)

    def _remember(self, upstream: Upstream, identity: bytes, quota: Quota) -> None:
        key = upstream.name, identity
        if key not in self._known and len(self._known) >= _MOST_IDENTITIES:
            del self._known[next(iter(self._known))]
        until = self._reactor.seconds() + quota.window
        self._known[key] = KnownQuota(*key, quota.remaining, quota.limit, until)

    def _set(
        self,
        upstream: Upstream,
        whose: bytes,
        seconds: float,
        answer: CachedResponse | None,
        method: bytes,
    ) -> None:
        now = self._reactor.seconds()
        known = self._limits.get((upstream.name, whose))
        if known is None:
            self._log.warn(
                "{upstream} limits {what} for {seconds:.0f} s",
                upstream=upstream.name,
                what="every request" if whose == _ALL_IDENTITIES else "pulls",
                seconds=seconds,
            )
            if len(self._limits) >= _MOST_IDENTITIES:
                del self._limits[next(iter(self._limits))]
        self._limits[upstream.name, whose] = _Limit(now + seconds, now, answer, method)


def _subject(authorization: bytes) -> bytes | None:
    """
    The subject of a JSON Web Token, without verification of the token.  The subject is empty for an
    anonymous token.  It is C{None} when the credentials are not a JSON Web Token.
    """
    scheme, _, token = authorization.partition(b" ")
    parts = token.split(b".")
    if scheme.lower() != b"bearer" or len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + b"=="))
        subject: str = claims.get("sub", "")
        return subject.encode()
    except (ValueError, AttributeError, RecursionError):
        return None
