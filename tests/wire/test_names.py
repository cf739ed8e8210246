"""
Tests of names that do not resolve: the mirror starts without them, and uses them as soon as they
resolve.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface import implementer

from tests.transport.support import ResolvingReactor
from tests.wire.loopback import LoopbackCase


@implementer(IHostnameResolver, IHostResolution)
class Names:
    """
    A resolver.

    @ivar known: the names that resolve, with their addresses.
    """

    name = "a name"

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *args: Any, **kwargs: Any
    ) -> Any:
        receiver.resolutionBegan(self)
        if hostName in self.known:
            receiver.addressResolved(IPv4Address("TCP", self.known[hostName], portNumber))
        receiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        pass


class NameTests(LoopbackCase):
    async def test_later(self) -> None:
        """
        As long as names do not resolve, the response is an error; then the mirror works at once.
        """
        names = Names()
        url = self.hub.registryURL.replace("127.0.0.1", "localhost")
        self.start(ResolvingReactor(reactor, names), registry_url=url)
        for _ in range(2):
            reply = await self.ask("GET", f"{self.plain}/v2/")
            self.assertEqual(reply.status, 502)
            [error] = reply.json()["errors"]
            self.assertEqual(error["code"], "UNAVAILABLE")
            self.assertIn("the name does not resolve", error["message"])
        names.known["localhost"] = "127.0.0.1"
        reply = await self.ask("GET", f"{self.plain}/v2/")
        self.assertEqual(reply.status, 401)

    async def test_privateAddress(self) -> None:
        """
        A redirect to a name whose address is not public is not followed: the address counts, not
        the name.
        """
        names = Names()
        names.known["localhost"] = "127.0.0.1"
        names.known["127.0.0.1"] = "127.0.0.1"
        self.start(ResolvingReactor(reactor, names), allow_redirects_to=())
        cdn = self.hub.cdnOrigin.replace("127.0.0.1", "localhost")
        self.hub.registry.fail(307, b"", {"Location": f"{cdn}/x?signature"})
        reply = await self.ask("GET", f"{self.plain}/v2/library/hello/blobs/sha256:00")
        self.assertEqual(reply.status, 502)
        self.assertIn(b"127.0.0.1", reply.body)
        self.assertNotIn(b"signature", reply.body)
        self.assertEqual(self.hub.connections("cdn"), 0)

    async def test_allowedAddress(self) -> None:
        names = Names()
        names.known["localhost"] = "127.0.0.1"
        names.known["127.0.0.1"] = "127.0.0.1"
        self.start(ResolvingReactor(reactor, names), allow_redirects_to="127.0.0.0/8")
        cdn = self.hub.cdnOrigin.replace("127.0.0.1", "localhost")
        self.hub.registry.fail(307, b"", {"Location": f"{cdn}/x?signature"})
        await self.ask("GET", f"{self.plain}/v2/library/hello/blobs/sha256:00")
        self.assertEqual(self.hub.connections("cdn"), 1)


class TrustTests(LoopbackCase):
    """
    Upstream certificates are always verified.
    """

    async def test_otherAuthority(self) -> None:
        self.start(ca_file=None)
        reply = await self.ask("GET", f"{self.plain}/v2/")
        self.assertEqual(reply.status, 502)
        self.assertIn(b"its certificate does not verify", reply.body)
        self.assertEqual(self.hub.registry.seen, [])

    async def test_otherName(self) -> None:
        names = Names()
        names.known["other.example"] = "127.0.0.1"
        url = self.hub.registryURL.replace("127.0.0.1", "other.example")
        self.start(ResolvingReactor(reactor, names), registry_url=url)
        reply = await self.ask("GET", f"{self.plain}/v2/")
        self.assertEqual(reply.status, 502)
        self.assertIn(b"its certificate is for another name", reply.body)
        self.assertEqual(self.hub.registry.seen, [])

    async def test_redirectTarget(self) -> None:
        """The target of a redirect must have a certificate for its own name."""
        self.start(allow_redirects_to="127.0.0.0/8")
        self.hub.registry.fail(307, b"", {"Location": f"{self.hub.cdnOrigin}/"})
        await self.ask("GET", f"{self.plain}/v2/library/hello/blobs/sha256:00")
        [seen] = self.hub.cdn.seen
        self.assertEqual(seen.field("Host"), self.hub.cdnOrigin.removeprefix("https://"))
