"""
The token service of a registry: configured, built in, or named by the registry's own challenge.

A client sends its password to the token service that a challenge names.  If a registry could name
any URL there, it could collect passwords for other services (CVE-2020-15157 in containerd).
Therefore the mirror accepts a token service from a challenge only when its URL is https and on the
registry's host or below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from hubmirror.config import RegistryConfig
from hubmirror.protocol.addresses import hostAddress
from hubmirror.protocol.challenge import bearerParameters
from hubmirror.protocol.errors import (
    ConnectFailed,
    HeadTimedOut,
    LocalFailure,
    MirrorError,
    UnknownName,
    UpstreamFailed,
)
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.transport.connecting import noHead
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service, Upstream


@attrs.frozen
class TokenService:
    """
    @ivar url: the URL of the token service: the C{realm} of a challenge.
    @ivar service: the registry's name at the token service: the C{service} of a challenge.  It is
        C{None} when it is not known.
    """

    url: bytes
    service: bytes | None


def mayBelieve(registry: Origin, realm: Origin) -> bool:
    """
    Whether to accept the token service that a registry names: its URL must be https, and on the
    registry's host or a subdomain of it.  A common parent domain is not enough, because
    C{a.azurecr.io} and C{b.azurecr.io} may belong to different customers.
    """
    return realm.scheme == b"https" and (
        realm.host == registry.host
        or (hostAddress(registry.host) is None and realm.host.endswith(b"." + registry.host))
    )


class TokenServices:
    """
    Finds the token service of one registry.  It requests a challenge from the registry when the
    token service is neither configured nor built in.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        agent: IAgent,
        registry: RegistryConfig,
        upstreams: Sequence[Upstream],
        believed: Callable[[Origin], None],
        health: Callable[[], Health],
        timeout: float,
    ) -> None:
        """
        @param agent: sends one request to one origin.
        @param upstreams: the registry itself, then its fallbacks.  The URL of the registry's token
            service is stored in its C{bases}.
        @param believed: called with the origin of a token service that the registry has named.
        @param health: returns which upstreams are marked down; a reload may replace it.
        @param timeout: the time until a response head, for all upstreams together, in seconds.
        """
        self._reactor = reactor
        self._agent = agent
        self._name = registry.name
        self._upstreams = upstreams
        self._believed = believed
        self._health = health
        self._timeout = timeout
        self._origin = splitURL(upstreams[0].bases[Service.REGISTRY])[0]
        self._found: TokenService | None = None
        self._isServiceAsked = False
        self._isDisbelieved = False
        self._waiting: list[Deferred[TokenService]] | None = None
        url = upstreams[0].bases.get(Service.TOKEN)
        if url is not None:
            known = registry.known
            isKnown = known is not None and url == (known.auth_url or "").encode("ascii")
            service = known.service if known is not None and isKnown else None
            self._found = TokenService(url, service.encode("ascii") if service else None)

    def find(self, *, withService: bool = False) -> Deferred[TokenService]:
        """
        Find the token service.  Concurrent calls share one request to the registry.

        @param withService: whether to request a challenge also when only C{TokenService.service} is
            unknown.
        @return: a deferred that fails with L{UpstreamFailed} when the token service can't be found
            or is not acceptable (L{mayBelieve}), and with L{UnknownName} when there is none.
        """
        found: Deferred[TokenService] = Deferred()
        known = self._found
        if known is not None and (known.service or self._isServiceAsked or not withService):
            found.callback(known)
            return found
        if self._waiting is not None:
            self._waiting.append(found)
            return found
        self._waiting = [found]
        Deferred.fromCoroutine(self._ask()).addBoth(self._tell)
        return found

    def learn(self, challenges: Sequence[bytes]) -> None:
        """
        Take the token service from a challenge that the registry gave to any request, unless it is
        known already.  Some registries give no challenge at C{/v2/}.

        @param challenges: the values of C{WWW-Authenticate}.
        """
        if self._found is None and bearerParameters(b",".join(challenges)):
            try:
                self._remember(self._read(challenges))
            except MirrorError as error:
                self._log.debug("{registry}: {reason}", registry=self._name, reason=error.message)

    def _remember(self, service: TokenService) -> None:
        self._found = service
        self._upstreams[0].bases[Service.TOKEN] = service.url

    def _tell(self, result: TokenService | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._isServiceAsked = isinstance(result, TokenService)
        if isinstance(result, Failure) and self._found is not None:
            # The URL is known; only the name of the service is not.
            result = self._found
        if isinstance(result, TokenService):
            self._remember(result)
        for each in waiting:
            each.callback(result)

    async def _ask(self) -> TokenService:
        registry, *fallbacks = self._upstreams
        health, route = self._health(), Service.REGISTRY.value
        reason = health.whyUnavailable(registry, route)
        if reason is not None and fallbacks:
            raise UpstreamFailed(f"marked down: {reason}")
        health.asked(registry, route)
        url = registry.url(Service.REGISTRY, b"/v2/")
        headers = Headers({b"Accept-Encoding": [b"identity"]})
        asking = self._agent.request(b"GET", url, headers, None)
        asking.addTimeout(self._timeout / len(self._upstreams), self._reactor, noHead)
        try:
            answer = await asking
        except LocalFailure:
            raise
        except (ConnectFailed, HeadTimedOut) as error:
            # A late response head can't be due to this target, so a single one is enough.
            health.failed(registry, route, error.message)
            raise
        health.served(registry, route)
        challenges = answer.headers.getRawHeaders(b"WWW-Authenticate") or ()
        discard(answer, self._reactor)
        if self._found is not None:
            parameters = bearerParameters(b",".join(challenges))
            if not parameters:
                raise UnknownName(f"{self._name} gave no challenge")
            return attrs.evolve(self._found, service=parameters.get(b"service"))
        return self._read(challenges)

    def _read(self, challenges: Sequence[bytes]) -> TokenService:
        """
        The token service that a challenge names.

        @raise UpstreamFailed: when the token service is not acceptable (L{mayBelieve}).
        @raise UnknownName: when the challenge names none.
        """
        parameters = bearerParameters(b",".join(challenges))
        realm = parameters.get(b"realm")
        if realm is None:
            raise UnknownName(f"{self._name} has no token service")
        try:
            origin, target = splitURL(realm)
        except ValueError:
            raise UpstreamFailed(f"{self._name} names no usable token service") from None
        if not mayBelieve(self._origin, origin):
            if not self._isDisbelieved:
                self._isDisbelieved = True
                self._log.error(
                    "{registry} names {origin} as its token service, which is not in its own"
                    ' domain: if that is right, set auth_url in [registry."{registry}"]',
                    registry=self._name,
                    origin=str(origin),
                )
            raise UpstreamFailed(
                f"{self._name} names a token service that is not in its own domain: the operator"
                " of this mirror has to confirm it"
            )
        self._believed(origin)
        base = b"%b://%b%b" % (origin.scheme, origin.authority, target)
        return TokenService(base, parameters.get(b"service"))
