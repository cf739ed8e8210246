"""
The mirror over TCP and TLS on 127.0.0.1, in front of the embedded Hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from hubmirror import HubMirror, MirrorConfig
from hubmirror.exchange import Exchange
from hubmirror.testing import EmbeddedHub
from tests import PLAIN


class Reply(NamedTuple):
    """
    A response with its body.
    """

    status: int
    headers: Headers
    body: bytes

    def field(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else values[-1]

    def json(self) -> Any:
        return json.loads(self.body)


class LoopbackCase(TestCase):
    """
    Tests of mirrors of the embedded Hub.

    @ivar hub: the embedded Hub.
    @ivar exchanges: the exchanges that have ended.
    """

    timeout = 60

    async def setUp(self) -> None:
        self.hub = EmbeddedHub(reactor)
        await self.hub.start()
        self.addCleanup(self.hub.stop)
        self.exchanges: list[Exchange] = []

    def start(self, withReactor: Any = reactor, **options: Any) -> HubMirror:
        """
        Start a mirror of the Hub, on a port without TLS and one with TLS.
        """
        pem = Path(self.mktemp())
        pem.write_bytes(self.hub.serverPEM(["127.0.0.1"]))
        config = MirrorConfig(
            **{
                "port": (
                    "tcp:0:interface=127.0.0.1",
                    f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
                ),
                "registry_url": self.hub.registryURL,
                "auth_url": self.hub.authURL,
                "search_url": self.hub.searchURL,
                "allow_redirects_to": self.hub.cdnOrigin,
                "ca_file": self.hub.caFile,
                "plain_transport": PLAIN,
                **options,
            }
        )
        mirror = HubMirror(withReactor, config, listeners=(self.exchanges.append,))
        mirror.service.startService()
        self.addCleanup(mirror.service.stopService)
        self.plainPort, securePort = (port.getHost().port for port in mirror.service.ports)
        self.plain = f"http://127.0.0.1:{self.plainPort}"
        self.secure = f"https://127.0.0.1:{securePort}"
        # Clients disconnect first, because the mirror would wait for them.
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        trust = trustRootFromCertificates([Certificate.loadPEM(self.hub.caPEM)])
        self.treq = HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trust), pool=pool))
        return mirror

    async def ask(
        self, method: str, url: str, fields: dict[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        response = await self.treq.request(
            method,
            url,
            headers=fields or {},
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=reactor,
        )
        return Reply(response.code, response.headers, await readBody(response))

    async def authorize(self, base: str, scope: str, login: str | None = None) -> dict[str, str]:
        """
        Get a token as a client does, in accordance with the challenge from the mirror.

        @return: the fields for further requests.
        """
        challenged = await self.ask("GET", f"{base}/v2/")
        assert challenged.status == 401, challenged
        challenge = challenged.field("WWW-Authenticate") or ""
        parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        assert parameters["realm"] == f"{base}/token", challenge
        url = f"{parameters['realm']}?service={parameters['service']}&scope={scope}"
        reply = await self.ask("GET", url, {"Authorization": login} if login else None)
        assert reply.status == 200, reply
        return {"Authorization": f"Bearer {reply.json()['token']}"}

    async def pull(self, base: str, repository: str, reference: str) -> list[bytes]:
        """
        Pull an image as a client does, and check all digests.

        @return: the layers of all its platforms.
        """
        fields = await self.authorize(base, f"repository:{repository}:pull")
        url = f"{base}/v2/{repository}"
        top = await self.ask("GET", f"{url}/manifests/{reference}", fields)
        assert top.field("Docker-Content-Digest") == digestOf(top.body), top
        entries = top.json().get("manifests")
        manifests = [top.body]
        if entries is not None:
            manifests = [
                await self._get(f"{url}/manifests", entry["digest"], fields) for entry in entries
            ]
        layers = []
        for manifest in map(json.loads, manifests):
            await self._get(f"{url}/blobs", manifest["config"]["digest"], fields)
            layers += [
                await self._get(f"{url}/blobs", layer["digest"], fields)
                for layer in manifest["layers"]
            ]
        return layers

    async def _get(self, url: str, digest: str, fields: dict[str, str]) -> bytes:
        reply = await self.ask("GET", f"{url}/{digest}", fields)
        assert reply.status == 200, reply
        assert digestOf(reply.body) == digest
        return reply.body


def digestOf(body: bytes) -> str:
    return f"sha256:{sha256(body).hexdigest()}"


def turn(seconds: float = 0) -> Deferred[None]:
    """
    Let the reactor handle other events.
    """
    return deferLater(reactor, seconds, lambda: None)


async def until(condition: Callable[[], bool]) -> None:
    """
    Wait until events of other connections make a condition true.
    """
    while not condition():
        await turn(0.005)


async def settled(figure: Callable[[], int]) -> int:
    """
    Wait until a figure stops growing, and return it.  If the wait is too short, the figure can only
    be too small, so that a slow machine makes no test of an upper limit fail.
    """
    last, same = -1, 0
    while same < 20:
        current = figure()
        same = same + 1 if current == last else 0
        last = current
        await turn(0.01)
    return last
