"""
Tests of the agents as a configuration combines them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror import MirrorConfig
from hubmirror.protocol.errors import UpstreamsFailed
from hubmirror.protocol.target import Kind, readTarget
from hubmirror.upstream.policy import Service
from hubmirror.upstream.registry import Registry
from tests.upstream.support import RecordingAgent, Response, newExchange


class ClientTests(SynchronousTestCase):
    def configure(self, *, asksAnonymously: bool = False, **options: Any) -> None:
        self.clock = Clock()
        self.inner = RecordingAgent()
        self.exchange = newExchange()
        config = MirrorConfig(port=(), **options)
        self.registry = Registry(
            self.clock,
            config,
            config.allRegistries()[0],
            self.inner,
            asksAnonymously=asksAnonymously,
        )

    def ask(self, service: Service = Service.REGISTRY, target: bytes = b"/v2/a") -> Deferred[Any]:
        return Deferred.fromCoroutine(
            self.registry.ask(self.exchange, service, readTarget(b"/v2/a"), target, Headers(), None)
        )

    def test_hub(self) -> None:
        """By default, all three services are those of Docker Hub."""
        self.configure()
        for service, target in (
            (Service.REGISTRY, b"/v2/"),
            (Service.TOKEN, b"?a"),
            (Service.SEARCH, b"/v1/search"),
        ):
            self.ask(service, target)
        self.assertEqual(
            self.inner.uris,
            [
                b"https://registry-1.docker.io/v2/",
                b"https://auth.docker.io/token?a",
                b"https://index.docker.io/v1/search",
            ],
        )

    def test_fallbacks(self) -> None:
        """A fallback is a mirror: all three services are below its URL."""
        self.configure(fallback=("https://a.example", "https://b.example:444/m/"))
        for service, target, uri in (
            (Service.REGISTRY, b"/v2/", b"/v2/"),
            (Service.TOKEN, b"?a", b"/token?a"),
            (Service.SEARCH, b"/v1/search", b"/v1/search"),
        ):
            asking = self.ask(service, target)
            self.inner.answer(Response(503))
            self.assertEqual(self.inner.uris[-1], b"https://a.example" + uri)
            self.inner.answer(Response(503))
            self.assertEqual(self.inner.uris[-1], b"https://b.example:444/m" + uri)
            self.inner.answer(Response(200))
            self.successResultOf(asking)
            self.assertEqual(self.exchange.upstream, "b.example:444/m")

    def test_redirectsOfEach(self) -> None:
        """Redirects of every upstream are followed; if one fails, the next upstream is asked."""
        self.configure(fallback=("https://a.example",))
        asking = self.ask()
        for location in (b"https://cdn.example/1", b"http://cdn.example/2"):
            self.inner.answer(Response(307, Location=location))
        self.assertEqual(self.inner.uris[1:], [b"https://cdn.example/1", b"https://a.example/v2/a"])
        self.inner.answer(Response(302, Location=b"/x"))
        self.inner.answer(Response(200))
        self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(self.inner.uris[-1], b"https://a.example/x")

    def test_statusOfTheTarget(self) -> None:
        """
        A temporary failure of a CDN makes the next upstream be asked, like one of the registry.
        """
        self.configure(fallback=("https://a.example",))
        self.ask()
        self.inner.answer(Response(307, Location=b"https://cdn.example/1"))
        self.inner.answer(Response(503))
        self.assertEqual(self.inner.uris[-1], b"https://a.example/v2/a")

    def test_failoverOn(self) -> None:
        self.configure(fallback=("https://a.example",), failover_on="500")
        asking = self.ask()
        self.inner.answer(Response(503))
        self.assertEqual(self.successResultOf(asking).code, 503)
        self.ask()
        self.inner.answer(Response(500))
        self.assertEqual(self.inner.uris[-1], b"https://a.example/v2/a")

    def test_responseTimeout(self) -> None:
        """The timeout for a head includes redirects."""
        self.configure(response_timeout=4)
        asking = self.ask()
        self.clock.advance(3)
        self.inner.answer(Response(307, Location=b"https://cdn.example/1"))
        self.clock.advance(0.9)
        self.assertNoResult(asking)
        self.clock.advance(0.1)
        self.failureResultOf(asking, UpstreamsFailed)
        self.assertEqual(self.inner.cancelled, [b"https://cdn.example/1"])

    def test_anonymousQuota(self) -> None:
        """Pulls with the mirror's own anonymous token are counted like those of its clients."""
        self.configure(asksAnonymously=True)
        self.exchange.kind = Kind.MANIFEST
        asking = self.ask()
        self.inner.answer(
            Response(
                401,
                0,
                b"",
                WWW_Authenticate=b'Bearer realm="https://auth.docker.io/token"',
            )
        )
        self.inner.answer(Response(200, None, b'{"token":"abc"}'))
        self.inner.answer(Response(200, RateLimit_Remaining=b"7;w=60"))
        self.successResultOf(asking)
        [known] = self.registry.quotas.known()
        self.assertEqual((known.isAnonymous, known.remaining), (True, 7))

    def test_path(self) -> None:
        self.configure(
            registry_url="https://a.example/x/y", fallback=("https://b.example", "https://c/z")
        )
        for name, path in (
            ("a.example/x/y", b"/x/y"),
            ("b.example", b""),
            ("c/z", b"/z"),
            (None, b"/x/y"),
        ):
            self.assertEqual(self.registry.upstream(name).spelling.before, path)
