"""
The whole mirror in memory, with a Clock: its own HTTP/1.1 client is connected to the embedded Hub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.web.client import URI

from hubmirror.protocol.errors import ConnectFailed
from hubmirror.protocol.url import Origin
from hubmirror.testing import Blob, EmbeddedHub, MemoryAgent
from hubmirror.transport.http1client import UpstreamConnection
from tests.faults.table import REPOSITORY, SIZE
from tests.wire.support import Line, MemoryCase

STALL = 15.0


class HubNetwork:
    """
    The network of a C{Connector}, on which there is only the embedded Hub.
    """

    def __init__(self, clock: Clock, agent: MemoryAgent) -> None:
        self._clock = clock
        self._agent = agent

    async def connect(
        self, origin: Origin, released: Callable[[UpstreamConnection], None]
    ) -> UpstreamConnection:
        uri = URI.fromBytes(origin.scheme + b"://" + origin.authority + b"/")
        factory = Factory.forProtocol(lambda: UpstreamConnection(self._clock, False, released))
        factory.noisy = False
        try:
            connection = await self._agent.endpointForURI(uri).connect(factory)
        except (error.ConnectionRefusedError, error.DNSLookupError):
            raise ConnectFailed("connection refused") from None
        assert isinstance(connection, UpstreamConnection)
        return connection


class FaultCase(MemoryCase):
    """
    Tests of a mirror of an embedded Hub.

    @ivar hub: the embedded Hub, which has C{blob} and the image C{latest} in its repository.
    """

    hub: EmbeddedHub
    blob: Blob

    def configure(self, **options: Any) -> None:
        """Create a new Hub and a mirror of it."""
        self.hub = hub = EmbeddedHub(self.clock)
        self._agent = hub.agent()
        self.network: Any = HubNetwork(self.clock, self._agent)
        self.image = hub.addImage(REPOSITORY, "latest", sizes=[1000])
        self.blob = hub.addBlob(REPOSITORY, SIZE)
        super().configure(
            **{
                "registry_url": hub.registryURL,
                "auth_url": hub.authURL,
                "search_url": hub.searchURL,
                **options,
            }
        )

    @property
    def path(self) -> bytes:
        return f"/v2/{REPOSITORY}/blobs/{self.blob.digest}".encode()

    def authorization(self) -> tuple[bytes, bytes]:
        return b"Authorization", b"Bearer " + self.hub.issueToken(REPOSITORY, "pull").encode()

    def move(self, seconds: float = 0) -> None:
        """Transfer all bytes while time passes in small steps."""
        end = self.clock.seconds() + seconds
        self._agent.flush()
        while times := [call.getTime() for call in self.clock.calls if call.getTime() <= end]:
            self.clock.advance(max(0.0, min(times) - self.clock.seconds()))
            self._agent.flush()
        self.clock.advance(end - self.clock.seconds())
        self._agent.flush()

    def waitFor(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        """Let time pass until a condition holds."""
        end = self.clock.seconds() + seconds
        self.move()
        while not condition():
            assert self.clock.seconds() < end, "it never came"
            self.move(0.25)

    def askBlob(self, *fields: tuple[bytes, bytes], line: Line | None = None) -> Line:
        return self.send(self.path, fields=(self.authorization(), *fields), line=line)

    def assertNothingLeft(self) -> None:
        """Check that no timer or connection is left, once the idle connections are closed."""
        self.move(200)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.pool._open, set())
        self.assertEqual(self.mirror.service._mirror.active, set())
