"""
Whether a mirror can serve: an upstream of each registry was reached lately.  Where no client has
asked for long, the mirror asks by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from hubmirror.downstream.proxy import Mirror
from hubmirror.exchange import Exchange
from hubmirror.protocol.errors import MirrorError
from hubmirror.protocol.target import Kind, readTarget
from hubmirror.upstream.bodies import discard
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry

LOOK_EVERY = 10.0
FRESH = 30.0
STALE = 60.0
"""
Seconds between two looks, until a registry that nobody has asked is asked, and until it counts as
unreachable.
"""

_PING = readTarget(b"/v2/")


class Readiness:
    """
    Looks at the registries of a mirror.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, mirror: Mirror, isBound: Callable[[], bool]) -> None:
        """
        @param isBound: whether the mirror's ports are bound.
        """
        self._reactor = reactor
        self._mirror = mirror
        self._isBound = isBound
        self._asking: set[bytes] = set()
        self._problems: dict[bytes, str] = {}
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Begin to look at the registries.
        """
        self._looking.start(LOOK_EVERY)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """
        Ask each registry that was not reached lately.
        """
        for name, registry in self._mirror.settings.registries.items():
            if name not in self._asking and not self._wasReached(registry, FRESH):
                self._asking.add(name)
                Deferred.fromCoroutine(self._ask(name, registry))

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
            self._asking.discard(name)

    def _wasReached(self, registry: Registry, seconds: float) -> bool:
        last = registry.lastAnswer()
        return last is not None and self._reactor.seconds() - last <= seconds

    def whyNot(self) -> str | None:
        """
        Why the mirror can't serve, in one line; C{None} when it can.
        """
        if self._mirror.draining:
            return "the mirror is shutting down"
        if not self._isBound():
            return "the mirror does not listen yet"
        for name, registry in self._mirror.settings.registries.items():
            if not self._wasReached(registry, STALE):
                problem = self._problems.get(name, "it has not answered yet")
                return f"no upstream of {registry.name} was reached lately: {problem}"
        return None
