"""
The resource that responds with the page.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import attrs
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from hubmirror.downstream.answer import writeOwn
from hubmirror.downstream.incoming import Incoming
from hubmirror.downstream.resources import SearchResource
from hubmirror.exchange import Exchange, Outcome
from hubmirror.operations.clientconfig import MirrorURL
from hubmirror.page.languages import chooseLanguage
from hubmirror.page.search import MOST_PAGES, PAGE_SIZE, Found, readFound
from hubmirror.page.view import POLICY, RegistryState, View, renderPage
from hubmirror.protocol.errors import MirrorError, UpstreamFailed
from hubmirror.protocol.target import searchTarget
from hubmirror.protocol.url import splitURL
from hubmirror.upstream.bodies import discard, readShortBody
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry

_SEARCH_TIME = 9.0
_FIELDS = (
    (b"Content-Type", b"text/html; charset=utf-8"),
    (b"Content-Security-Policy", POLICY),
    (b"Cache-Control", b"no-store"),
    # A Referer could reveal the secret path to other sites.
    (b"Referrer-Policy", b"no-referrer"),
    (b"Vary", b"Accept, Accept-Language"),
    (b"X-Content-Type-Options", b"nosniff"),
)


class PageResource(SearchResource):
    """
    The resource of the page.  If the query has a search term, the index is asked first, in the same
    way as for C{docker search}.
    """

    def _permitService(self, incoming: Incoming) -> None:
        # The page exists for registries without an index, too.
        pass

    def upstreamTarget(self, incoming: Incoming) -> bytes:
        query = _readQuery(incoming.target.raw)
        fields = {"q": query.term, "n": PAGE_SIZE, "page": query.page}
        target = b"/v1/search?" + urlencode(fields, quote_via=quote).encode("ascii")
        return searchTarget(target) if incoming.registry.isDefault else target

    def _fieldsOf(self, request: Any) -> Headers:
        # The browser's own fields are for a page, not for the index.
        return Headers({b"Accept": [b"application/json"]})

    async def _proxy(self, request: Any, exchange: Exchange, incoming: Incoming) -> Outcome:
        if not (_readQuery(incoming.target.raw).term and incoming.registry.offers(Service.SEARCH)):
            return await self._show(request, exchange, incoming)
        try:
            return await super()._proxy(request, exchange, incoming)
        except UpstreamFailed as error:
            return await self._show(request, exchange, incoming, error.status)

    async def _relay(
        self, request: Any, exchange: Exchange, incoming: Incoming, response: IResponse
    ) -> Outcome:
        found: Found | None = None
        if response.code == 200:
            body = await readShortBody(response, self._mirror.reactor, _SEARCH_TIME)
            try:
                found = readFound(body, _readQuery(incoming.target.raw).page)
            except ValueError:
                exchange.failures.append((exchange.upstream or "", "the index sent no results"))
        else:
            discard(response, self._mirror.reactor)
        status = 200 if found is not None else 502
        return await self._show(request, exchange, incoming, status, found)

    async def _show(
        self,
        request: Any,
        exchange: Exchange,
        incoming: Incoming,
        status: int = 200,
        found: Found | None = None,
    ) -> Outcome:
        query, registry = _readQuery(incoming.target.raw), incoming.registry
        name = "Docker Hub" if registry.isDefault else registry.name
        tokens = "" if found is None else await _tokensFor(incoming)
        html = await renderPage(
            View(
                chooseLanguage(query.languages, _texts(request.requestHeaders, b"Accept-Language")),
                _urlOf(incoming),
                [_stateOf(each) for each in incoming.offered],
                # Without the request for the page.
                len(self._mirror.active) - 1,
                name if registry.offers(Service.SEARCH) else "",
                registry.names.complete,
                query.term,
                found,
                tokens,
            )
        )
        self._answered(exchange, status)
        writeOwn(request, exchange, status, _FIELDS, html)
        return Outcome.COMPLETE if status < 400 else Outcome.FAILED


@attrs.frozen
class _Query:
    """
    The query of the page's URL.

    @ivar term: the search term; may be empty.
    @ivar page: the page of the results; the first is 1.
    @ivar languages: the language tags.
    """

    term: str
    page: int
    languages: tuple[str, ...]


@lru_cache(maxsize=16)
def _readQuery(raw: bytes) -> _Query:
    """
    Read the query of a target.  Invalid values are ignored.
    """
    try:
        # The page itself creates queries with fewer parameters than this.
        fields = parse_qs(raw.partition(b"?")[2].decode("utf-8", "replace"), max_num_fields=10)
    except ValueError:
        fields = {}
    page = fields.get("page", [""])[0]
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 4 else 1
    return _Query(
        fields.get("q", [""])[0].strip()[:100],
        min(max(number, 1), MOST_PAGES),
        tuple(fields.get("lang", ())),
    )


def _texts(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for value in headers.getRawHeaders(name, [])]


def _urlOf(incoming: Incoming) -> MirrorURL:
    """
    The mirror's URL for the settings of clients.
    """
    origin, path = splitURL(incoming.base)
    path = path.rstrip(b"/") + incoming.spelling.before
    return MirrorURL(
        origin.scheme.decode("ascii"), origin.authority.decode("ascii"), path.decode("ascii")
    )


async def _tokensFor(incoming: Incoming) -> str:
    """
    The path and query with which the page's script gets tokens for the registry, to which it adds a
    scope; empty when the script needs no token.
    """
    registry = incoming.registry
    if registry.hasAccounts:
        return ""
    try:
        service = (await registry.tokenService()).service or b""
    except MirrorError:
        return ""
    path = splitURL(incoming.base)[1].rstrip(b"/") + incoming.tokenPath
    return f"{path.decode('ascii')}?{urlencode({'service': service})}"


def _stateOf(registry: Registry) -> RegistryState:
    down = [upstream for upstream in registry.upstreams if not registry.health.isUp(upstream)]
    state = "reachable"
    if len(down) == len(registry.upstreams):
        state = "not reachable now"
    elif registry.upstreams[0] in down:
        state = "reachable through another upstream"
    known = [
        each
        for each in registry.quotas.known()
        if each.isAnonymous and each.upstream == registry.upstreams[0].name
    ]
    if not known:
        return RegistryState(registry.name, state)
    return RegistryState(registry.name, state, known[0].remaining, known[0].limit)
