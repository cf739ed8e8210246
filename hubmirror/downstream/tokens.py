"""
C{/token}: finds the registry whose token service a client needs, and forwards to it only the
credentials that it may see.
"""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.config import MirrorConfig
from hubmirror.downstream.incoming import READING, Incoming
from hubmirror.downstream.proxy import ProxyResource, tooLarge
from hubmirror.downstream.upload import RequestBody, collect
from hubmirror.exchange import Exchange
from hubmirror.protocol import credentials
from hubmirror.protocol.errors import BodyFailed, Unauthorized, UnknownName, UpstreamFailed
from hubmirror.protocol.scopes import changeForm, namesIn
from hubmirror.upstream.bodies import MAX_SHORT_BODY, readShortBody
from hubmirror.upstream.cachedresponse import CachedResponse
from hubmirror.upstream.policy import Service

_OWN_TOKEN_LIFE = 300  # seconds


class TokenResource(ProxyResource):
    """
    C{/token} and C{/token/NAME}.  For the default registry, the query, the form and
    C{Authorization} are forwarded unchanged, except for names of repositories that the client
    writes differently from the registry.
    """

    service = Service.TOKEN

    def methods(self, config: MirrorConfig) -> tuple[bytes, ...]:
        return (*READING, b"POST")

    async def _ask(self, request: Any, exchange: Exchange, incoming: Incoming) -> IResponse:
        form = await _formOf(request) if request.method == b"POST" else None
        query = incoming.target.raw.partition(b"?")[2]
        named = self._named(incoming, [query, form or b""])
        registry = named.registry
        exchange.registry = registry.name
        isRerouted = named is not incoming
        if registry.hasAccounts:
            return _ownToken(registry.names.name)
        service = None
        if isRerouted:
            try:
                service = (await registry.tokenService()).service
            except UnknownName:
                return _ownToken(registry.names.name)
            except UpstreamFailed:
                # A fallback may issue a token without being told the service.
                if len(registry.upstreams) == 1:
                    raise

        def change(name: bytes) -> bytes | None:
            addressing = incoming.registries.addressing
            return addressing.nameAt(registry.names, name, unprefixed=not isRerouted)

        def fit(part: bytes) -> bytes:
            changed = changeForm(part, change)
            return _withService(changed, service) if isRerouted else changed

        raw = incoming.target.raw
        mark = b"?" if b"?" in raw else b""
        target = mark + fit(query)
        body: IBodyProducer | None = None
        if form is not None:
            permitted = registry.permittedForm(fit(form))
            if permitted is None and isRerouted:
                # dockerd, podman and skopeo give up when this request fails, even if the repository
                # is public.
                return _ownToken(registry.names.name)
            if permitted is None:
                raise Unauthorized(f"these credentials are not sent to {registry.name}")
            body = _Form(permitted)
        answer = await self._askWith(request, exchange, named, target, body)
        if registry.isDefault or answer.code != 200 or request.method == b"HEAD":
            return answer
        return await self._marked(answer, registry.names.name, incoming.config)

    def _named(self, incoming: Incoming, forms: list[bytes]) -> Incoming:
        """
        Find the registry that the scopes of a token request name.  dockerd and podman send the
        request to the token service of the default registry, because they know only the challenge
        of C{/v2/}.

        @param forms: the query and the form of the request.
        @return: the request with that registry; C{incoming} itself if no scope names another one.
        """
        if incoming.isExplicit:
            return incoming
        registries = incoming.registries
        for form in forms:
            for name in namesIn(form):
                owner, _ = registries.addressing.split(name)
                if owner is not None and owner is not incoming.registry.names:
                    return attrs.evolve(incoming, registry=registries[owner.name])
        return incoming

    async def _marked(self, answer: IResponse, name: bytes, config: MirrorConfig) -> IResponse:
        body = await readShortBody(answer, self._mirror.reactor, config.response_timeout)
        try:
            marked = credentials.markAnswer(name, body)
        except ValueError:
            raise UpstreamFailed("its token service gave no token") from None
        headers = answer.headers.copy()
        for field in (b"Content-Length", b"ETag", b"Digest", b"Content-Digest"):
            headers.removeHeader(field)
        return CachedResponse(answer, marked, headers)


@implementer(IBodyProducer)
class _Form:
    """
    A form in memory, as the body of a request.
    """

    def __init__(self, form: bytes) -> None:
        self.length: Any = len(form)
        self._form = form

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        @see: L{IBodyProducer.startProducing}
        """
        consumer.write(self._form)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    resumeProducing = stopProducing = pauseProducing


async def _formOf(request: Any) -> bytes:
    """
    Read the whole form of a request.

    @raise ContentTooLarge: when the form is larger than L{MAX_SHORT_BODY}.
    @raise BodyFailed: when the client leaves in the middle of it.
    """
    content = request.content
    if not isinstance(content, RequestBody):
        form: bytes = content.read()
        return form
    content.limit = min(content.limit or MAX_SHORT_BODY, MAX_SHORT_BODY)
    if content.isTooLarge:
        raise tooLarge(content)
    file = BytesIO()
    try:
        await collect(content, file)
    except BodyFailed:
        if content.isTooLarge:
            raise tooLarge(content) from None
        raise
    return file.getvalue()


def _withService(form: bytes, service: bytes | None) -> bytes:
    """
    Replace the C{service} of a form, which the client has from another registry's challenge.

    @param service: the new value; C{None} removes C{service}.
    """
    pairs = form.split(b"&")
    others = [pair for pair in pairs if not pair.startswith(b"service=")]
    if service is not None and others != pairs:
        others.append(urlencode({"service": service}).encode("ascii"))
    return b"&".join(others)


def _ownToken(name: bytes) -> IResponse:
    """
    The response to a client that requests a token but does not need one.  The mirror itself
    requests tokens, with the operator's accounts or anonymously, if the registry demands them.
    The client gets a placeholder, which marks its later requests as meant for that registry.

    @param name: the registry's name.
    """
    token = credentials.mark(name, credentials.OWN_TOKEN).decode("ascii")
    members = {"token": token, "access_token": token, "expires_in": _OWN_TOKEN_LIFE}
    return CachedResponse.made(json.dumps(members).encode("ascii"))
