"""
One registry that is mirrored: its upstreams, what is known of them, and the one way to ask them:
treq over the agents, made ready for one exchange.

The modules below know no other registry than the one that they are made for.
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
from hubmirror.protocol.target import Kind, Target
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.upstream.accounts import Account, AccountAgent, Accounts
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
    What has to be known of a registry to know that a request means it.
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
    @ivar name: as it stands in the names of images.
    @ivar names: how requests name it.
    @ivar isDefault: it is the one that is meant when a request names none.
    @ivar passCredentials: its token service may see the passwords that clients send.
    @ivar mayPush: clients may push; with the mirror's own account only where the operator says so.
    @ivar hasAccounts: the mirror asks with accounts of the operator's own.
    @ivar upstreams: the registry itself, then its fallbacks.
    @ivar health: which of them are marked down.
    @ivar quotas: what they have said of their limits.
    """

    def __init__(
        self,
        reactor: Any,
        config: MirrorConfig,
        registry: RegistryConfig,
        agent: IAgent,
        accounts: Sequence[Account] = (),
        *,
        asksAnonymously: bool = False,
        believed: Callable[[Origin], None] = lambda _: None,
    ) -> None:
        """
        @param agent: sends one request to one origin.
        @param accounts: the accounts of the operator's own.
        @param asksAnonymously: whether the mirror gets a token for a client that shows none, since
            nothing has told that client where to get one.
        @param believed: told the origin of the token service, when the registry itself has named
            it.
        """
        self.name = registry.name
        self.names = namesOf(registry)
        self.isDefault = registry.isDefault
        self.passCredentials = registry.pass_credentials
        self.hasAccounts = bool(accounts)
        self.mayPush = not accounts or registry.account_may_push
        self.upstreams = upstreamsOf(registry)
        self.health = Health(reactor)
        self.quotas = Quotas(reactor)
        self._reactor = reactor
        self._config = config
        self._agent = agent
        self._asksAnonymously = asksAnonymously
        self._tokens = TokenServices(
            reactor, agent, registry, self.upstreams[0], believed, config.response_timeout
        )
        self._accounts = Accounts(
            reactor, agent, self.upstreams, self._tokens, accounts, self.quotas
        )
        self._retryPolicy = RetryPolicy(config.resumes, config.stall_timeout, config.min_speed)
        self._byName = {upstream.name: upstream for upstream in self.upstreams}

    def inherit(self, previous: Registry) -> None:
        """
        Go on with what is known of the upstreams of another registry, which are the same.
        """
        self.health = previous.health
        self.quotas = previous.quotas
        self._accounts.quotas = previous.quotas

    def lastAnswer(self) -> float | None:
        """
        When an upstream last answered, in seconds of the reactor's clock.
        """
        times = map(self.health.lastAnswer, self.upstreams)
        return max((each for each in times if each is not None), default=None)

    def offers(self, service: Service) -> bool:
        """
        Whether the registry may have a service: its token service may have to be asked for first.
        """
        return service is Service.TOKEN or service in self.upstreams[0].bases

    def permitted(self, authorization: bytes) -> bytes | None:
        """
        What of a client's C{Authorization} this registry and its token service may see.
        """
        if self.hasAccounts:
            return None
        return authorizationFor(
            self.names.name,
            authorization,
            isDefault=self.isDefault,
            passCredentials=self.passCredentials,
        )

    def permittedForm(self, form: bytes) -> bytes | None:
        """
        A token request's form as this registry's token service may see it; C{None} when it has
        credentials that are not for that one.
        """
        return formFor(
            self.names.name,
            form,
            isDefault=self.isDefault,
            passCredentials=self.passCredentials,
        )

    def tokenService(self) -> Deferred[TokenService]:
        """
        Where the registry's tokens are issued, and what it calls itself there.

        @return: fails with L{UpstreamFailed} when that is not known and can't be learned, with
            L{UnknownName} when it issues none.
        """
        return self._tokens.find(withService=True)

    def learn(self, upstream: str | None, challenges: Sequence[bytes]) -> None:
        """
        Learn from a challenge where the registry's tokens are issued.

        @param upstream: who gave it; what a fallback says counts for nothing.
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

        @param asked: what the client asked for.
        @param target: what follows the service's URL, byte for byte.
        @return: an answer whose body goes on where it breaks.
        @raise UpstreamFailed: when no upstream gives one.
        """
        if service is not Service.REGISTRY:
            if service is Service.TOKEN:
                await self._tokens.find()
            return await self._askWith(None, exchange, service, asked, target, headers, body)
        if not self.hasAccounts:
            account = None
            shown = headers.getRawHeaders(b"Authorization")
            # The answer to a ping is where dockerd learns how to log in.
            isAnonymous = shown is None and asked.kind is not Kind.PING
            if (self._asksAnonymously and isAnonymous) or shown == [OWN_AUTHORIZATION]:
                account = Account()
            return await self._askWith(account, exchange, service, asked, target, headers, body)
        left = self._accounts.inOrder()
        while True:
            account = left.pop(0)
            response = await self._askWith(account, exchange, service, asked, target, headers, body)
            if response.code != 429 or not left or body is not None:
                return response
            # Another account may have pulls left.
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
        @param account: asks with the client's own credentials when it is C{None}.
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
        )
        resuming = ResumingAgent(
            self._reactor,
            failover,
            redirects,
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
        The upstream of a name, as C{Exchange.upstream} has it; the registry itself when there is no
        such upstream.
        """
        return self._byName.get(name or "", self.upstreams[0])
