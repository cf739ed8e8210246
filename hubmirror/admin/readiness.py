"""
Determines whether a mirror is ready: whether it has lately had a response from an upstream of each
registry.  If clients have not requested anything of a registry for a while, the mirror itself sends
a request to it.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from hubmirror.downstream.incoming import Registries
from hubmirror.downstream.proxy import Mirror
from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import MirrorError
from hubmirror.protocol.target import Kind, readTarget
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.health import Health
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry

LOOK_EVERY = 10.0
"""
Seconds between two checks of all registries.
"""
FRESH = 30.0
"""
Seconds without a response after which the mirror sends a request to a registry.
"""
STALE = 60.0
"""
Seconds without a response after which a registry counts as unreachable.
"""

_PING = readTarget(b"/v2/")


class Readiness:
    """
    Checks the registries of a mirror periodically.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, mirror: Mirror, isBound: Callable[[], bool]) -> None:
        """
        @param isBound: returns whether the mirror's ports are bound.
        """
        self._reactor = reactor
        self._mirror = mirror
        self._isBound = isBound
        self._asking: set[Health] = set()
        self._added: set[Health] = set()
        self._problems: dict[bytes, str] = {}
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Begin to check the registries.
        """
        self._looking.start(LOOK_EVERY)

    def stop(self) -> None:
        """
        Stop checking the registries.
        """
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """
        Send a request to each registry that has sent no response lately.
        """
        for name, registry in self._mirror.settings.registries.items():
            if registry.health not in self._asking and not self._wasReached(registry, FRESH):
                self._asking.add(registry.health)
                Deferred.fromCoroutine(self._ask(name, registry))

    def reloaded(self, previous: Registries) -> None:
        """
        The mirror has other registries.  Those that have inherited nothing are asked at once, and
        do not make the mirror unready before the result is known.

        @param previous: the registries that it had.
        """
        if self._looking.running:
            known = {registry.health for registry in previous.values()} - self._added
            self._added = {
                registry.health for registry in self._mirror.settings.registries.values()
            } - known
            self.look()

    async def _ask(self, name: bytes, registry: Registry) -> None:
        exchange = Exchange(b"GET", _PING.raw, None, self._reactor.seconds())
        exchange.kind = Kind.PING
        headers = Headers({"User-Agent": ["hubmirror"], "Accept-Encoding": ["identity"]})
        try:
            answer = await registry.ask(exchange, Service.REGISTRY, _PING, _PING.raw, headers, None)
            discard(answer, self._reactor)
            self._problems.pop(name, None)
        except MirrorError as error:
            self._problems[name] = error.message
        except Exception:
            self._log.failure("a defect of the mirror")
        finally:
            self._asking.discard(registry.health)
            self._added.discard(registry.health)

    def _wasReached(self, registry: Registry, seconds: float) -> bool:
        last = registry.lastAnswer()
        return last is not None and self._reactor.seconds() - last <= seconds

    def whyNot(self) -> str | None:
        """
        The reason why the mirror is not ready, in one line; C{None} when it is ready.
        """
        if self._mirror.draining:
            return "the mirror is shutting down"
        if not self._isBound():
            return "the mirror does not listen yet"
        for name, registry in self._mirror.settings.registries.items():
            if registry.health not in self._added and not self._wasReached(registry, STALE):
                problem = self._problems.get(name, "it has not answered yet")
                return f"no upstream of {registry.name} was reached lately: {problem}"
        return None
