"""
Failover: a request is sent to the upstreams of one service in order, until one of them serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import (
    BodyFailed,
    ConnectFailed,
    HeadTimedOut,
    LimitReached,
    LocalFailure,
    MirrorError,
    NoAnswer,
    NoCredentials,
    RedirectRefused,
    UpstreamFailed,
    UpstreamsFailed,
)
from hubmirror.protocol.fields import dropCookies, forFallback
from hubmirror.protocol.target import Kind
from hubmirror.transport.connecting import noHead
from hubmirror.upstream import policy
from hubmirror.upstream.bodies import discard, readShortBody
from hubmirror.upstream.cachedresponse import CachedResponse, withOwnBody
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service, Upstream
from hubmirror.upstream.quota import ANONYMOUS, Quotas


@implementer(IAgent)
class FailoverAgent:
    """
    Sends a request to the upstreams of one service in order, until one of them serves it.
    Upstreams that are rate-limited come last.  Upstreams that are marked down (L{Health}) are
    skipped, unless all of them are.

    Only the first upstream, the registry itself, is sent a password.

    @ivar answered: the upstream whose response was accepted.
    """

    answered: Upstream

    def __init__(
        self,
        reactor: IReactorTime,
        agent: IAgent,
        upstreams: Sequence[Upstream],
        service: Service,
        exchange: Exchange,
        *,
        health: Health,
        quotas: Quotas,
        identity: bytes | None = None,
        failoverOn: frozenset[int],
        timeout: float,
        findTokens: Callable[[], Deferred[Any]],
    ) -> None:
        """
        @param agent: takes absolute URIs.
        @param identity: the identity for which an upstream counts the request; by default, that of
            the request's C{Authorization} (L{Quotas.identity}).
        @param failoverOn: the statuses of the registry after which the fallbacks are asked.
        @param timeout: the time until a response head, for all upstreams together, in seconds.
        @param findTokens: finds the registry's token service, and stores it in the C{bases} of the
            first upstream.
        """
        self._reactor = reactor
        self._agent = agent
        self._upstreams = upstreams
        self._service = service
        self._exchange = exchange
        self._health = health
        self._quotas = quotas
        self._identity = identity
        self._failoverOn = failoverOn
        self._timeout = timeout
        self._findTokens = findTokens
        # The upstreams that failed or were skipped, each with the reason.
        self._attempts: list[tuple[Upstream, MirrorError]] = []

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @param uri: the request target, which is appended to the base URL of each upstream.
        @return: a deferred that fails with L{UpstreamsFailed} when no upstream gives a response.
        """
        return Deferred.fromCoroutine(
            self._request(method, uri, headers or Headers(), bodyProducer)
        )

    async def _request(
        self, method: bytes, target: bytes, headers: Headers, body: IBodyProducer | None
    ) -> IResponse:
        deadline = self._reactor.seconds() + self._timeout
        identity = self._quotas.identity(headers) if self._identity is None else self._identity
        repeatable = policy.mayRepeat(method, body is not None)
        upstreams = self._upstreams[:1]
        if repeatable:
            upstreams = policy.inTurn(
                self._upstreams, self._service, self._exchange.kind, target, headers
            )
        order = self._order(upstreams, identity)
        for upstream in self._upstreams[: self._upstreams.index(order[0])]:
            why = "limited" if upstream in order else "down"
            self._exchange.skipped.append((upstream.name, why))
        spare: IResponse | None = None
        owner = self._upstreams[0]
        try:
            for position, upstream in enumerate(order):
                if spare is not None and upstream is owner:
                    if self._reactor.seconds() + policy.PAUSE >= deadline:
                        break
                    await deferLater(self._reactor, policy.PAUSE)
                left = max(0.0, deadline - self._reactor.seconds())
                times = order.count(upstream)
                try:
                    answer = await self._ask(
                        upstream,
                        identity,
                        (method, target, headers, body),
                        left / (len(order) - position),
                    )
                except UpstreamFailed as error:
                    self._exchange.attempts.append((upstream.name, type(error).__name__))
                    self._failed(upstream, error)
                    if isinstance(error, NoAnswer) and method == b"GET" and times == 1:
                        # A server that restarts closes its connections without a response.  Ask it
                        # a second time, immediately.
                        order.insert(position + 1, upstream)
                    continue
                isFirst = upstream is self._upstreams[0]
                fromCDN = self._exchange.fromCDN
                status = policy.effectiveStatus(answer.code, fromCDN)
                if not repeatable or self._counts(isFirst, status, headers, spare):
                    return self._take(upstream, answer)
                self._failed(upstream, UpstreamFailed(f"answered {answer.code}"))
                mayPass = policy.mayPass(status, answer.headers)
                if fromCDN and mayPass and times == 1:
                    # Ask the registry again: it may redirect to another URL, perhaps of another
                    # CDN.
                    order.insert(position + 1, upstream)
                elif isFirst and mayPass and times < policy.TRIES:
                    # Ask the registry again if no fallback serves the request.
                    order.append(upstream)
                if isFirst or (spare is None and answer.code == 429):
                    spare, answer, owner = answer, spare, upstream
                if answer is not None:
                    discard(answer, self._reactor)
            if spare is None:
                self._attempts.sort(key=lambda attempt: self._upstreams.index(attempt[0]))
                raise UpstreamsFailed([(asked.name, error) for asked, error in self._attempts])
            answer, spare = spare, None
            return self._take(owner, answer)
        finally:
            if spare is not None:
                discard(spare, self._reactor)

    def _order(self, upstreams: Sequence[Upstream], identity: bytes) -> list[Upstream]:
        kind = self._exchange.kind
        down = {
            upstream: UpstreamFailed(f"marked down: {reason}")
            for upstream in upstreams
            if (reason := self._health.whyUnavailable(upstream, self._route)) is not None
        }
        if 0 < len(down) < len(upstreams):
            self._attempts += down.items()
            upstreams = [upstream for upstream in upstreams if upstream not in down]
        return sorted(
            upstreams,
            key=lambda upstream: self._quotas.limited(upstream, kind, identity),
        )

    @property
    def _route(self) -> str:
        return "blobs" if self._exchange.kind is Kind.BLOB else self._service.value

    async def _ask(
        self,
        upstream: Upstream,
        identity: bytes,
        request: tuple[bytes, bytes, Headers, IBodyProducer | None],
        seconds: float,
    ) -> IResponse:
        """
        Ask one upstream, or repeat a 429 that it gave a moment ago.

        @param request: the method, the target, the header fields and the body.
        @param seconds: the time until the response head.
        """
        method, target, headers, body = request
        if upstream is not self._upstreams[0]:
            headers = forFallback(headers)
        kind = self._exchange.kind
        remembered = self._quotas.remembered(upstream, kind, identity, method)
        if remembered is not None and policy.mayRepeat(method, body is not None):
            return remembered
        since = self._reactor.seconds()
        redirects = self._exchange.redirects
        gaveUp = self._health.asked(upstream, self._route)

        def ask(_: object = None) -> Deferred[IResponse]:
            url = upstream.url(self._service, target)
            return self._agent.request(method, url, headers, body)

        isKnown = self._service is not Service.TOKEN or self._service in upstream.bases
        asking = ask() if isKnown else self._findTokens().addCallback(ask)
        # An upload may take as long as it needs, but a token request must be quick even when it is
        # a POST.
        if method not in policy.PUSHING or self._service is Service.TOKEN:
            asking.addTimeout(seconds, self._reactor, noHead)
        try:
            answer = await asking
        except CancelledError:
            gaveUp()
            raise
        except LocalFailure:
            # The failure is the mirror's own; the upstream is not marked down for it.
            raise
        except ConnectFailed as error:
            # If the request has a body, its failure may be due to the client that sends the body.
            # A redirect that is refused concerns only this request.
            if body is None and not isinstance(error, RedirectRefused):
                self._health.failed(upstream, self._route, error.message)
            raise
        except HeadTimedOut as error:
            if body is None:
                self._health.timedOut(upstream, self._route, target, since, error.message)
            raise
        except NoCredentials:
            self._health.served(upstream, self._route)
            raise
        self._exchange.attempts.append((upstream.name, str(answer.code)))
        self._health.served(upstream, self._route)
        if answer.code == 429:
            answer = await self._keep(answer, max(0.0, since + seconds - self._reactor.seconds()))
        if self._exchange.redirects > redirects:
            # The rate limit fields of a CDN are not the registry's.
            return answer
        self._quotas.answered(upstream, kind, identity, method, answer)
        # Prefer the remembered response: its Retry-After is the remaining time.
        return (
            answer.code == 429 and self._quotas.remembered(upstream, kind, identity, method)
        ) or answer

    async def _keep(self, answer: IResponse, seconds: float) -> CachedResponse:
        """
        Read the body of a 429.  Clients need only its head, so a body that breaks off, is late or
        is too long is replaced by one of the mirror's own.
        """
        # The response may be repeated to other clients.
        dropCookies(answer.headers)
        try:
            body = await readShortBody(answer, self._reactor, seconds)
        except BodyFailed:
            error = LimitReached("too many requests")
            isJSON = policy.limitsPulls(answer.code, answer.headers)
            body = error.body() if isJSON else error.message.encode("ascii") + b"\n"
            return withOwnBody(answer, body)
        return CachedResponse(answer, body)

    def _counts(
        self, isFirst: bool, status: int, headers: Headers, spare: IResponse | None
    ) -> bool:
        """
        Whether a response goes to the client without asking further upstreams.

        @param isFirst: whether the registry itself gave the response.
        @param headers: the header fields of the request.
        @param spare: the response that the client gets if no upstream gives a better one.
        """
        if isFirst:
            return status not in self._failoverOn
        return policy.fallbackServes(status) or (
            policy.fallbackChallenges(status, headers)
            # Where the mirror has an account, clients get no challenge.
            and self._identity in (None, ANONYMOUS)
            # If the registry's limit on pulls is used up, the client should see that 429 rather
            # than a challenge.  But a request for /v2/ is not a pull; it looks for the challenge.
            and (
                self._exchange.kind is Kind.PING
                or not (spare and policy.limitsPulls(spare.code, spare.headers))
            )
        )

    def _take(self, upstream: Upstream, answer: IResponse) -> IResponse:
        self.answered = upstream
        self._exchange.upstream = upstream.name
        if upstream is not self._upstreams[0] or self._identity is not None:
            # The cookies are a fallback's, or belong to the mirror's own account.
            dropCookies(answer.headers)
        location = answer.headers.getRawHeaders(b"Content-Location")
        if location and policy.namesElsewhere(upstream.bases[self._service], location):
            answer.headers.removeHeader(b"Content-Location")
        return answer

    def _failed(self, upstream: Upstream, error: MirrorError) -> None:
        self._attempts.append((upstream, error))
        self._exchange.failures.append((upstream.name, error.message))
