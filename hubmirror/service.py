"""
The composition root: it creates a mirror from its parts, and starts, reloads, drains and stops it.
"""

from __future__ import annotations

import mmap
import resource
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IAgent
from twisted.web.resource import IResource

from hubmirror.admin.metrics import Metrics
from hubmirror.admin.readiness import Readiness
from hubmirror.admin.status import Status, newKey
from hubmirror.config import ConfigError, MirrorConfig, optionName, options
from hubmirror.downstream.admission import Admission
from hubmirror.downstream.budget import Budget
from hubmirror.downstream.incoming import Registries, Settings
from hubmirror.downstream.proxy import Mirror
from hubmirror.downstream.rates import RateTable
from hubmirror.downstream.relay import abortRequest
from hubmirror.downstream.resources import MirrorResource
from hubmirror.downstream.site import MirrorSite
from hubmirror.exchange import Exchange
from hubmirror.limits import limitsOf, overlap, shortage
from hubmirror.listening import Certificates, SharingReactor, makeEndpoint
from hubmirror.operations.accesslog import AccessLog
from hubmirror.operations.banner import announce
from hubmirror.page.resource import PageResource
from hubmirror.protocol.errors import TooManyRequests
from hubmirror.registries import makeRegistries
from hubmirror.transport.pool import Pool
from hubmirror.transport.tlsendpoints import TLSReactor

if TYPE_CHECKING:
    # It needs a package that not every mirror has.
    from hubmirror.admin.site import AdminPort


class HubMirror:
    """
    A mirror, which can be embedded in any Twisted service.

    @ivar resource: its Resource tree, for a site of one's own; C{putChild} puts others beside it.
    @ivar site: a site of the mirror's own, which streams pushes.
    @ivar service: listens on C{config.port}, and ends everything when it stops.  With an empty
        C{port} it does only the latter.
    @ivar endpoints: what it listens on.
    @ivar budget: counts the requests under way at upstreams, and those that wait.
    @ivar report: makes the report of this process, when there is an admin port.
    @ivar via: the mirror's name in C{Via}, unlike any other's, so that two mirrors that are each
        other's fallback notice.
    """

    def __init__(
        self,
        reactor: Any,
        config: MirrorConfig,
        agent: IAgent | None = None,
        listeners: Sequence[Callable[[Exchange], None]] | None = None,
        *,
        listening: Any = None,
        via: str | None = None,
        rates: mmap.mmap | None = None,
    ) -> None:
        """
        @param agent: sends one request to one origin; by default over the mirror's own pool.
        @param listeners: told of each exchange when it has ended; by default, the access log.
        @param listening: the reactor to listen with, when that is not the one to work with: a
            worker's, whose supervisor has announced the ports already.
        @param via: by default a name made up.
        @param rates: memory for what clients have had, shared with other processes
            (L{hubmirror.downstream.rates}); by default, this mirror's own.
        @raise ConfigError: when a file that the configuration names can't be used, or an
            endpoint can't be made.
        """
        accessLog = AccessLog(config) if listeners is None else None
        listeners = [accessLog] if accessLog is not None else list(listeners or ())
        files = fileLimit()
        limits = limitsOf(config, files)
        self._pool: Pool | None = None
        if agent is None:
            most = limits.upstreams
            self._pool = Pool(reactor, config.idle_timeout, most, overlap(most))
        announces = listening is None
        self._statusKey = newKey()
        self.via = via or f"hubmirror-{secrets.token_hex(4)}"
        registries = makeRegistries(reactor, config, agent or self._pool, limits.upstreams)
        self.budget = Budget(
            reactor, limits.upstreams, limits.upstreamsOfClient, config.queue_timeout
        )
        streams = Budget(
            reactor,
            sys.maxsize,
            config.client_streams or sys.maxsize,
            config.queue_timeout,
            lambda: TooManyRequests(
                "too many answers to your address are under way", "client-streams", 1
            ),
        )
        mirror = Mirror(
            reactor,
            Settings(config, registries),
            self.budget,
            streams,
            RateTable(reactor, rates),
            self.via.encode("ascii"),
            listeners,
        )
        self.resource: IResource = MirrorResource(mirror, PageResource(mirror))
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
        if listening is None:
            listening = SharingReactor(reactor) if config.reuse_port else reactor
        listening = TLSReactor(listening, plain=config.plain_transport)
        self.endpoints = [makeEndpoint(listening, each) for each in config.port]

        def makeAgain(config: MirrorConfig) -> Registries:
            return makeRegistries(
                reactor, config, agent or self._pool, limits.upstreams, mirror.settings.registries
            )

        certificates = Certificates(reactor, config.port, listening.servers)
        readiness = Readiness(reactor, mirror, self._isBound)
        self.report: Callable[[], dict[str, Any]] | None = None
        adminPort: Any = None
        if config.admin_port is not None:
            self.report = self._makeReporter(reactor, mirror, readiness, certificates, listeners)
            if announces:
                adminPort = makeAdminPort(reactor, config.admin_port, self._findStatus)
        self.service = MirrorService(
            mirror,
            self.site,
            self.endpoints,
            self._pool,
            announces=announces,
            warning=shortage(limits, files),
            certificates=certificates,
            makeRegistries=makeAgain,
            accessLog=accessLog,
            readiness=None if self.report is None else readiness,
            adminPort=adminPort,
        )

    def _isBound(self) -> bool:
        return len(self.service.ports) == len(self.endpoints)

    def _makeReporter(
        self,
        reactor: Any,
        mirror: Mirror,
        readiness: Readiness,
        certificates: Certificates,
        listeners: list[Callable[[Exchange], None]],
    ) -> Callable[[], dict[str, Any]]:
        """
        Have exchanges counted, and make what reports of this process.

        @raise ConfigError: when the package that this needs is not installed.
        """
        try:
            from hubmirror.admin.report import Reporter
        except ImportError:
            raise ConfigError(
                "--admin-port: the package prometheus-client is missing; install hubmirror[admin]"
            ) from None
        metrics = Metrics()
        listeners.append(metrics)
        return Reporter(
            reactor, mirror, self.site, self._pool, metrics, readiness, certificates.expiries
        )

    def _findStatus(self) -> Deferred[Status]:
        """
        The status of a mirror that is one process.
        """
        report = self.report
        return succeed(Status([] if report is None else [report()], key=self._statusKey))


def makeSite(config: MirrorConfig, reactor: Any, agent: IAgent | None = None) -> MirrorSite:
    """
    A site that is a mirror, for C{listen} of any endpoint.
    """
    return HubMirror(reactor, config, agent).site


def makeAdminPort(
    reactor: Any, description: str, find: Callable[[], Deferred[Status]]
) -> AdminPort:
    """
    The admin port of an endpoint description.

    @param find: finds the status that it shows.
    @raise ConfigError: when there can be none.
    """
    # Imports what L{HubMirror} has found to be there.
    from hubmirror.admin.site import AdminPort

    return AdminPort(reactor, makeEndpoint(reactor, description, "admin-port"), find)


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
        accessLog: AccessLog | None,
        readiness: Readiness | None,
        adminPort: AdminPort | None,
    ) -> None:
        """
        @param announces: whether to log where it listens.
        @param warning: to log when it starts.
        @param certificates: of the ports.
        @param makeRegistries: makes the registries of another configuration.
        @param accessLog: follows the configuration, too.
        @param readiness: looks at the registries while the service runs.
        @param adminPort: is open while the service runs, until the last request has ended.
        """
        self._accessLog = accessLog
        self._readiness = readiness
        self._adminPort = adminPort
        self._certificates = certificates
        self._makeRegistries = makeRegistries
        self._warning = warning
        self._announces = announces
        self._mirror = mirror
        self._atStart = mirror.settings.config
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
        if self._readiness is not None:
            self._readiness.start()
        if self._warning is not None:
            self._log.warn("{line}", line=self._warning)
        if self._announces:
            announce(self._mirror.settings.config, self.ports)

    def _listen(self) -> None:
        if self._adminPort is not None:
            self._adminPort.start()
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
        # What can fail comes first.
        registries = self._makeRegistries(config)
        if self._accessLog is not None:
            self._accessLog.configure(config)
        self._mirror.settings = Settings(config, registries)
        self._mirror.streams.mostOfClient = config.client_streams or sys.maxsize
        self._certificates.look()
        waiting = [
            optionName(field)
            for field in options()
            if field.metadata["atStart"]
            and getattr(self._atStart, field.name) != getattr(config, field.name)
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
        if self._readiness is not None:
            self._readiness.stop()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        self._mirror.closing = True
        ports, self.ports = self.ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)
        deadline = self._mirror.reactor.callLater(
            self._mirror.settings.config.drain_timeout, self._endAll
        )
        await gatherResults([self._mirror.active.whenEmpty(), self._site.close()])
        if deadline.active():
            deadline.cancel()
        self._mirror.budget.close()
        self._mirror.streams.close()
        if self._pool is not None:
            await self._pool.close()
        if self._adminPort is not None:
            await self._adminPort.stop()

    def _endAll(self) -> None:
        left = list(self._mirror.active)
        if left:
            self._log.warn("ending {left} requests that took too long", left=len(left))
        for request in left:
            abortRequest(request)
        self._site.abort()
