"""
Two ways to send requests to the embedded Hub in a test: in memory, and over TLS on loopback.
"""

import json
from dataclasses import dataclass
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    readBody,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from hubmirror.testing import EmbeddedHub


@dataclass
class Reply:
    """
    A response with its body.
    """

    status: int
    headers: Headers
    length: int
    body: bytes

    def field(self, name: str) -> str | None:
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """
        The code of a registry's error.
        """
        [error] = self.json()["errors"]
        return error["code"]


class MemoryCase(SynchronousTestCase):
    """
    Tests without sockets, with a Clock.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.hub = EmbeddedHub(self.clock)
        self.agent = self.hub.agent()

    def ask(
        self,
        method: str,
        url: str,
        fields: dict[str, str] | None = None,
        body: bytes | None = None,
        token: str | None = None,
    ) -> Reply:
        headers = Headers({name: [value] for name, value in (fields or {}).items()})
        if token is not None:
            headers.setRawHeaders("Authorization", [f"Bearer {token}"])
        producer = None if body is None else _BytesProducer(body)
        response = self.successResultOf(
            self.agent.request(method.encode(), url.encode(), headers, producer)
        )
        read = readBody(response)
        self.agent.flush()
        return Reply(response.code, response.headers, response.length, self.successResultOf(read))

    def token(self, *scopes: str, fields: dict[str, str] | None = None) -> str:
        query = "".join(f"&scope={scope}" for scope in scopes)
        url = f"{self.hub.authURL}?service=registry.docker.io{query}"
        return self.ask("GET", url, fields).json()["token"]


class LoopbackCase(TestCase):
    """
    Tests over TLS on 127.0.0.1.
    """

    timeout = 30

    async def setUp(self) -> None:
        self.hub = EmbeddedHub(reactor)
        await self.hub.start()
        self.addCleanup(self.hub.stop)
        self.pool = HTTPConnectionPool(reactor)
        # Each request is recorded once, whatever its outcome.
        self.pool.retryAutomatically = False
        self.addCleanup(self.pool.closeCachedConnections)
        self.treq = HTTPClient(Agent(reactor, trusting(self.hub), pool=self.pool))

    async def ask(
        self, method: str, url: str, token: str | None = None, **fields: str
    ) -> IResponse:
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        return await self.treq.request(
            method,
            url,
            headers={name.replace("_", "-"): value for name, value in fields.items()},
            allow_redirects=False,
            unbuffered=True,
            reactor=reactor,
        )

    async def token(self, scope: str) -> str:
        response = await self.ask("GET", f"{self.hub.authURL}?scope={scope}")
        return (await treq.json_content(response))["token"]

    async def link(self, repository: str, digest: str) -> str:
        """
        The signed URL of a blob.
        """
        response = await self.ask(
            "GET",
            f"{self.hub.registryURL}/v2/{repository}/blobs/{digest}",
            await self.token(f"repository:{repository}:pull"),
        )
        await readBody(response)
        [location] = response.headers.getRawHeaders("Location")
        return location


def trusting(hub: EmbeddedHub) -> BrowserLikePolicyForHTTPS:
    """
    A policy that trusts only the Hub's CA.
    """
    ca = Certificate.loadPEM(hub.caPEM)
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates([ca]))


@implementer(IBodyProducer)
class _BytesProducer:
    """
    A request body that is written at once.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass
