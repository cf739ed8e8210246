"""
Tests of the settings of one registry: the built-in ones, and the effect of the Hub's options.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import Account, ConfigError, MirrorConfig, RegistryConfig
from hubmirror.config.known import known, knownNames

BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": "ghcr.io/owner"}, "what stands before the first slash"),
    ({"name": "ghcr.io", "url": "ghcr.io"}, "https://mirror.example"),
    ({"name": "ghcr.io", "hosts": ["https://ghcr.mirror.example"]}, "no host name"),
    ({"name": "ghcr.io", "pass_credentials": "yes"}, "neither true nor false"),
    ({"name": "ghcr.io", "account": [{"username": "a"}]}, "a username and a password_file"),
    ({"name": "ghcr.io", "fallback": "https://a.example/?x"}, "no query"),
]


class RegistryConfigTests(SynchronousTestCase):
    def test_known(self) -> None:
        """The name of a well-known registry is enough."""
        for name, url, tokens in (
            ("docker.io", "https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("ghcr.io", "https://ghcr.io", "https://ghcr.io/token"),
            ("gcr.io", "https://gcr.io", "https://gcr.io/v2/token"),
            (
                "europe-docker.pkg.dev",
                "https://europe-docker.pkg.dev",
                "https://europe-docker.pkg.dev/v2/token",
            ),
            ("registry.k8s.io", "https://registry.k8s.io", None),
            ("registry.example:5000", "https://registry.example:5000", None),
        ):
            config = RegistryConfig(name=name)
            self.assertEqual((config.registryURL, config.tokenURL), (url, tokens), name)

    def test_table(self) -> None:
        """Each row of the table is a registry that can be configured by its name alone."""
        for name in knownNames():
            row = known(name)
            assert row is not None
            self.assertEqual(RegistryConfig(name=name).registryURL, row.url)
            if row.auth_url is not None:
                self.assertTrue(row.auth_url.startswith("https://"), name)

    def test_otherURL(self) -> None:
        """The built-in token service is not used when a well-known registry has another URL."""
        config = RegistryConfig(name="ghcr.io", url="https://ghcr.corp.example")
        self.assertIs(config.tokenURL, None)

    def test_bad(self) -> None:
        for options, advice in BAD:
            error = self.assertRaises(ConfigError, RegistryConfig, **options)
            self.assertIn(advice, str(error))

    def test_fallbacks(self) -> None:
        config = RegistryConfig(
            name="ghcr.io",
            fallback=[
                "https://a.example/",
                "https://a.example/v2/ghcr.io",
                "https://b.example/?ns",
            ],
        )
        self.assertEqual(
            config.fallback,
            ("https://a.example", "https://a.example/v2/ghcr.io", "https://b.example/?ns"),
        )


class AllRegistriesTests(SynchronousTestCase):
    def test_hubAlone(self) -> None:
        """The Hub does not have to be named, and has the options of the command line."""
        [hub] = MirrorConfig(fallback="https://a.example", proxy="http://p:1").allRegistries()
        self.assertEqual(hub.name, "docker.io")
        self.assertEqual(hub.registryURL, "https://registry-1.docker.io")
        self.assertEqual(hub.tokenURL, "https://auth.docker.io/token")
        self.assertEqual((hub.fallback, hub.proxy), (("https://a.example",), "http://p:1"))

    def test_further(self) -> None:
        """
        A further registry uses the common proxy, CA and resolver unless it has its own, but not the
        Hub's fallbacks.
        """
        config = MirrorConfig(
            registries=["ghcr.io", RegistryConfig(name="quay.io", ca_file="quay.pem")],
            ca_file="all.pem",
            fallback="https://a.example",
        )
        self.assertEqual(
            [(each.name, each.ca_file, each.fallback) for each in config.allRegistries()],
            [
                ("docker.io", "all.pem", ("https://a.example",)),
                ("ghcr.io", "all.pem", ()),
                ("quay.io", "quay.pem", ()),
            ],
        )

    def test_hubInATable(self) -> None:
        """The Hub may have a table of its own, too; the default registry comes first."""
        account = Account(username="me", password_file="secret")
        config = MirrorConfig(
            registries=["ghcr.io", RegistryConfig(name="docker.io", account=[account])]
        )
        hub, _ghcr = config.allRegistries()
        self.assertEqual((hub.name, hub.account), ("docker.io", (account,)))
