"""
The Resource tree: a root that finds the route, and C{RegistryResource}, C{TokenResource} and
C{SearchResource}, which proxy to the three services of a registry.

All three do the same with a request; they differ in what they take and in the target they make
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from hubmirror.config import MirrorConfig
from hubmirror.downstream.admission import clientOf
from hubmirror.downstream.answer import writeError, writeHead, writeOwn
from hubmirror.downstream.budget import Budget
from hubmirror.downstream.incoming import (
    READING,
    Incoming,
    addressOf,
    checkServed,
    methodsAllowed,
    readIncoming,
    refusedMethod,
)
from hubmirror.downstream.relay import Relay, abortRequest
from hubmirror.downstream.upload import RequestBody, bodyOf
from hubmirror.downstream.waitableset import WaitableSet
from hubmirror.exchange import Exchange, Outcome
from hubmirror.protocol.cors import CORS_FIELDS, preflightFields
from hubmirror.protocol.errors import (
    RETRY_SOON,
    BadRequest,
    ContentTooLarge,
    MirrorError,
    RequestRefused,
    ShuttingDown,
    UpstreamFailed,
)
from hubmirror.protocol.fields import forUpstream
from hubmirror.protocol.target import Kind, readTarget, searchTarget
from hubmirror.protocol.url import splitURL
from hubmirror.upstream.bodies import StallWatch, discard
from hubmirror.upstream.client import UpstreamClient
from hubmirror.upstream.policy import Service


@attrs.define(eq=False)
class Mirror:
    """
    What the resources of one mirror share.

    @ivar budget: of requests under way at upstreams.
    @ivar via: the mirror's name in C{Via}; unlike any other's.
    @ivar listeners: told of each exchange when it has ended.
    @ivar closing: requests are no longer taken.
    @ivar active: the requests under way.
    """

    reactor: IReactorTime
    config: MirrorConfig
    client: UpstreamClient
    budget: Budget
    via: bytes
    listeners: Sequence[Callable[[Exchange], None]]
    closing: bool = False
    active: WaitableSet = attrs.Factory(WaitableSet)

    def cors(self) -> tuple[tuple[bytes, bytes], ...]:
        """
        The fields of every answer that let web pages read it.
        """
        return () if self.config.no_cors else CORS_FIELDS

    def refused(self, peer: IAddress, error: RequestRefused) -> None:
        """
        Record what came and could not be read as a request.
        """
        now = self.reactor.seconds()
        exchange = Exchange(b"-", b"-", addressOf(peer), now, self.listeners)
        exchange.status = error.status
        exchange.failures.append(("request", error.message))
        exchange.end(Outcome.REFUSED, now)


class MirrorResource(Resource):
    """
    The root.  What an embedder puts beside the mirror with C{putChild} comes first; everything
    else goes by what its target means, however it is spelled.
    """

    def __init__(self, mirror: Mirror) -> None:
        super().__init__()
        self._registry = RegistryResource(mirror)
        self._token = TokenResource(mirror)
        self._search = SearchResource(mirror)

    def getChild(self, path: bytes, request: Any) -> Resource:
        uri = request.uri
        try:
            kind = readTarget(uri if uri.startswith(b"/") else splitURL(uri)[1]).kind
        except (BadRequest, ValueError):
            return self._registry
        if kind is Kind.TOKEN:
            return self._token
        if kind in (Kind.SEARCH, Kind.SEARCH_PING):
            return self._search
        return self._registry


class _ProxyResource(Resource):
    """
    Proxies whatever it is asked.

    @cvar service: the upstream service that it stands for.
    @cvar streamsBody: it takes a request before its body.
    """

    isLeaf = True
    streamsBody = True
    service: Service
    _log = Logger()

    def __init__(self, mirror: Mirror) -> None:
        super().__init__()
        self._mirror = mirror

    def methods(self) -> tuple[bytes, ...]:
        """
        The methods that it takes.
        """
        raise NotImplementedError

    def upstreamTarget(self, incoming: Incoming) -> bytes:
        """
        What follows the service's URL.
        """
        return incoming.target.raw

    def render(self, request: Any) -> int:
        mirror = self._mirror
        exchange = Exchange(
            request.method,
            request.uri,
            addressOf(request.getClientAddress()),
            mirror.reactor.seconds(),
            mirror.listeners,
        )
        mirror.active.add(request)
        serving = Deferred.fromCoroutine(self._serve(request, exchange))
        request.notifyFinish().addErrback(lambda _: serving.cancel())

        # Twisted takes it away from the request when that ends.
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

    async def _serve(self, request: Any, exchange: Exchange) -> Outcome:
        try:
            incoming = readIncoming(request, self._mirror.config, self._mirror.via)
            exchange.client = incoming.client.address
            exchange.kind = incoming.target.kind
            if self._answerHere(request, exchange, incoming):
                return Outcome.COMPLETE
            return await self._proxy(request, exchange, incoming)
        except CancelledError:
            return Outcome.CLIENT_LEFT
        except MirrorError as error:
            problem = error
            outcome = Outcome.REFUSED if isinstance(error, RequestRefused) else Outcome.FAILED
        except Exception:
            self._log.failure("a defect of the mirror")
            problem, outcome = MirrorError("the mirror itself failed"), Outcome.FAILED
        if request.channel is None:
            # It left before it could be told.
            return Outcome.CLIENT_LEFT
        if request.startedWriting:
            abortRequest(request)
            return Outcome.BROKEN
        self._answered(exchange, problem.status)
        writeError(request, problem, self._mirror.cors())
        return outcome

    def _answerHere(self, request: Any, exchange: Exchange, incoming: Incoming) -> bool:
        """
        Answer what needs no upstream.

        @return: whether it was answered.
        @raise RequestRefused: when it may not be asked.
        """
        mirror = self._mirror
        if mirror.closing:
            raise ShuttingDown("the mirror is shutting down", fields=RETRY_SOON)
        if not mirror.config.no_cors:
            preflight = preflightFields(
                request.method, request.requestHeaders, methodsAllowed(mirror.config)
            )
            if preflight is not None:
                self._answered(exchange, 204)
                writeOwn(request, 204, preflight)
                return True
        if request.method not in self.methods():
            raise refusedMethod(request.method, self.methods())
        checkServed(incoming.target, mirror.config)
        body = request.content
        if isinstance(body, RequestBody):
            body.limit = mirror.config.max_upload or None
            if body.isTooLarge:
                raise _tooLarge(body)
            body.watch = StallWatch(
                mirror.reactor, mirror.config.client_timeout, 0, lambda: abortRequest(request)
            )
        return False

    async def _proxy(self, request: Any, exchange: Exchange, incoming: Incoming) -> Outcome:
        """
        Ask the upstreams, when it is this client's turn, and relay the answer.

        @raise Overloaded: when that does not come in time.
        """
        budget = self._mirror.budget
        client = clientOf(exchange.client)
        # The time until here is the mirror's own: no upstream's slowness can be made of it.
        turn = budget.take(client)
        if turn is not None:
            await turn
        outcome: Outcome | None = None
        try:
            response = await self._ask(request, exchange, incoming)
            outcome = await self._relay(request, exchange, incoming, response)
            return outcome
        finally:
            budget.leave(client, outcome is Outcome.COMPLETE)

    async def _ask(self, request: Any, exchange: Exchange, incoming: Incoming) -> IResponse:
        mirror = self._mirror
        headers = forUpstream(
            request.requestHeaders,
            None if mirror.config.no_forwarded else incoming.client,
            incoming.scheme,
            mirror.via,
            request.clientproto.rpartition(b"/")[2],
        )
        if self.service is Service.SEARCH:
            # Credentials are for the registry and its token service.
            headers.removeHeader(b"Authorization")
        content = request.content
        try:
            return await mirror.client.ask(
                exchange,
                self.service,
                incoming.target,
                self.upstreamTarget(incoming),
                headers,
                bodyOf(request),
            )
        except UpstreamFailed:
            if isinstance(content, RequestBody) and content.isTooLarge:
                # The upstream failed because its body was broken off here.
                exchange.failures.clear()
                raise _tooLarge(content) from None
            raise

    async def _relay(
        self, request: Any, exchange: Exchange, incoming: Incoming, response: IResponse
    ) -> Outcome:
        mirror = self._mirror
        self._answered(exchange, response.code)
        length = writeHead(
            request,
            response,
            via=mirror.via,
            base=incoming.base,
            path=mirror.client.pathOf(exchange.upstream),
            extra=mirror.cors(),
            challenged=self.service is Service.REGISTRY,
        )
        if length == 0:
            discard(response, mirror.reactor)
            request.finish()
            return Outcome.COMPLETE
        # The head goes out before the body's first byte: a stalled body must not hide it.
        request.write(b"")
        relay = Relay(request, exchange, mirror.reactor, mirror.config.client_timeout, length)
        response.deliverBody(relay)
        return await relay.done

    def _answered(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.headAfter = self._mirror.reactor.seconds() - exchange.started


def _tooLarge(body: RequestBody) -> ContentTooLarge:
    return ContentTooLarge(f"a body may have {body.limit} bytes here")


class RegistryResource(_ProxyResource):
    """
    C{/v2/} and everything that is nothing else.
    """

    service = Service.REGISTRY

    def methods(self) -> tuple[bytes, ...]:
        return methodsAllowed(self._mirror.config)


class TokenResource(_ProxyResource):
    """
    C{/token}: query, form and C{Authorization} go to the token service as they are.
    """

    service = Service.TOKEN

    def methods(self) -> tuple[bytes, ...]:
        return (*READING, b"POST")

    def upstreamTarget(self, incoming: Incoming) -> bytes:
        _path, mark, query = incoming.target.raw.partition(b"?")
        return mark + query


class SearchResource(_ProxyResource):
    """
    C{/v1/search}, and C{/v1/_ping}, which tells dockerd that it may search here.
    """

    service = Service.SEARCH

    def methods(self) -> tuple[bytes, ...]:
        return READING

    def upstreamTarget(self, incoming: Incoming) -> bytes:
        return searchTarget(incoming.target.raw)

    def _answerHere(self, request: Any, exchange: Exchange, incoming: Incoming) -> bool:
        if super()._answerHere(request, exchange, incoming):
            return True
        if incoming.target.kind is not Kind.SEARCH_PING:
            return False
        self._answered(exchange, 200)
        # Without this field dockerd sends its credentials with every search.
        writeOwn(
            request,
            200,
            [(b"X-Docker-Registry-Standalone", b"false"), *self._mirror.cors()],
            b"true",
        )
        return True
