"""
The one way by which the rooms below reach the Hub: treq over the agents, made ready for one
exchange.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse

from hubmirror.config import MirrorConfig
from hubmirror.exchange import Exchange
from hubmirror.protocol.target import Target
from hubmirror.protocol.url import splitURL
from hubmirror.upstream.agents import RedirectAgent, ask
from hubmirror.upstream.failover import FailoverAgent
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service, upstreamsOf
from hubmirror.upstream.quota import Quotas
from hubmirror.upstream.resuming import ResumingAgent
from hubmirror.upstream.resumingresponse import RetryPolicy


class UpstreamClient:
    """
    Asks the upstreams of a configuration.
    """

    def __init__(self, reactor: Any, config: MirrorConfig, agent: IAgent) -> None:
        """
        @param agent: sends one request to one origin.
        """
        self._reactor = reactor
        self._config = config
        self._agent = agent
        self._upstreams = upstreamsOf(config)
        self._paths: dict[str | None, bytes] = {
            upstream.name: splitURL(upstream.bases[Service.REGISTRY])[1].rstrip(b"/")
            for upstream in self._upstreams
        }
        self._health = Health(reactor)
        self._quotas = Quotas(reactor)
        self._retryPolicy = RetryPolicy(config.resumes, config.stall_timeout, config.min_speed)

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
        config = self._config
        redirects = RedirectAgent(self._reactor, self._agent, exchange)
        failover = FailoverAgent(
            self._reactor,
            redirects,
            self._upstreams,
            service,
            exchange,
            health=self._health,
            quotas=self._quotas,
            failoverOn=config.failover_on,
            timeout=config.response_timeout,
        )
        resuming = ResumingAgent(
            self._reactor,
            failover,
            redirects,
            self._upstreams,
            service,
            asked,
            exchange,
            health=self._health,
            retryPolicy=self._retryPolicy,
            verify=config.verify,
            timeout=config.response_timeout,
        )
        return await ask(self._reactor, resuming, exchange.method, target, headers, body)

    def pathOf(self, name: str | None) -> bytes:
        """
        The path below which the registry of an upstream lies: empty for most.

        @param name: as in C{Exchange.upstream}.
        """
        return self._paths.get(name, b"")
