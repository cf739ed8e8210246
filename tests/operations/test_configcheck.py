"""
Tests of the output of C{--check-config}: read as a file, it gives the same configuration.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import Account, MirrorConfig, Rate, RegistryConfig, options
from hubmirror.config.file import parse
from hubmirror.operations.configcheck import describeConfig
from tests.config.test_options import GOOD

URL = "https://registry.example"


def readBack(config: MirrorConfig) -> MirrorConfig:
    """What a file with the description of a configuration gives."""
    found, problems = parse(describeConfig(config, {}, {}), "", {})
    assert not problems, problems
    return MirrorConfig(**found)


def settings(config: MirrorConfig) -> dict[str, Any]:
    """What a configuration means: its options, and its registries with all of their settings."""
    found = {field.name: getattr(config, field.name) for field in options()}
    found["registries"] = [
        attrs.evolve(each, url=each.registryURL) for each in config.allRegistries()
    ]
    return found


class DescribeConfigTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        self.assertEqual(settings(readBack(MirrorConfig())), settings(MirrorConfig()))

    def test_everyOption(self) -> None:
        """Each value, those of the tests of the options among others, is what is read back."""
        further = [
            ("access_log_file", 'tab\tand "quotes" in \\names\u2026'),
            ("client_pulls", Rate(100, 30 * 86400.0)),
            ("client_requests", Rate(7, 90.0)),
            ("connect_timeout", 1.23456789),
            ("failover_on", ()),
            ("min_speed", 123456789.0),
        ]
        given = [(name, value) for name, value, _ in GOOD if name != "secret_path"]
        for name, value in [*given, *further]:
            config = MirrorConfig(**{name: value})
            self.assertEqual(settings(readBack(config)), settings(config), (name, value))

    def test_registries(self) -> None:
        """The settings of registries, with one account or several."""
        accounts = [Account(username=name, password_file=f"/run/{name}") for name in "ab"]
        full = RegistryConfig(
            name="a.example",
            url=URL,
            auth_url=URL,
            search_url=URL,
            hosts=["a.mirror.example"],
            fallback=["https://b.example/?ns"],
            ca_file="/etc/ca.pem",
            resolver="[2001:db8::1]:5353",
            proxy="socks5://[::1]:1080",
            pass_credentials=True,
            account=accounts[:1],
            account_may_push=True,
        )
        several = attrs.evolve(full, name="localhost:5000", account=accounts)
        for each in attrs.fields(RegistryConfig):
            self.assertNotEqual(getattr(full, each.name), each.default, each.name)
        config = MirrorConfig(registries=[full, several])
        self.assertEqual(settings(readBack(config)), settings(config))

    def test_secret(self) -> None:
        """A secret is not shown."""
        text = describeConfig(MirrorConfig(secret_path="long-secret"), {}, {"secret_path": ""})
        self.assertIn("secret_path = ...  # command line\n", text)
        self.assertNotIn("long-secret", text)
