"""
The composition root, which creates a mirror from its parts, and starts, reloads, drains and stops
it.
"""

from __future__ import annotations

import mmap
import resource
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, succeed
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
from hubmirror.listening import Certificates, makeEndpoint
from hubmirror.operations.accesslog import AccessLog
from hubmirror.operations.banner import announce, warn
from hubmirror.page.resource import PageResource
from hubmirror.protocol.errors import TooManyRequests
from hubmirror.registries import makeRegistries
from hubmirror.transport.closingports import closePort
from hubmirror.transport.pool import Pool
from hubmirror.transport.sharedports import SharingReactor
from hubmirror.transport.tlsendpoints import TLSReactor

if TYPE_CHECKING:
    # The module needs prometheus-client, which is optional.
    from hubmirror.admin.site import AdminPort


class HubMirror:
    """
    A mirror, which can be embedded in any Twisted service.

    @ivar resource: the mirror's resource tree, for use in another site; C{putChild} adds resources
        beside those of the mirror.
    @ivar site: the mirror's own site.  Unlike Twisted's, it streams the bodies of pushes.
    @ivar service: listens on C{config.port}, and drains the mirror when it is stopped.  With an
        empty C{port} it does only the latter.
    @ivar endpoints: the endpoints that the service listens on.
    @ivar budget: counts the requests that use an upstream, and those that wait for their turn.
    @ivar report: creates the report of this process; C{None} when there is no admin port.
    @ivar via: the mirror's name in C{Via} (RFC 9110 7.6.3).  It is unique, so that two mirrors that
        are each other's fallback detect the loop.
    @ivar key: the key of the hashes that stand for the identities of clients.
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
        key: bytes | None = None,
        rates: mmap.mmap | None = None,
    ) -> None:
        """
        @param agent: sends requests to upstreams; by default an agent with the mirror's own
            connection pool.
        @param listeners: called with each exchange when it has ended; by default, the access log.
        @param listening: the reactor to listen with, if it is not C{reactor}.  This is for workers,
            whose supervisor has already bound and announced the ports.
        @param via: the mirror's name in C{Via}; by default a random name.
        @param key: the key of the hashes that stand for the identities of clients, shared with
            other processes; by default a random one.
        @param rates: memory for the clients' use of their limits, shared with other processes
            that have the same C{key} (L{hubmirror.downstream.rates}); by default, the mirror has
            memory of its own.
        @raise ConfigError: when a file that the configuration names can't be used, or an endpoint
            can't be created.
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
        self.via = via or f"hubmirror-{secrets.token_hex(4)}"
        self.key = key or newKey()
        registries = makeRegistries(
            reactor, config, agent or self._pool, limits.upstreams, self.key
        )
        self.budget = Budget(
            reactor, limits.upstreams, limits.upstreamsOfClient, config.queue_timeout
        )
        streams = Budget(
            reactor,
            sys.maxsize,
            config.client_streams or sys.maxsize,
            config.queue_timeout,
            lambda: TooManyRequests(
                "too many responses to your address are in progress", "client-streams", 1
            ),
            "responses to clients",
        )
        mirror = Mirror(
            reactor,
            Settings(config, registries),
            self.budget,
            streams,
            RateTable(reactor, rates, self.key),
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
            clientTimeout=config.client_timeout,
            maxHead=config.max_head,
            plain=config.plain_transport,
            bodyLimits=mirror.bodyLimits,
            onRefused=mirror.refused,
        )
        if listening is None:
            listening = SharingReactor(reactor) if config.reuse_port else reactor
        listening = TLSReactor(listening, plain=config.plain_transport)
        self.endpoints = [makeEndpoint(listening, each) for each in config.port]

        def makeAgain(config: MirrorConfig) -> Registries:
            return makeRegistries(
                reactor,
                config,
                agent or self._pool,
                limits.upstreams,
                self.key,
                mirror.settings.registries,
            )

        certificates = Certificates(reactor, config.port, listening.servers, listening.folders)
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
        Add a listener that counts exchanges, and create the reporter of this process.

        @raise ConfigError: when prometheus-client is not installed.
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
        The status of a mirror that has only one process.
        """
        report = self.report
        return succeed(Status([] if report is None else [report()], key=self.key))


def makeSite(config: MirrorConfig, reactor: Any, agent: IAgent | None = None) -> MirrorSite:
    """
    Create the site of a mirror, which can be passed to the C{listen} method of any endpoint.

    @param agent: as for L{HubMirror}.
    @raise ConfigError: as for L{HubMirror}.
    """
    return HubMirror(reactor, config, agent).site


def makeAdminPort(
    reactor: Any, description: str, find: Callable[[], Deferred[Status]]
) -> AdminPort:
    """
    Create the admin port of an endpoint description.

    @param find: returns a deferred that fires with the status.
    @raise ConfigError: when the endpoint can't be created.
    """
    # L{HubMirror} has already checked that prometheus-client is installed.
    from hubmirror.admin.site import AdminPort

    listening = TLSReactor(reactor, plain=True)
    endpoint = makeEndpoint(listening, description, "admin-port")
    certificates = Certificates(reactor, [description], listening.servers, listening.folders)
    return AdminPort(reactor, endpoint, find, certificates)


def fileLimit() -> int:
    """
    How many files this process may have open: its soft limit (getrlimit(2)).
    """
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


class MirrorService(Service):
    """
    A service that listens while it runs.  When it is stopped, requests in progress have
    C{drain_timeout} seconds to end.

    @ivar ports: the ports on which the service listens.
    @ivar closed: called when the service is stopped and its ports are closed, before the requests
        in progress have ended.
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
        @param pool: the connections to upstreams, which are closed last; C{None} when there is
            another agent.
        @param announces: whether to log the addresses that the service listens on.
        @param warning: a warning to log when the service starts.
        @param certificates: the certificates of the ports.
        @param makeRegistries: creates the registries of another configuration.
        @param accessLog: the access log, which gets another configuration as well.
        @param readiness: checks the registries while the service runs.
        @param adminPort: the admin port, which is open until the last request has ended.
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
        self.closed: Callable[[], object] = lambda: None

    def privilegedStartService(self) -> None:
        """
        Bind the ports while the process still has the privilege to do so.

        @raise CannotListenError: when a port is in use, or the process may not bind it.
        """
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        """
        Bind the ports unless L{privilegedStartService} has done so, and start the periodic checks.

        @raise CannotListenError: as L{privilegedStartService}.
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
        Use another configuration for new requests; requests in progress keep the settings with
        which they began.  Changed options that take effect only at the start are logged.

        @raise ConfigError: when the configuration can't be used; then nothing is changed.
        """
        # This comes first because it can fail.
        registries = self._makeRegistries(config)
        previous = self._mirror.settings.registries
        if self._accessLog is not None:
            self._accessLog.configure(config)
        self._mirror.settings = Settings(config, registries)
        self._mirror.streams.mostOfClient = config.client_streams or sys.maxsize
        self._site.clientTimeout = config.client_timeout
        self._certificates.look()
        if self._readiness is not None:
            self._readiness.reloaded(previous)
        waiting = [
            optionName(field)
            for field in options()
            if field.metadata["atStart"]
            and getattr(self._atStart, field.name) != getattr(config, field.name)
        ]
        self._log.info("the configuration has been read again")
        if self._announces and self.ports:
            warn(config)
        if waiting:
            self._log.warn(
                "these take effect when the mirror is started again: {options}",
                options=", ".join(waiting),
            )

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, wait for the requests in progress and abort the rest.  A connection that has
        been established gets its first request served; a kept one is closed when it is idle.

        @return: a deferred that fires when all connections are closed.
        """
        super().stopService()
        self._certificates.stop()
        if self._readiness is not None:
            self._readiness.stop()
        return Deferred.fromCoroutine(self._drain())

    async def _drain(self) -> None:
        mirror = self._mirror
        mirror.draining = True
        deadline = mirror.reactor.callLater(mirror.settings.config.drain_timeout, self._endAll)
        self._site.close()
        ports, self.ports = self.ports, []
        await gatherResults([closePort(mirror.reactor, port) for port in ports])
        self.closed()
        await self._site.whenEmpty()
        # Another site may still pass requests on.
        mirror.closing = True
        await mirror.active.whenEmpty()
        if deadline.active():
            deadline.cancel()
        self._mirror.budget.close()
        self._mirror.streams.close()
        if self._pool is not None:
            await self._pool.close()
        if self._adminPort is not None:
            await self._adminPort.stop()

    def _endAll(self) -> None:
        self._mirror.closing = True
        left = list(self._mirror.active)
        if left:
            self._log.warn("drain-timeout has passed: aborting {left} requests", left=len(left))
        for request in left:
            abortRequest(request)
        self._site.abort()
