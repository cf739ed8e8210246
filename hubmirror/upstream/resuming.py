"""
Requests for the rest of a response body that broke off: from the same URL, then from the same
upstream, then from the upstreams after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import OtherEntity, UpstreamFailed
from hubmirror.protocol.fields import forFallback
from hubmirror.protocol.ranges import Part, rangeFrom
from hubmirror.protocol.target import Kind, Target
from hubmirror.transport.connecting import noHead
from hubmirror.upstream.accounts import Account, AccountAgent, Accounts
from hubmirror.upstream.agents import RedirectAgent
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.cachedresponse import (
    CachedResponse,
    isErrorOfKnownLength,
    wholeError,
)
from hubmirror.upstream.failover import FailoverAgent
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service, Upstream, inTurn
from hubmirror.upstream.resumingresponse import (
    DigestCheck,
    ResumingResponse,
    RetryPolicy,
    bytesToSkip,
    partIn,
)

_VERIFIED = (b"sha256:", b"sha512:")

_Attempt = tuple[Upstream | None, Callable[[Headers], "Deferred[IResponse]"]]
"""
The upstream to which a request for the rest of a body goes, or C{None} for the URL of the last
response; and a callable that sends the request, with additional header fields.
"""


@implementer(IAgent)
class ResumingAgent:
    """
    Gives responses whose bodies are resumed when they break.

    Only a blob is resumed after its first byte, because its digest guarantees that the rest belongs
    to the beginning.  Any other GET is repeated only before the first byte of its body.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        failover: FailoverAgent,
        redirects: RedirectAgent | AccountAgent,
        accounts: Accounts,
        upstreams: Sequence[Upstream],
        service: Service,
        target: Target,
        exchange: Exchange,
        *,
        health: Health,
        retryPolicy: RetryPolicy,
        verify: str,
        timeout: float,
    ) -> None:
        """
        @param redirects: the agent that C{failover} wraps.
        @param accounts: requests anonymous tokens.
        @param target: the target of the client's request.
        @param verify: whose blobs are verified: C{never}, C{fallback} (only those of fallbacks) or
            C{always}.
        @param timeout: the time until the head of each further response, in seconds.
        """
        self._reactor = reactor
        self._failover = failover
        self._redirects = redirects
        self._accounts = accounts
        self._upstreams = upstreams
        self._service = service
        self._target = target
        self._exchange = exchange
        self._health = health
        self._retryPolicy = retryPolicy
        self._verify = verify
        self._timeout = timeout

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @param uri: see L{FailoverAgent.request}.
        """
        sent = headers or Headers()
        asking = self._failover.request(method, uri, sent, bodyProducer)
        return asking.addCallback(self._resumable, method, uri, sent)

    def _resumable(
        self, first: IResponse, method: bytes, target: bytes, headers: Headers
    ) -> IResponse | Deferred[IResponse]:
        if method == b"HEAD" or first.length == 0 or isinstance(first, CachedResponse):
            return first
        if isErrorOfKnownLength(first):
            return Deferred.fromCoroutine(wholeError(first, self._reactor))
        self._upstream = self._failover.answered
        # The upstreams before it that sent bytes of the body, and where its own bytes begin.
        self._senders: set[Upstream] = set()
        self._begin = 0
        part = partIn(first)

        def again(position: int, attempt: int) -> Deferred[tuple[IResponse, int]]:
            ways = list(self._attempts(target, headers))
            # After an attempt that brought no byte of the body, begin with another source.
            start = (attempt - 1) % len(ways)
            return Deferred.fromCoroutine(
                self._again(first, part, position, ways[start:] + ways[:start])
            )

        retryPolicy = self._retryPolicy
        if method == b"GET" and first.code in (200, 206):
            self._source = self._redirects.asked
            self._tag = None if part is None else part.tag
        else:
            retryPolicy = RetryPolicy(0, retryPolicy.stall, retryPolicy.floor)
        return ResumingResponse(
            self._reactor,
            first,
            again,
            self._exchange,
            retryPolicy,
            self._checkOf(first, method),
            self._wrong,
        )

    def _checkOf(self, first: IResponse, method: bytes) -> DigestCheck | None:
        digest = self._target.reference
        if (
            self._verify == "never"
            or (self._verify == "fallback" and self._upstream is self._upstreams[0])
            or self._target.kind is not Kind.BLOB
            or digest is None
            or not digest.startswith(_VERIFIED)
            or (method, first.code) != (b"GET", 200)
        ):
            return None
        return DigestCheck(digest)

    def _wrong(self) -> None:
        senders = self._senders | {self._upstream}
        self._log.error(
            "{upstream} sent bytes that do not match {digest}",
            upstream=" and ".join(each.name for each in self._upstreams if each in senders),
            digest=(self._target.reference or b"").decode("ascii", "backslashreplace"),
        )
        # Of several upstreams, it is not known which one sent the wrong bytes.
        if len(senders) == 1:
            self._health.corrupted(self._upstream, "blobs")

    async def _again(
        self,
        first: IResponse,
        part: Part | None,
        position: int,
        ways: Iterable[_Attempt],
    ) -> tuple[IResponse, int]:
        """
        Request the rest of the body from each source in turn.

        @param first: the response whose head the client has received.
        @param part: the part of the entity that C{first} holds.
        @param position: the number of bytes of that part that have been received.
        @return: a response, and the number of bytes at its beginning to skip.
        @raise OtherEntity: when the sources now have another entity.
        @raise UpstreamFailed: when no source gives the rest.
        """
        isBlob = self._target.kind is Kind.BLOB
        if position and (part is None or not isBlob):
            raise OtherEntity("only blobs are resumed")
        if position > self._begin:
            self._senders.add(self._upstream)
            self._begin = position
        problems: list[UpstreamFailed] = []
        for upstream, ask in ways:
            # Another upstream may give the same blob another ETag.  Anything else that has another
            # ETag is another entity.
            tag = None if isBlob and upstream is not None else self._tag
            answer: IResponse | None = None
            try:
                answer = await ask(_forRest(part, position, tag))
                skip = _fitting(first, answer, part, position, tag)
            except UpstreamFailed as error:
                if answer is not None:
                    discard(answer, self._reactor)
                problems.append(error)
                continue
            if upstream is not None:
                self._upstream = upstream
                self._exchange.upstream = upstream.name
            self._source = self._redirects.asked
            if isBlob:
                got = partIn(answer)
                self._tag = tag if got is None else got.tag or tag
            return answer, skip
        # An OtherEntity ends the attempts.  A blob does not change, so it must come from all
        # sources.
        decisive = [each for each in problems if isinstance(each, OtherEntity) is not isBlob]
        raise (decisive or problems)[-1]

    def _attempts(self, target: bytes, headers: Headers) -> Iterator[_Attempt]:
        """
        The sources of the rest: the URL of the last response, its upstream, and the upstreams after
        it.
        """
        lastURI, lastHeaders = self._source
        yield None, lambda extra: self._ask(self._redirects, lastURI, _with(lastHeaders, extra))
        answered = self._upstreams.index(self._upstream)
        for upstream in inTurn(
            self._upstreams[answered:], self._service, self._target.kind, target, headers
        ):
            yield (
                upstream,
                lambda extra, upstream=upstream: Deferred.fromCoroutine(  # type: ignore[misc]
                    self._askRegistry(upstream, target, _with(headers, extra))
                ),
            )

    def _ask(self, agent: IAgent, uri: bytes, headers: Headers) -> Deferred[IResponse]:
        return agent.request(b"GET", uri, headers).addTimeout(self._timeout, self._reactor, noHead)

    async def _askRegistry(self, upstream: Upstream, target: bytes, headers: Headers) -> IResponse:
        """
        Ask a registry, with a new anonymous token if the client's has expired.  A token of the Hub
        is valid for five minutes, and a layer of many gigabytes takes longer.
        """
        uri = upstream.url(self._service, target)
        if upstream is not self._upstreams[0]:
            headers = forFallback(headers)
        redirects = self._redirects
        answer = await self._ask(redirects, uri, headers)
        if (
            answer.code != 401
            or self._target.kind is not Kind.BLOB
            # The AccountAgent has requested a token already.
            or isinstance(redirects, AccountAgent)
        ):
            return answer
        discard(answer, self._reactor)
        anonymous = AccountAgent(self._accounts, Account(), redirects, self._target)
        return await self._ask(anonymous, uri, headers)


_DIGEST = b"Docker-Content-Digest"
# Conditional request header fields (RFC 9110 section 13.1).
_CONDITIONS = (
    b"If-Match",
    b"If-None-Match",
    b"If-Modified-Since",
    b"If-Unmodified-Since",
    b"If-Range",
)


def _forRest(part: Part | None, position: int, tag: bytes | None) -> Headers:
    """
    The fields that request the rest of a body; empty when nothing of it has been received.
    """
    extra = Headers()
    if part is not None and position:
        extra.setRawHeaders(b"Range", [rangeFrom(part, position)])
        if tag is not None:
            extra.setRawHeaders(b"If-Range", [tag])
    return extra


def _with(headers: Headers, extra: Headers) -> Headers:
    merged = headers.copy()
    if extra.hasHeader(b"Range"):
        # The client's own conditions have been evaluated for the first response.
        for name in _CONDITIONS:
            merged.removeHeader(name)
    for name, values in extra.getAllRawHeaders():
        merged.setRawHeaders(name, values)
    return merged


def _fitting(
    first: IResponse, answer: IResponse, part: Part | None, position: int, tag: bytes | None
) -> int:
    """
    How many bytes at the beginning of a response have to be skipped so that the rest continues the
    first response.

    @raise OtherEntity: when the response holds another entity.
    @raise UpstreamFailed: when the response can't continue the first one.
    """
    digests = {each.headers.getRawHeaders(_DIGEST, [b""])[0] for each in (first, answer)}
    if len(digests - {b""}) > 1:
        raise OtherEntity("the upstream now has another digest")
    skip: int | None = None
    if position == 0 and part is None:
        skip = 0 if _likeness(answer) == _likeness(first) else None
    elif part is not None and answer.code in (200, 206):
        skip = bytesToSkip(answer, part, position, tag)
    if skip is None:
        raise UpstreamFailed(f"answered {answer.code} when asked for the rest")
    return skip


def _likeness(answer: IResponse) -> tuple[object, ...]:
    """
    The properties of a response that the client has received before the first byte of the body.
    The media type is among them, because it contains the boundary of a multipart body.
    """
    fields = (b"Content-Type", b"ETag", _DIGEST)
    return answer.code, answer.length, *map(answer.headers.getRawHeaders, fields)
