"""
One registry that is mirrored: its upstreams with their state, and L{Registry.ask}, which sends a
request to them.

Each L{Registry} has its own health, quotas and accounts.  The classes that it uses do not know that
there are other registries.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse

from hubmirror.config import MirrorConfig, RegistryConfig
from hubmirror.exchange import Exchange
from hubmirror.protocol.addressing import RegistryNames
from hubmirror.protocol.credentials import OWN_AUTHORIZATION, authorizationFor, formFor
from hubmirror.protocol.errors import UpstreamsFailed
from hubmirror.protocol.target import Kind, Target
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.upstream.accounts import Account, AccountAgent, AccountRefused, Accounts
from hubmirror.upstream.agents import RedirectAgent, ask
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.failover import FailoverAgent
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service, Upstream, upstreamsOf
from hubmirror.upstream.quota import Quotas
from hubmirror.upstream.realms import TokenService, TokenServices
from hubmirror.upstream.resuming import ResumingAgent
from hubmirror.upstream.resumingresponse import RetryPolicy


def namesOf(registry: RegistryConfig) -> RegistryNames:
    """
    The names by which a request can refer to a registry.
    """
    known = registry.known
    own = splitURL(registry.registryURL.encode("ascii"))[0].authority
    return RegistryNames(
        registry.name.encode("ascii"),
        (own, *(alias.encode("ascii") for alias in (known.aliases if known else ()))),
        tuple(host.encode("ascii") for host in registry.hosts),
        (known.implicitNamespace or "").encode("ascii") if known else b"",
        known.dottedNamespaces if known else True,
    )


class Registry:
    """
    @ivar name: the registry's name, as in the names of images.
    @ivar names: the names by which requests can refer to the registry.
    @ivar isDefault: whether requests that name no registry are for this one.
    @ivar mayPush: whether clients may push.  Where the mirror uses the operator's accounts, they
        may only if the operator permits it (C{account_may_push}).
    @ivar hasAccounts: whether the mirror uses the operator's accounts for this registry.
    @ivar upstreams: the registry itself, then its fallbacks.
    @ivar health: which upstreams are marked down.
    @ivar quotas: the rate limits that the upstreams have reported.
    """

    def __init__(
        self,
        reactor: Any,
        config: MirrorConfig,
        registry: RegistryConfig,
        agent: IAgent,
        accounts: Sequence[Account] = (),
        *,
        key: bytes | None = None,
        asksAnonymously: bool = False,
        believed: Callable[[Origin], None] = lambda _: None,
    ) -> None:
        """
        @param agent: sends one request to one origin.
        @param accounts: the operator's accounts at this registry.
        @param key: the key of the hashes in L{Quotas.identity}; by default a random one.
        @param asksAnonymously: whether the mirror requests an anonymous token for a client that
            sends no C{Authorization}: such a client has never seen a challenge.
        @param believed: called with the origin of the token service that the registry has named.
        """
        self.name = registry.name
        self.names = namesOf(registry)
        self.isDefault = registry.isDefault
        self._passCredentials = registry.pass_credentials
        self.hasAccounts = bool(accounts)
        self.mayPush = not accounts or registry.account_may_push
        self.upstreams = upstreamsOf(registry)
        self.health = Health(reactor)
        self.quotas = Quotas(reactor, key)
        self._reactor = reactor
        self._config = config
        self._agent = agent
        self._asksAnonymously = asksAnonymously
        self._tokens = TokenServices(
            reactor,
            agent,
            registry,
            self.upstreams,
            believed,
            lambda: self.health,
            config.response_timeout,
        )
        self._accounts = Accounts(reactor, agent, self.upstreams, self._tokens, accounts)
        self._retryPolicy = RetryPolicy(config.resumes, config.stall_timeout, config.min_speed)
        self._byName = {upstream.name: upstream for upstream in self.upstreams}

    def inherit(self, previous: Registry) -> None:
        """
        Take over the health and quotas of a previous instance with the same upstreams.
        """
        self.health = previous.health
        self.quotas = previous.quotas

    def lastAnswer(self) -> float | None:
        """
        When any upstream last responded, in seconds of the reactor's clock; C{None} if none has.
        """
        times = map(self.health.lastAnswer, self.upstreams)
        return max((each for each in times if each is not None), default=None)

    def offers(self, service: Service) -> bool:
        """
        Whether the registry may have a service.  Whether it has a token service may be known only
        after it has been asked.
        """
        return service is Service.TOKEN or service in self.upstreams[0].bases

    def permitted(self, authorization: bytes) -> bytes | None:
        """
        The value of C{Authorization} to forward to this registry and its token service, or C{None}
        if the client's must not be forwarded.
        """
        if self.hasAccounts:
            return None
        return authorizationFor(
            self.names.name,
            authorization,
            isDefault=self.isDefault,
            passCredentials=self._passCredentials,
        )

    def permittedForm(self, form: bytes) -> bytes | None:
        """
        The form of a token request to forward to this registry's token service, or C{None} when its
        credentials must not be forwarded.
        """
        return formFor(
            self.names.name,
            form,
            isDefault=self.isDefault,
            passCredentials=self._passCredentials,
        )

    def tokenService(self) -> Deferred[TokenService]:
        """
        Find the registry's token service and the registry's name there.

        @return: a deferred that fails with L{UpstreamFailed} when the token service can't be found,
            and with L{UnknownName} when there is none.
        """
        return self._tokens.find(withService=True)

    def learn(self, upstream: str | None, challenges: Sequence[bytes]) -> None:
        """
        Learn the registry's token service from a challenge.

        @param upstream: the name of the upstream that gave the challenge.  The challenges of
            fallbacks are ignored.
        @param challenges: the values of C{WWW-Authenticate}.
        """
        if upstream == self.upstreams[0].name:
            self._tokens.learn(challenges)

    async def ask(
        self,
        exchange: Exchange,
        service: Service,
        asked: Target,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> IResponse:
        """
        Send a request to the first upstream that serves it.

        @param asked: the target of the client's request.
        @param target: the request target after the service's base URL, which is sent unchanged.
        @return: a response whose body is resumed when it breaks.
        @raise UpstreamFailed: when no upstream gives a response.
        """
        if service is not Service.REGISTRY:
            return await self._askWith(None, exchange, service, asked, target, headers, body)
        if not self.hasAccounts:
            account = None
            shown = headers.getRawHeaders(b"Authorization")
            # The answer to a ping is where dockerd learns how to log in.
            isAnonymous = shown is None and asked.kind is not Kind.PING
            if (self._asksAnonymously and isAnonymous) or shown == [OWN_AUTHORIZATION]:
                account = Account()
            return await self._askWith(account, exchange, service, asked, target, headers, body)
        left = self._accounts.inOrder(self.quotas)
        if body is not None:
            # A body can be sent only once.
            del left[1:]
        while True:
            account = left.pop(0)
            try:
                response = await self._askWith(
                    account, exchange, service, asked, target, headers, body
                )
            except UpstreamsFailed as error:
                if left and any(isinstance(each, AccountRefused) for _, each in error.attempts):
                    continue
                raise
            # Another account may have the permission, or pulls left.
            if not left or response.code not in (401, 429):
                return response
            discard(response, self._reactor)

    def _askWith(
        self,
        account: Account | None,
        exchange: Exchange,
        service: Service,
        asked: Target,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> Coroutine[Any, Any, IResponse]:
        """
        @param account: the account whose credentials are sent; C{None} stands for those of the
            client.
        """
        config = self._config
        follows = RedirectAgent(self._reactor, self._agent, exchange)
        redirects: RedirectAgent | AccountAgent = follows
        if account is not None:
            redirects = AccountAgent(self._accounts, account, follows, asked)
        failover = FailoverAgent(
            self._reactor,
            redirects,
            self.upstreams,
            service,
            exchange,
            health=self.health,
            quotas=self.quotas,
            identity=None if account is None else self._accounts.identity(account),
            failoverOn=config.failover_on,
            timeout=config.response_timeout,
            findTokens=self._tokens.find,
        )
        resuming = ResumingAgent(
            self._reactor,
            failover,
            redirects,
            self._accounts,
            self.upstreams,
            service,
            asked,
            exchange,
            health=self.health,
            retryPolicy=self._retryPolicy,
            verify=config.verify,
            timeout=config.response_timeout,
        )
        return ask(self._reactor, resuming, exchange.method, target, headers, body)

    def upstream(self, name: str | None) -> Upstream:
        """
        Find an upstream by the name in C{Exchange.upstream}; the registry itself if there is none
        of that name.
        """
        return self._byName.get(name or "", self.upstreams[0])
