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
from hubmirror.protocol.url import splitURL
from hubmirror.upstream.agents import FailoverAgent, RedirectAgent, ask
from hubmirror.upstream.policy import Service, upstreamsOf


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

    async def ask(
        self,
        exchange: Exchange,
        service: Service,
        target: bytes,
        headers: Headers,
        body: IBodyProducer | None,
    ) -> IResponse:
        """
        Send a request to the first upstream that serves it.

        @param target: what follows the service's URL, byte for byte.
        @raise UpstreamFailed: when none gives an answer.
        """
        agent = FailoverAgent(
            self._reactor,
            RedirectAgent(self._agent, exchange),
            self._upstreams,
            service,
            exchange,
            failoverOn=self._config.failover_on,
            timeout=self._config.response_timeout,
        )
        return await ask(self._reactor, agent, exchange.method, target, headers, body)

    def pathOf(self, name: str | None) -> bytes:
        """
        The path below which the registry of an upstream lies: empty for most.

        @param name: as in C{Exchange.upstream}.
        """
        for upstream in self._upstreams:
            if upstream.name == name:
                return splitURL(upstream.bases[Service.REGISTRY])[1].rstrip(b"/")
        return b""
