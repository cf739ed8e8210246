"""
Where a registry's tokens are issued: as configured, as known, or as its own challenge says.

A client sends its password to the token service of a challenge.  A registry that could name any
URL would collect passwords that are meant for others (CVE-2020-15157 in containerd).  So what a
challenge says is believed only when it is https and in the registry's own domain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from hubmirror.config import RegistryConfig
from hubmirror.protocol.addresses import hostAddress
from hubmirror.protocol.challenge import bearerParameters
from hubmirror.protocol.errors import HeadTimedOut, MirrorError, UnknownName, UpstreamFailed
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.policy import Service, Upstream


@attrs.frozen
class TokenService:
    """
    @ivar url: where tokens are to be had.
    @ivar service: what the registry calls itself there; C{None} when it is not known.
    """

    url: bytes
    service: bytes | None


def mayBelieve(registry: Origin, realm: Origin) -> bool:
    """
    Whether a registry's word for where its tokens are issued counts: https, on the same host or one
    below it.  What shares a domain with it may be somebody else's (C{a.azurecr.io} and
    C{b.azurecr.io}).
    """
    return realm.scheme == b"https" and (
        realm.host == registry.host
        or (hostAddress(registry.host) is None and realm.host.endswith(b"." + registry.host))
    )


class TokenServices:
    """
    Finds a registry's token service: asks the registry for it once, when that is needed.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        agent: IAgent,
        registry: RegistryConfig,
        upstream: Upstream,
        believed: Callable[[Origin], None],
        timeout: float,
    ) -> None:
        """
        @param agent: sends one request to one origin.
        @param upstream: the registry itself; the URL that is found goes into its C{bases}.
        @param believed: told the origin of a token service that the registry has named.
        @param timeout: seconds for the registry's answer.
        """
        self._reactor = reactor
        self._agent = agent
        self._name = registry.name
        self._upstream = upstream
        self._believed = believed
        self._timeout = timeout
        self._origin = splitURL(upstream.bases[Service.REGISTRY])[0]
        self._found: TokenService | None = None
        self._isServiceAsked = False
        self._isDisbelieved = False
        self._waiting: list[Deferred[TokenService]] | None = None
        url = upstream.bases.get(Service.TOKEN)
        if url is not None:
            known = registry.known
            isKnown = known is not None and url == (known.auth_url or "").encode("ascii")
            service = known.service if known is not None and isKnown else None
            self._found = TokenService(url, service.encode("ascii") if service else None)

    def find(self, *, withService: bool = False) -> Deferred[TokenService]:
        """
        @param withService: whether to ask the registry for what it calls itself, too, when only the
            URL is known.
        @return: fails with L{UpstreamFailed} when it can't be found or must not be believed, with
            L{UnknownName} when there is none.
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
        Read the token service, as long as none is known, in a challenge that the registry gave to
        some request.  There are registries that give none at C{/v2/}.
        """
        if self._found is None and bearerParameters(b",".join(challenges)):
            try:
                self._remember(self._read(challenges))
            except MirrorError as error:
                self._log.debug("{registry}: {reason}", registry=self._name, reason=error.message)

    def _remember(self, service: TokenService) -> None:
        self._found = service
        self._upstream.bases[Service.TOKEN] = service.url

    def _tell(self, result: TokenService | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        self._isServiceAsked = isinstance(result, TokenService)
        if isinstance(result, Failure) and self._found is not None:
            # Only what the registry calls itself is not known.
            result = self._found
        if isinstance(result, TokenService):
            self._remember(result)
        for each in waiting:
            each.callback(result)

    async def _ask(self) -> TokenService:
        url = self._upstream.url(Service.REGISTRY, b"/v2/")
        headers = Headers({b"Accept-Encoding": [b"identity"]})
        asking = self._agent.request(b"GET", url, headers, None)
        asking.addTimeout(self._timeout, self._reactor, _tooLate)
        answer = await asking
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

        @raise UpstreamFailed: when it must not be believed.
        @raise UnknownName: when it names none.
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


def _tooLate(_: object, timeout: float) -> NoReturn:
    raise HeadTimedOut(f"no response head within {timeout:g} s")
