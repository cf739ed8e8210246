"""
The resource tree: a root that finds the route, and L{RegistryResource}, L{TokenResource} and
L{SearchResource}, which proxy to the three services of a registry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from twisted.web.resource import Resource

from hubmirror.config import MirrorConfig
from hubmirror.downstream.answer import API_VERSION, writeOwn
from hubmirror.downstream.incoming import (
    READING,
    WRITING,
    Incoming,
    methodsAllowed,
)
from hubmirror.downstream.proxy import Mirror, ProxyResource, corsFields
from hubmirror.downstream.tokens import TokenResource
from hubmirror.exchange import Exchange
from hubmirror.protocol.challenge import quoted
from hubmirror.protocol.errors import (
    BadRequest,
    Denied,
    MirrorError,
    Unauthorized,
    UpstreamFailed,
)
from hubmirror.protocol.target import Kind, searchTarget
from hubmirror.protocol.url import splitURL
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry


class MirrorResource(Resource):
    """
    The root resource.  Children that an application has added with C{putChild} take precedence.
    Every other request is routed by the meaning of its target, whatever its spelling: percent
    encoding, repeated slashes and dot segments make no difference.
    """

    def __init__(self, mirror: Mirror, page: Resource) -> None:
        """
        @param page: the page for browsers.
        """
        super().__init__()
        self._mirror = mirror
        self._page = page
        self._registry = RegistryResource(mirror)
        self._token = TokenResource(mirror)
        self._search = SearchResource(mirror)

    def getChild(self, path: bytes, request: Any) -> Resource:
        uri = request.uri
        try:
            target = uri if uri.startswith(b"/") else splitURL(uri)[1]
            kind = self._mirror.settings.registries.addressing.kindOf(target)
        except (BadRequest, ValueError):
            return self._registry
        if kind is Kind.TOKEN:
            return self._token
        if kind in (Kind.SEARCH, Kind.SEARCH_PING):
            return self._search
        if kind is Kind.ROOT and self._mirror.settings.config.page and _isBrowser(request):
            return self._page
        return self._registry


def _isBrowser(request: Any) -> bool:
    """
    Whether a request comes from a browser: registry clients do not accept HTML.
    """
    accepted = b",".join(request.requestHeaders.getRawHeaders(b"Accept", []))
    return request.method in (b"GET", b"HEAD") and b"text/html" in accepted.lower()


class RegistryResource(ProxyResource):
    """
    C{/v2/}, and all targets that no other resource serves.
    """

    service = Service.REGISTRY

    def methods(self, config: MirrorConfig) -> tuple[bytes, ...]:
        return methodsAllowed(config)

    def _answerHere(self, request: Any, exchange: Exchange, incoming: Incoming) -> bool:
        if super()._answerHere(request, exchange, incoming):
            return True
        registry = incoming.registry
        if request.method in WRITING and not registry.mayPush:
            raise Denied(f"nobody may push to {registry.name} here")
        if not (registry.hasAccounts and incoming.target.kind is Kind.PING):
            return False
        # The mirror uses the operator's accounts: its clients need no token.
        self._answered(exchange, 200)
        fields = [API_VERSION, *corsFields(incoming.config), *self._extra(incoming)]
        writeOwn(request, exchange, 200, fields, b"{}")
        return True

    def _extra(self, incoming: Incoming) -> Sequence[tuple[bytes, bytes]]:
        """
        A mirror of several registries lists them in its response to C{/v2/}, for other mirrors and
        for C{client-config}.
        """
        if len(incoming.registries) == 1 or incoming.target.kind is not Kind.PING:
            return ()
        names = b", ".join(each.names.name for each in incoming.offered)
        return [(b"Hubmirror-Registries", names)]

    async def _ask(self, request: Any, exchange: Exchange, incoming: Incoming) -> IResponse:
        isPing = incoming.target.kind is Kind.PING and not incoming.isExplicit
        if not isPing or len(incoming.registries) == 1:
            return await super()._ask(request, exchange, incoming)
        # Clients begin with this request, whichever registry they mean.  If the default registry is
        # down, give them a challenge, so that they can still use the others.
        try:
            response = await super()._ask(request, exchange, incoming)
        except UpstreamFailed as error:
            raise await self._challenge(incoming) or error from None
        if response.code < 500 and response.code != 429:
            return response
        try:
            challenge = await self._challenge(incoming)
        except CancelledError:
            discard(response, self._mirror.reactor)
            raise
        if challenge is None:
            return response
        discard(response, self._mirror.reactor)
        raise challenge

    async def _challenge(self, incoming: Incoming) -> Unauthorized | None:
        """
        The challenge of a registry that can't give it itself; C{None} when its token service is not
        known.
        """
        try:
            service = (await incoming.registry.tokenService()).service or b""
        except MirrorError:
            return None
        realm = incoming.base + incoming.tokenPath
        value = b"Bearer realm=%b,service=%b" % (quoted(realm), quoted(service))
        return Unauthorized("a token is needed", fields=[(b"WWW-Authenticate", value)])


class SearchResource(ProxyResource):
    """
    C{/v1/search}, and C{/v1/_ping}, which dockerd requests before it searches.
    """

    service = Service.SEARCH

    def methods(self, config: MirrorConfig) -> tuple[bytes, ...]:
        return READING

    def upstreamTarget(self, incoming: Incoming) -> bytes:
        raw = incoming.target.raw
        return searchTarget(raw) if incoming.registry.isDefault else raw

    def _permitCredentials(self, headers: Headers, registry: Registry) -> None:
        # Credentials are for the registry and its token service.
        headers.removeHeader(b"Authorization")

    def _answerHere(self, request: Any, exchange: Exchange, incoming: Incoming) -> bool:
        if super()._answerHere(request, exchange, incoming):
            return True
        if incoming.target.kind is not Kind.SEARCH_PING:
            return False
        self._answered(exchange, 200)
        # Without this field, dockerd sends its credentials with every search.
        writeOwn(
            request,
            exchange,
            200,
            [(b"X-Docker-Registry-Standalone", b"false"), *corsFields(incoming.config)],
            b"true",
        )
        return True
