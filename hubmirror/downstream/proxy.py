"""
Proxying: a request is interpreted, and either refused or sent to the registry's upstreams, whose
response is relayed.

The resources of the three services of a registry are subclasses of L{ProxyResource}.  They differ
in the methods that they allow, and in the targets and credentials that they send upstream.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from hubmirror.config import MirrorConfig
from hubmirror.downstream.access import Access
from hubmirror.downstream.admission import clientOf
from hubmirror.downstream.answer import API_VERSION, writeError, writeHead, writeOwn
from hubmirror.downstream.budget import Budget
from hubmirror.downstream.incoming import (
    Incoming,
    Settings,
    addressOf,
    methodsAllowed,
    readIncoming,
    refusedMethod,
)
from hubmirror.downstream.pacing import PacedRelay
from hubmirror.downstream.rates import RateTable
from hubmirror.downstream.relay import Relay, abortRequest
from hubmirror.downstream.requestid import REQUEST_ID, requestIDOf
from hubmirror.downstream.upload import RequestBody, bodyOf
from hubmirror.exchange import Exchange, Outcome
from hubmirror.protocol.addressing import forbidCatalog
from hubmirror.protocol.cors import CORS_FIELDS, preflightFields
from hubmirror.protocol.errors import (
    RETRY_SOON,
    BadRequest,
    ContentTooLarge,
    MirrorError,
    NothingHere,
    Rejected,
    RequestRefused,
    ShuttingDown,
    TooManyRequests,
    UnknownName,
    UpstreamFailed,
)
from hubmirror.protocol.fields import forUpstream
from hubmirror.protocol.target import Kind, readTarget
from hubmirror.transport.waitableset import WaitableSet
from hubmirror.upstream.bodies import StallWatch, discard
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry


@attrs.define(eq=False)
class Mirror:
    """
    The state that the resources of one mirror share.

    @ivar settings: the settings of new requests.
    @ivar budget: limits the requests in progress at upstreams.
    @ivar streams: limits the GETs in progress of each client, where C{client_streams} is set.
    @ivar rates: the requests and bytes of each client.
    @ivar via: the mirror's name in C{Via}, which no other mirror has.
    @ivar listeners: called with each exchange when it has ended.
    @ivar draining: whether the service is about to stop.
    @ivar closing: whether new requests are refused, because the mirror is shutting down.
    @ivar active: the requests in progress.
    """

    reactor: IReactorTime
    settings: Settings
    budget: Budget
    streams: Budget
    rates: RateTable
    via: bytes
    listeners: Sequence[Callable[[Exchange], None]]
    draining: bool = False
    closing: bool = False
    active: WaitableSet = attrs.Factory(WaitableSet)

    def bodyLimits(self) -> tuple[float, int | None]:
        """
        The limits of a request's body: the time, in seconds, for which the client may send nothing
        of it, and its largest size in bytes, or C{None}.
        """
        config = self.settings.config
        return config.client_timeout, config.max_upload or None

    def refused(self, peer: IAddress, error: RequestRefused) -> None:
        """
        Record an exchange for bytes that could not be parsed as a request.
        """
        now = self.reactor.seconds()
        exchange = Exchange(b"-", b"-", addressOf(peer), now, self.listeners)
        exchange.status = error.status
        exchange.sent = len(error.body())
        exchange.failures.append(("request", error.message))
        requestID = requestIDOf(Headers())
        exchange.requestID = requestID.decode("ascii")
        error.fields = (*error.fields, (REQUEST_ID, requestID))
        exchange.end(Outcome.REFUSED, now)


class ProxyResource(Resource):
    """
    The base class of the resources that proxy to upstreams.

    @cvar service: the upstream service of the resource.
    @cvar streamsBody: if it is true, L{MirrorRequest<hubmirror.downstream.site.MirrorRequest>}
        renders the resource before the body of the request has been received.
    """

    isLeaf = True
    streamsBody = True
    service: Service
    _log = Logger()

    def __init__(self, mirror: Mirror) -> None:
        super().__init__()
        self._mirror = mirror

    def methods(self, config: MirrorConfig) -> tuple[bytes, ...]:
        """
        The methods that the resource allows.
        """
        raise NotImplementedError

    def upstreamTarget(self, incoming: Incoming) -> bytes:
        """
        The target that is appended to the base URL of the service at an upstream.
        """
        return incoming.target.raw

    def render(self, request: Any) -> int:
        mirror = self._mirror
        settings = mirror.settings
        exchange = Exchange(
            request.method,
            settings.registries.addressing.shown(request.uri),
            addressOf(request.getClientAddress()),
            mirror.reactor.seconds(),
            mirror.listeners,
        )
        requestID = requestIDOf(request.requestHeaders)
        exchange.requestID = requestID.decode("ascii")
        exchange.userAgent = request.getHeader(b"User-Agent")
        exchange.version = request.clientproto
        request.setHeader(REQUEST_ID, requestID)
        mirror.active.add(request)
        serving = Deferred.fromCoroutine(self._serve(request, exchange, settings))
        request.notifyFinish().addErrback(lambda _: serving.cancel())

        # Twisted sets request.content to None when the request ends.
        content = request.content

        def ended(outcome: Outcome) -> None:
            if isinstance(content, RequestBody):
                exchange.received = content.received
            exchange.end(outcome, mirror.reactor.seconds())

        def done(result: Any) -> Any:
            mirror.active.discard(request)
            return result

        serving.addCallback(ended).addBoth(done)
        return NOT_DONE_YET

    async def _serve(self, request: Any, exchange: Exchange, settings: Settings) -> Outcome:
        problem: MirrorError
        isSecret = settings.registries.addressing.isSecret
        try:
            if (request.method, request.uri) == (b"OPTIONS", b"*") and not isSecret:
                # This request applies to the server as a whole (RFC 9110 section 9.3.7).
                allowed = b", ".join(methodsAllowed(settings.config))
                self._answered(exchange, 204)
                writeOwn(
                    request, exchange, 204, [(b"Allow", allowed), *corsFields(settings.config)]
                )
                return Outcome.COMPLETE
            incoming = readIncoming(request, settings, self._mirror.via)
            exchange.registry = incoming.registry.name
            exchange.client = incoming.client.address
            exchange.kind = incoming.target.kind
            self._permit(request, exchange, incoming, settings.access)
            if self._answerHere(request, exchange, incoming):
                return Outcome.COMPLETE
            return await self._proxy(request, exchange, incoming)
        except CancelledError:
            return Outcome.CLIENT_LEFT
        except NothingHere as error:
            exchange.rule = error.rule
            if _isPing(request):
                # podman and skopeo begin with a request for /v2/ even where the secret path is part
                # of a repository's name, and give up when that fails.  The response discloses
                # nothing: an empty registry gives the same.
                self._answered(exchange, 200)
                writeOwn(request, exchange, 200, [API_VERSION], b"{}")
                return Outcome.REFUSED
            problem, outcome = error, Outcome.REFUSED
        except MirrorError as error:
            problem = error
            exchange.rule = error.rule if isinstance(error, Rejected) else None
            outcome = Outcome.REFUSED if isinstance(error, RequestRefused) else Outcome.FAILED
        except Exception:
            self._log.failure("a defect of the mirror")
            problem, outcome = MirrorError("the mirror itself failed"), Outcome.FAILED
        if request.channel is None:
            # The client left before the error could be sent.
            return Outcome.CLIENT_LEFT
        if request.startedWriting:
            abortRequest(request)
            return Outcome.BROKEN
        self._answered(exchange, problem.status)
        writeError(request, exchange, problem, corsFields(settings.config))
        return outcome

    def _permit(self, request: Any, exchange: Exchange, incoming: Incoming, access: Access) -> None:
        """
        Apply the operator's rules to a request, before anything else is done with it.

        @raise Rejected: when a rule refuses the request.
        """
        access.permitClient(exchange.client)
        config = incoming.config
        isPull = incoming.target.kind is Kind.MANIFEST and request.method == b"GET"
        for rule, rate, counts in (
            ("client-requests", config.client_requests, True),
            ("client-pulls", config.client_pulls, isPull),
        ):
            if rate is not None and counts:
                wait = self._mirror.rates.take(rule, clientOf(exchange.client), rate)
                if wait:
                    raise TooManyRequests("too many requests from your address", rule, wait)
        access.permitTarget(incoming.registry.names, incoming.target)

    def _answerHere(self, request: Any, exchange: Exchange, incoming: Incoming) -> bool:
        """
        Respond to a request that needs no upstream.

        @return: whether a response has been sent.
        @raise RequestRefused: when the request is not allowed.
        """
        mirror = self._mirror
        if mirror.closing:
            raise ShuttingDown("the mirror is shutting down", fields=RETRY_SOON)
        if not incoming.config.no_cors:
            preflight = preflightFields(
                request.method, request.requestHeaders, methodsAllowed(incoming.config)
            )
            if preflight is not None:
                self._answered(exchange, 204)
                writeOwn(request, exchange, 204, preflight)
                return True
        allowed = self.methods(incoming.config)
        if request.method not in allowed:
            raise refusedMethod(request.method, allowed)
        forbidCatalog(incoming.target)
        self._permitService(incoming)
        body = request.content
        if isinstance(body, RequestBody):
            timeout, body.limit = mirror.bodyLimits()
            if body.isTooLarge:
                raise tooLarge(body)
            body.watch = StallWatch(mirror.reactor, timeout, 0, lambda: abortRequest(request))
        return False

    def _permitService(self, incoming: Incoming) -> None:
        """
        @raise UnknownName: when the registry does not have this service.
        """
        if not incoming.registry.offers(self.service):
            raise UnknownName(f"{incoming.registry.name} has no search")

    async def _proxy(self, request: Any, exchange: Exchange, incoming: Incoming) -> Outcome:
        """
        Wait for a slot, ask the upstreams, and relay the response.

        @raise Overloaded: when no slot becomes free in time.
        @raise TooManyRequests: when too many of the client's own responses are in progress, and
            none of them ends in time.
        """
        client = clientOf(exchange.client)
        budgets = [self._mirror.budget]
        if incoming.config.client_streams is not None and request.method == b"GET":
            # A client that waits for its own responses to end must not hold a slot that other
            # clients wait for; so this budget comes first.
            budgets.insert(0, self._mirror.streams)
        taken: list[Budget] = []
        outcome: Outcome | None = None
        try:
            # The timeouts for upstreams begin only after this wait.
            for budget in budgets:
                turn = budget.take(client)
                if turn is not None:
                    await turn
                taken.append(budget)
            response = await self._ask(request, exchange, incoming)
            outcome = await self._relay(request, exchange, incoming, response)
            return outcome
        finally:
            for budget in taken:
                budget.leave(client, outcome is Outcome.COMPLETE)

    def _ask(
        self, request: Any, exchange: Exchange, incoming: Incoming
    ) -> Coroutine[Any, Any, IResponse]:
        """
        Send the request to the registry.
        """
        target = self.upstreamTarget(incoming)
        return self._askWith(request, exchange, incoming, target, bodyOf(request))

    async def _askWith(
        self,
        request: Any,
        exchange: Exchange,
        incoming: Incoming,
        target: bytes,
        body: IBodyProducer | None,
    ) -> IResponse:
        mirror = self._mirror
        headers = forUpstream(
            self._fieldsOf(request),
            None if incoming.config.no_forwarded else incoming.client,
            incoming.scheme,
            mirror.via,
            request.clientproto.rpartition(b"/")[2],
        )
        self._permitCredentials(headers, incoming.registry)
        if incoming.registries.addressing.isSecret:
            # The URL of a web page below the secret path would disclose that path.
            headers.removeHeader(b"Referer")
        headers.setRawHeaders(REQUEST_ID, [exchange.requestID.encode("ascii")])
        content = request.content
        try:
            return await incoming.registry.ask(
                exchange,
                self.service,
                incoming.target,
                target,
                headers,
                body,
            )
        except UpstreamFailed:
            if isinstance(content, RequestBody) and content.isTooLarge:
                # The upstream failed because the mirror stopped the upload.
                exchange.failures.clear()
                raise tooLarge(content) from None
            raise

    def _fieldsOf(self, request: Any) -> Headers:
        """
        The client's header fields, from which those of the upstream request are made.
        """
        headers: Headers = request.requestHeaders
        return headers

    def _permitCredentials(self, headers: Headers, registry: Registry) -> None:
        """
        Remove credentials from C{Authorization} that the registry and its token service must not
        see.

        @param headers: the header fields of the upstream request, which are changed in place.
        """
        values = headers.getRawHeaders(b"Authorization")
        if values is not None:
            permitted = [each for value in values if (each := registry.permitted(value))]
            headers.setRawHeaders(b"Authorization", permitted)
            if not permitted:
                headers.removeHeader(b"Authorization")

    async def _relay(
        self, request: Any, exchange: Exchange, incoming: Incoming, response: IResponse
    ) -> Outcome:
        mirror = self._mirror
        self._answered(exchange, response.code)
        challenges = response.headers.getRawHeaders(b"WWW-Authenticate")
        if challenges is not None and self.service is Service.REGISTRY:
            incoming.registry.learn(exchange.upstream, challenges)
        length = writeHead(
            request,
            response,
            via=mirror.via,
            incoming=incoming,
            source=incoming.registry.upstream(exchange.upstream).spelling,
            extra=[
                (REQUEST_ID, exchange.requestID.encode("ascii")),
                *corsFields(incoming.config),
                *self._extra(incoming),
            ],
            # No credentials of clients are of use where the mirror has an account.
            challenged=self.service is Service.REGISTRY and not incoming.registry.hasAccounts,
        )
        if length == 0:
            discard(response, mirror.reactor)
            request.finish()
            return Outcome.COMPLETE
        # Send the head immediately: the first byte of the body may be late.
        request.write(b"")
        relay = self._relayFor(request, exchange, incoming.config, length)
        response.deliverBody(relay)
        return await relay.done

    def _relayFor(
        self, request: Any, exchange: Exchange, config: MirrorConfig, length: int | None
    ) -> Relay:
        mirror = self._mirror
        arguments = request, exchange, mirror.reactor, config.client_timeout, length
        most = config.client_bandwidth
        if most is None:
            return Relay(*arguments)
        client = clientOf(exchange.client)
        return PacedRelay(
            *arguments,
            spend=lambda count: mirror.rates.spend("client-bandwidth", client, count, most),
        )

    def _extra(self, incoming: Incoming) -> Sequence[tuple[bytes, bytes]]:
        """
        Further header fields of a response.
        """
        return ()

    def _answered(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.headAfter = self._mirror.reactor.seconds() - exchange.started


def corsFields(config: MirrorConfig) -> tuple[tuple[bytes, bytes], ...]:
    """
    The header fields of every response that permit web pages to read it (CORS), unless C{no_cors}
    is set.
    """
    return () if config.no_cors else CORS_FIELDS


def _isPing(request: Any) -> bool:
    try:
        isPing = readTarget(request.uri).kind is Kind.PING
    except BadRequest:
        return False
    return isPing and request.method in (b"GET", b"HEAD")


def tooLarge(body: RequestBody) -> ContentTooLarge:
    """
    The error for a request body that exceeds its limit.
    """
    return ContentTooLarge(f"a body may have {body.limit} bytes here")
