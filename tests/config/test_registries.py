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


#: The URL and the token service of each registry that has a row in the table.
KNOWN: dict[str, tuple[str, str | None]] = {
    "docker.io": ("https://registry-1.docker.io", "https://auth.docker.io/token"),
    "ghcr.io": ("https://ghcr.io", "https://ghcr.io/token"),
    "quay.io": ("https://quay.io", "https://quay.io/v2/auth"),
    "registry.k8s.io": ("https://registry.k8s.io", None),
    "mcr.microsoft.com": ("https://mcr.microsoft.com", None),
    "public.ecr.aws": ("https://public.ecr.aws", "https://public.ecr.aws/token/"),
    "nvcr.io": ("https://nvcr.io", "https://nvcr.io/proxy_auth"),
    "docker.elastic.co": ("https://docker.elastic.co", "https://docker-auth.elastic.co/auth"),
    "registry.gitlab.com": ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
}
#: Some of those that are known by their pattern.
GOOGLE = {
    name: (f"https://{name}", f"https://{name}/v2/token")
    for name in ("gcr.io", "us.gcr.io", "eu.gcr.io", "asia.gcr.io", "europe-docker.pkg.dev")
}


class RegistryConfigTests(SynchronousTestCase):
    def test_known(self) -> None:
        """The name of a well-known registry is enough."""
        for name, (url, tokens) in {**KNOWN, **GOOGLE}.items():
            config = RegistryConfig(name=name)
            self.assertEqual((config.registryURL, config.tokenURL), (url, tokens), name)
        self.assertEqual(set(knownNames()), set(KNOWN))

    def test_unknown(self) -> None:
        """Any other registry has the URL that its name stands for, and no known token service."""
        for name in ("registry.example:5000", "gcr.io.example", "a.b.gcr.io", "pkg.dev"):
            config = RegistryConfig(name=name)
            self.assertEqual((config.registryURL, config.tokenURL), (f"https://{name}", None))

    def test_index(self) -> None:
        """Only the Hub has a known index."""
        urls = {name: row.search_url for name in knownNames() if (row := known(name))}
        expected = {**dict.fromkeys(KNOWN), "docker.io": "https://index.docker.io"}
        self.assertEqual(urls, expected)

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
