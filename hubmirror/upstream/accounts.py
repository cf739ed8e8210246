"""
Tokens that the mirror requests for itself, with the operator's accounts or anonymously.

A client of such a mirror needs no account.  The mirror replaces the client's credentials by a token
for the requested repository, and keeps that token until shortly before it expires.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NoReturn

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.protocol.challenge import bearerParameters, schemes
from hubmirror.protocol.errors import (
    ConnectFailed,
    HeadFailed,
    LocalFailure,
    NoCredentials,
    UnknownName,
    UpstreamFailed,
)
from hubmirror.protocol.target import Target
from hubmirror.protocol.tokens import readToken, tokenURL
from hubmirror.protocol.url import splitURL
from hubmirror.transport.connecting import noHead
from hubmirror.upstream.agents import RedirectAgent
from hubmirror.upstream.bodies import discard, readShortBody
from hubmirror.upstream.policy import PUSHING, Service, Upstream
from hubmirror.upstream.quota import ANONYMOUS, Quotas
from hubmirror.upstream.realms import TokenServices

# The time for a token service's response, in seconds.
_TIMEOUT = 5.0
# The fraction of a token's lifetime after which it is replaced.
_MARGIN = 0.9
_MOST_TOKENS = 10_000
# The time in seconds during which a 401 to a new token is a denial, and no sign that the token has
# become invalid.
_NEW = 5.0


@attrs.frozen
class Account:
    """
    An account at a registry.

    @ivar username: if it is empty, tokens are requested anonymously.
    """

    username: str = ""
    password: str = attrs.field(default="", repr=False)

    @property
    def basic(self) -> bytes:
        """
        The value of C{Authorization} with the account's name and password (RFC 7617).
        """
        pair = f"{self.username}:{self.password}".encode()
        return b"Basic " + base64.b64encode(pair)


class AccountRefused(NoCredentials):
    """
    The registry or its token service rejects one of the operator's accounts.
    """


_Key = tuple[str, Account, bytes, bool]
"""
The purpose of a token: the upstream's name, the account, the repository, and whether the token is
for a change (a push or a deletion).
"""


@attrs.frozen
class _Token:
    """
    @ivar authorization: the value of C{Authorization}.
    @ivar scope: the scope of the challenge that demanded it.
    @ivar since: when it was issued, in seconds of the reactor's clock.
    @ivar until: when the token has to be replaced, in seconds of the reactor's clock.
    """

    authorization: bytes
    scope: bytes | None
    since: float
    until: float


class Accounts:
    """
    The operator's accounts at one registry, and the tokens that were issued for them.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        agent: IAgent,
        upstreams: Sequence[Upstream],
        services: TokenServices,
        accounts: Sequence[Account],
    ) -> None:
        """
        @param agent: sends one request to one origin.
        @param upstreams: the registry itself, then its fallbacks.
        """
        self.reactor = reactor
        self._agent = agent
        self._upstreams = upstreams
        # Some registries have their uploads outside of /v2/.
        self._prefixes = _longestFirst(upstreams, _versionOf) + _longestFirst(upstreams, _baseOf)
        self._services = services
        self._accounts = list(accounts)
        self._refused: set[Account] = set()
        # A password is kept for all repositories, by the first two parts of the key.
        self._tokens: dict[_Key | tuple[str, Account], _Token] = {}
        self._challenges: dict[_Key, Sequence[bytes]] = {}
        self._fetching: dict[_Key, list[Deferred[bytes | None]]] = {}

    def identity(self, account: Account) -> bytes:
        """
        The key of an account in L{Quotas}: a hash of its name.  Upstreams count all anonymous
        requests together.
        """
        if not account.username:
            return ANONYMOUS
        return hashlib.blake2b(account.username.encode(), digest_size=16).digest()

    def inOrder(self, quotas: Quotas) -> list[Account]:
        """
        The accounts in the order in which to try them: the one with the most pulls left first.
        Accounts that the registry has rejected are left out, unless it has rejected all of them.

        @param quotas: the rate limits that the registry has reported for each account.
        """
        usable = [each for each in self._accounts if each not in self._refused] or self._accounts
        registry = self._upstreams[0]
        return sorted(usable, key=lambda each: -quotas.remaining(registry, self.identity(each)))

    def upstreamOf(self, uri: bytes) -> Upstream | None:
        """
        The upstream to which a URI belongs, or C{None}: it is the URI of a CDN, to which a redirect
        has led.
        """
        return next((owner for prefix, owner in self._prefixes if uri.startswith(prefix)), None)

    def known(self, key: _Key) -> bytes | None:
        """
        The C{Authorization} of a token that is still valid, or C{None}.
        """
        token = self._known(key)
        return None if token is None else token.authorization

    def _known(self, key: _Key) -> _Token | None:
        token = self._tokens.get(key) or self._tokens.get(key[:2])
        if token is not None and token.until <= self.reactor.seconds():
            self._forget(key)
            return None
        return token

    def _forget(self, key: _Key) -> None:
        self._tokens.pop(key, None)
        self._tokens.pop(key[:2], None)

    def fetch(
        self, key: _Key, upstream: Upstream, challenges: Sequence[bytes], sent: bytes | None
    ) -> Deferred[bytes | None]:
        """
        Request the token that a challenge demands; if it demands a password, check the account's.
        Nothing is requested if C{sent} is new and for the same scope: the account is then denied
        what was requested.
        Concurrent calls with the same key share one request.

        @param challenges: the values of C{WWW-Authenticate}.
        @param sent: the C{Authorization} of the request to which they are the response.
        @return: a deferred that fires with the value of C{Authorization} for further requests, or
            with C{None} if the account is denied what was requested.  It fails with
            L{AccountRefused} if the account is rejected, and with L{UpstreamFailed} if it can't be
            found out.
        """
        token = self._known(key)
        if token is not None and token.scope == _scope(challenges):
            if token.authorization != sent:
                # It was issued in the meantime.
                return succeed(token.authorization)
            if self.reactor.seconds() < token.since + _NEW:
                return succeed(None)
        self._forget(key)
        waiting: Deferred[bytes | None] = Deferred()
        if key in self._fetching:
            self._fetching[key].append(waiting)
            return waiting
        self._fetching[key] = [waiting]

        def tell(result: bytes | Failure | None) -> None:
            for each in self._fetching.pop(key):
                each.callback(result)

        Deferred.fromCoroutine(self._fetch(key, upstream, challenges)).addBoth(tell)
        return waiting

    def remember(self, key: _Key, challenges: Sequence[bytes]) -> None:
        """
        Remember a challenge for L{renew}.

        @param challenges: the values of C{WWW-Authenticate}.
        """
        self._challenges.pop(key, None)
        if len(self._challenges) >= _MOST_TOKENS:
            del self._challenges[next(iter(self._challenges))]
        self._challenges[key] = challenges

    def renew(self, key: _Key, upstream: Upstream) -> Deferred[bytes | None]:
        """
        Request the token that the last challenge demanded.

        @return: see L{fetch}; C{None} also if there has been no challenge.
        """
        challenges = self._challenges.get(key)
        return succeed(None) if challenges is None else self.fetch(key, upstream, challenges, None)

    async def _fetch(
        self, key: _Key, upstream: Upstream, challenges: Sequence[bytes]
    ) -> bytes | None:
        # Fallbacks are asked anonymously.
        account = key[1] if upstream is self._upstreams[0] else Account()
        isBearer = b"bearer" in schemes(b",".join(challenges))
        if not isBearer and not account.username:
            return None
        # If the registry wants a password, it may have refused only the repository.  Every account
        # may read /v2/.
        uri = upstream.url(Service.REGISTRY, b"/v2/")
        if isBearer:
            try:
                uri = await self._tokenURL(upstream, account, challenges)
            except UnknownName:
                return None
            except (ConnectFailed, HeadFailed):
                # It is the registry itself that failed.
                raise
            except UpstreamFailed as error:
                raise NoCredentials(error.message) from None
        headers = Headers({b"Accept-Encoding": [b"identity"]})
        if account.username:
            headers.setRawHeaders(b"Authorization", [account.basic])
        asking = self._agent.request(b"GET", uri, headers, None)
        asking.addTimeout(_TIMEOUT, self.reactor, noHead)
        place = splitURL(uri)[0].authority.decode("ascii")
        try:
            answer = await asking
            body = await readShortBody(answer, self.reactor, _TIMEOUT)
        except LocalFailure:
            raise
        except UpstreamFailed as error:
            raise NoCredentials(f"{place}: {error.message}") from None
        if answer.code == 401 and account.username:
            self._refuse(account)
        if answer.code == 429 or answer.code >= 500:
            raise NoCredentials(f"{place} answered {answer.code}")
        if not isBearer:
            self._keep(key[:2], account.basic, None, math.inf)
            return account.basic
        if answer.code != 200:
            return None
        authorization, life = readToken(body)
        self._keep(key, authorization, _scope(challenges), life)
        return authorization

    async def _tokenURL(
        self, upstream: Upstream, account: Account, challenges: Sequence[bytes]
    ) -> bytes:
        """
        @raise UnknownName: when the registry has no token service.
        """
        if upstream is self._upstreams[0]:
            self._services.learn(challenges)
            await self._services.find()
        parameters = bearerParameters(b",".join(challenges))
        url = tokenURL(upstream.bases[Service.TOKEN], parameters, account.username.encode())
        # A fallback's challenge has the names as that fallback knows them, but not its ns.
        return upstream.spelling.withNamespace(url)

    def _keep(
        self,
        key: _Key | tuple[str, Account],
        authorization: bytes,
        scope: bytes | None,
        life: float,
    ) -> None:
        if len(self._tokens) >= _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        now = self.reactor.seconds()
        self._tokens[key] = _Token(authorization, scope, now, now + life * _MARGIN)

    def _refuse(self, account: Account) -> NoReturn:
        """
        Leave out an account from now on, because the registry has rejected it.

        @raise AccountRefused: always.
        """
        if account not in self._refused:
            self._refused.add(account)
            self._log.error(
                "{upstream} rejected the account {username}; until the next reload, the mirror uses"
                " it only if it has no other",
                upstream=self._upstreams[0].name,
                username=account.username,
            )
        raise AccountRefused("the mirror's account was refused")


def _versionOf(upstream: Upstream) -> bytes:
    return upstream.url(Service.REGISTRY, b"/v2/").partition(b"?")[0]


def _baseOf(upstream: Upstream) -> bytes:
    return upstream.bases[Service.REGISTRY] + b"/"


def _longestFirst(
    upstreams: Sequence[Upstream], prefixOf: Callable[[Upstream], bytes]
) -> list[tuple[bytes, Upstream]]:
    """
    The prefix of each upstream's URLs; one may be the beginning of another.
    """
    pairs = [(prefixOf(upstream), upstream) for upstream in upstreams]
    return sorted(pairs, key=lambda pair: -len(pair[0]))


def _scope(challenges: Sequence[bytes]) -> bytes | None:
    return bearerParameters(b",".join(challenges)).get(b"scope")


@implementer(IAgent)
class AccountAgent:
    """
    Sends requests with the credentials of the mirror in place of those of the client.

    @ivar asked: see L{RedirectAgent}.
    """

    def __init__(
        self, accounts: Accounts, account: Account, redirects: RedirectAgent, target: Target
    ) -> None:
        """
        @param target: the target of the client's request.
        """
        self._accounts = accounts
        self._account = account
        self._redirects = redirects
        self._repository = target.repository or b""

    @property
    def asked(self) -> tuple[bytes, Headers]:
        return self._redirects.asked

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        @see: L{RedirectAgent.request}
        """
        upstream = self._accounts.upstreamOf(uri)
        if upstream is None:
            return self._redirects.request(method, uri, headers, bodyProducer)
        return Deferred.fromCoroutine(
            self._request(upstream, method, uri, headers or Headers(), bodyProducer)
        )

    async def _request(
        self,
        upstream: Upstream,
        method: bytes,
        uri: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> IResponse:
        accounts = self._accounts
        key = upstream.name, self._account, self._repository, method in (*PUSHING, b"DELETE")
        sent = accounts.known(key)
        if sent is None and body is not None:
            # A body is sent only once, so its request can't be repeated after a challenge.
            sent = await self._mayFail(accounts.renew(key, upstream))
        answer = await self._send(method, uri, headers, body, sent)
        challenges = answer.headers.getRawHeaders(b"WWW-Authenticate")
        if answer.code != 401 or not challenges:
            return answer
        accounts.remember(key, challenges)
        if body is not None:
            return answer
        with ExitStack() as stack:
            stack.callback(discard, answer, accounts.reactor)
            authorization = await self._mayFail(accounts.fetch(key, upstream, challenges, sent))
            if authorization is None:
                stack.pop_all()
                return answer
        return await self._send(method, uri, headers, None, authorization)

    async def _mayFail(self, fetching: Deferred[bytes | None]) -> bytes | None:
        try:
            return await fetching
        except UpstreamFailed:
            if self._account.username:
                raise
            # The client may have credentials of its own.
            return None

    def _send(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers,
        body: IBodyProducer | None,
        authorization: bytes | None,
    ) -> Deferred[IResponse]:
        own = headers.copy()
        own.removeHeader(b"Authorization")
        if authorization is not None:
            own.setRawHeaders(b"Authorization", [authorization])
        return self._redirects.request(method, uri, own, body)
