"""
The mirror over TLS on loopback, between the embedded Hub and a client, all in this process: for the
tests, and for the figures in the documentation.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers

from hubmirror import HubMirror, MirrorConfig
from hubmirror.exchange import Exchange
from hubmirror.testing import EmbeddedHub
from tests import PLAIN
from tests.faults.table import REPOSITORY, SIZE, Fault, Setting

STALL, LONG_STALL = 0.5, 3.5
"""
Seconds after which the mirror takes an upstream for stalled; the longer so that what is good for
whole seconds expires meanwhile, but not before.
"""


class Got(NamedTuple):
    """
    What a client has received of a response.

    @ivar isWhole: whether the response ended properly.
    """

    status: int
    body: bytes
    isWhole: bool


class Body(Protocol):
    """
    Receives a body, and fires with it and the reason for its end.

    @ivar data: the bytes so far.
    """

    def __init__(self) -> None:
        self.ended: Deferred[bool] = Deferred()
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.ended.callback(reason.check(ResponseDone) is not None)


class Stand:
    """
    The embedded Hub and mirrors of it.

    @ivar hub: the embedded Hub.
    @ivar blob: the blob that is pulled.
    @ivar exchanges: the mirror's exchanges that have ended.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.hub = EmbeddedHub(reactor)
        self.blob = self.hub.addBlob(REPOSITORY, SIZE)
        self.exchanges: list[Exchange] = []

    async def start(self, fallback: bool = False, **options: Any) -> None:
        """Start the Hub, and a mirror of it."""
        hub = self.hub
        await hub.start()
        with tempfile.NamedTemporaryFile(suffix=".pem") as pem:
            Path(pem.name).write_bytes(hub.serverPEM(["127.0.0.1"]))
            port = f"ssl:0:interface=127.0.0.1:privateKey={pem.name}:certKey={pem.name}"
            config = MirrorConfig(
                **{
                    "port": port,
                    "registry_url": hub.registryURL,
                    "auth_url": hub.authURL,
                    "search_url": hub.searchURL,
                    "fallback": (hub.mirrorURL,) if fallback else (),
                    "allow_redirects_to": "127.0.0.0/8",
                    "ca_file": hub.caFile,
                    "plain_transport": PLAIN,
                    "stall_timeout": STALL,
                    **options,
                }
            )
            self._mirror = HubMirror(self.reactor, config, listeners=(self.exchanges.append,))
        self._mirror.service.startService()
        [listening] = self._mirror.service.ports
        self.url = f"https://127.0.0.1:{listening.getHost().port}"
        trust = trustRootFromCertificates([Certificate.loadPEM(hub.caPEM)])
        self._pool = HTTPConnectionPool(self.reactor)
        self._agent = Agent(self.reactor, BrowserLikePolicyForHTTPS(trust), pool=self._pool)

    async def stop(self) -> None:
        # Clients disconnect first, because the mirror would wait for them.
        await self._pool.closeCachedConnections()
        await self._mirror.service.stopService()
        await self.hub.stop()

    async def get(self, path: str, fields: dict[str, str] | None = None) -> Got:
        """Send a request with a token, and receive as much of the response as there is."""
        token = self.hub.issueToken(REPOSITORY, "pull")
        headers = {"Authorization": f"Bearer {token}", **(fields or {})}
        raw = Headers({name: [value] for name, value in headers.items()})
        response = await self._agent.request(b"GET", f"{self.url}{path}".encode(), raw, None)
        body = Body()
        response.deliverBody(body)
        isWhole = await body.ended
        return Got(response.code, body.data, isWhole)

    @property
    def path(self) -> str:
        return f"/v2/{REPOSITORY}/blobs/{self.blob.digest}"

    async def suffer(self, fault: Fault) -> Got:
        """Start a mirror, and pull the blob through it while a fault is simulated."""
        stall = LONG_STALL if fault.expires else STALL
        await self.start(fault.fallback, stall_timeout=stall, **fault.options)
        fault.inject(Setting(self.hub, self.blob, self.reactor, stall))
        return await self.get(self.path, {"Range": fault.range} if fault.range else {})
