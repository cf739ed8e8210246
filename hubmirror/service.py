"""
The composition root: it creates a mirror from its parts, and starts, reloads, drains and stops it.
"""

from __future__ import annotations

import resource
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource

from hubmirror.config import MirrorConfig, optionName, options
from hubmirror.downstream.admission import Admission
from hubmirror.downstream.budget import Budget
from hubmirror.downstream.incoming import Registries, Settings
from hubmirror.downstream.proxy import Mirror
from hubmirror.downstream.relay import abortRequest
from hubmirror.downstream.resources import MirrorResource
from hubmirror.downstream.site import MirrorSite
from hubmirror.exchange import Exchange
from hubmirror.limits import limitsOf, overlap, shortage
from hubmirror.listening import Certificates, makeEndpoint
from hubmirror.operations.accesslog import logExchange
from hubmirror.operations.banner import announce
from hubmirror.registries import makeRegistries
from hubmirror.transport.pool import Pool
from hubmirror.transport.tlsendpoints import TLSReactor


class HubMirror:
    """
    A mirror, which can be embedded in any Twisted service.

    @ivar resource: its Resource tree, for a site of one's own; C{putChild} puts others beside it.
    @ivar site: a site of the mirror's own, which streams pushes.
    @ivar service: listens on C{config.port}, and ends everything when it stops.  With an empty
        C{port} it does only the latter.
    @ivar endpoints: what it listens on.
    @ivar budget: counts the requests under way at upstreams, and those that wait.
    @ivar via: the mirror's name in C{Via}, unlike any other's, so that two mirrors that are each
        other's fallback notice.
    """

    def __init__(
        self,
        reactor: Any,
        config: MirrorConfig,
        agent: IAgent | None = None,
        listeners: tuple[Callable[[Exchange], None], ...] = (logExchange,),
        *,
        listening: Any = None,
        via: str | None = None,
    ) -> None:
        """
        @param agent: sends one request to one origin; by default over the mirror's own pool.
        @param listeners: told of each exchange when it has ended.
        @param listening: the reactor to listen with, when that is not the one to work with: a
            worker's, whose supervisor has announced the ports already.
        @param via: by default a name made up.
        @raise ConfigError: when a file that the configuration names can't be used, or an
            endpoint can't be made.
        """
        files = fileLimit()
        limits = limitsOf(config, files)
        self._pool: Pool | None = None
        if agent is None:
            most = limits.upstreams
            self._pool = Pool(reactor, config.idle_timeout, most, overlap(most))
        announces = listening is None
        self.via = via or f"hubmirror-{secrets.token_hex(4)}"
        registries = makeRegistries(reactor, config, agent or self._pool, limits.upstreams)
        self.budget = Budget(
            reactor, limits.upstreams, limits.upstreamsOfClient, config.queue_timeout
        )
        mirror = Mirror(
            reactor,
            Settings(config, registries),
            self.budget,
            self.via.encode("ascii"),
            listeners,
        )
        self.resource: IResource = MirrorResource(mirror)
        self.site = MirrorSite(
            self.resource,
            reactor,
            config.idle_timeout,
            admission=Admission(reactor, limits.clients, limits.ofClient),
            headTimeout=config.head_timeout,
            maxHead=config.max_head,
            plain=config.plain_transport,
            onRefused=mirror.refused,
        )
        listening = TLSReactor(listening or reactor, plain=config.plain_transport)
        self.endpoints = [makeEndpoint(listening, each) for each in config.port]

        def makeAgain(config: MirrorConfig) -> Registries:
            return makeRegistries(
                reactor, config, agent or self._pool, limits.upstreams, mirror.settings.registries
            )

        self.service = MirrorService(
            mirror,
            self.site,
            self.endpoints,
            self._pool,
            announces=announces,
            warning=shortage(limits, files),
            certificates=Certificates(reactor, config.port, listening.servers),
            makeRegistries=makeAgain,
        )


def makeSite(config: MirrorConfig, reactor: Any, agent: IAgent | None = None) -> MirrorSite:
    """
    A site that is a mirror, for C{listen} of any endpoint.
    """
    return HubMirror(reactor, config, agent).site


def fileLimit() -> int:
    """
    How many files this process may have open: its soft limit (getrlimit(2)).
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class MirrorService(Service):
    """
    Listens while it runs.  Stopping it gives the requests in progress C{drain_timeout} seconds to
    end.

    @ivar ports: the ports that are listened on.
    """

    _log = Logger()

    def __init__(
        self,
        mirror: Mirror,
        site: MirrorSite,
        endpoints: Sequence[IStreamServerEndpoint],
        pool: Pool | None,
        announces: bool,
        warning: str | None,
        certificates: Certificates,
        makeRegistries: Callable[[MirrorConfig], Registries],
    ) -> None:
        """
        @param announces: whether to log where it listens.
        @param warning: to log when it starts.
        @param certificates: of the ports.
        @param makeRegistries: makes the registries of another configuration.
        """
        self._certificates = certificates
        self._makeRegistries = makeRegistries
        self._warning = warning
        self._announces = announces
        self._mirror = mirror
        self._site = site
        self._endpoints = endpoints
        self._pool = pool
        self.ports: list[IListeningPort] = []

    def privilegedStartService(self) -> None:
        """
        Bind the ports while the process still has the privilege to do so.

        @raise CannotListenError: when one is taken, or may not be bound.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        @raise CannotListenError: as L{privilegedStartService}, for whoever does not call that.
        """
        super().startService()
        self._listen()
        self._certificates.start()
        if self._warning is not None:
            self._log.warn("{line}", line=self._warning)
        if self._announces:
            announce(self._mirror.settings.config, self.ports)

    def _listen(self) -> None:
        for endpoint in self._endpoints[len(self.ports) :]:
            problems: list[Failure] = []
            endpoint.listen(self._site).addCallbacks(self.ports.append, problems.append)
            for problem in problems:
                problem.raiseException()

    def reload(self, config: MirrorConfig) -> None:
        """
        Go on with other settings.  They hold for the requests from now on; answers under way end as
        they began.  Settings that take effect only at the start are named in the log.

        @raise ConfigError: when they can't work; everything then stays as it was.
        """
        before = self._mirror.settings.config
        # This is the one thing that can fail, and comes first.
        registries = self._makeRegistries(config)
        self._mirror.settings = Settings(config, registries)
        self._certificates.look()
        waiting = [
            optionName(field)
            for field in options()
            if field.metadata["atStart"]
            and getattr(before, field.name) != getattr(config, field.name)
        ]
        self._log.info("the configuration has been read again")
        if waiting:
            self._log.warn(
                "these take effect when the mirror is started again: {options}",
                options=", ".join(waiting),
            )

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, refuse new requests, wait for those in progress and abort the rest.

        @return: a deferred that fires when no connection is left.
        """
        super().stopService()
        self._certificates.stop()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        ports, self.ports = self.ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        self._mirror.closing = True
        deadline = self._mirror.reactor.callLater(
            self._mirror.settings.config.drain_timeout, self._endAll
        )
        await gatherResults([self._mirror.active.whenEmpty(), self._site.close()])
        if deadline.active():
            deadline.cancel()
        self._mirror.budget.close()
        if self._pool is not None:
            await self._pool.close()

    def _endAll(self) -> None:
        left = list(self._mirror.active)
        if left:
            self._log.warn("ending {left} requests that took too long", left=len(left))
        for request in left:
            abortRequest(request)
        self._site.abort()
