"""
Tests of which upstream a request with the mirror's own credentials belongs to.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import RegistryConfig
from hubmirror.upstream.accounts import Accounts
from hubmirror.upstream.policy import Service, upstreamsOf
from tests.upstream.support import RecordingAgent

MANIFEST = b"/v2/o/a/manifests/1"


class UpstreamOfTests(SynchronousTestCase):
    def configure(self, *fallback: str) -> None:
        config = RegistryConfig(name="r.example", fallback=list(fallback))
        self.upstreams = upstreamsOf(config)
        services = cast(Any, None)
        self.accounts = Accounts(Clock(), RecordingAgent(), self.upstreams, services, ())

    def test_prefixes(self) -> None:
        """The URLs of one upstream may begin with the base URL of another."""
        for fallback in (
            ("https://f.example",),
            ("https://r.example/mirror",),
            ("https://f.example", "https://f.example/v2/r.example"),
            ("https://f.example/v2/r.example", "https://f.example"),
            ("https://f.example/?ns", "https://f.example/a/?ns"),
        ):
            self.configure(*fallback)
            for upstream in self.upstreams:
                uri = upstream.url(Service.REGISTRY, MANIFEST)
                self.assertIs(self.accounts.upstreamOf(uri), upstream, uri)

    def test_uploads(self) -> None:
        """Some registries have their uploads outside of C{/v2/}."""
        self.configure("https://r.example/mirror")
        registry, fallback = self.upstreams
        for uri, owner in (
            (b"https://r.example/uploads/1", registry),
            (b"https://r.example/mirror/uploads/1", fallback),
            (b"https://r.example.evil/v2/", None),
            (b"https://cdn.example/v2/x", None),
        ):
            self.assertIs(self.accounts.upstreamOf(uri), owner, uri)
