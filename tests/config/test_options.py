"""Tests of the options: the defaults for the Hub, conversions, and error messages."""

from ipaddress import ip_network
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror import MirrorConfig
from hubmirror.config import ConfigError, Rate, RegistryConfig, optionName, options
from hubmirror.protocol.url import Origin

DEFAULTS = {
    "port": ("tcp:5000:interface=127.0.0.1",),
    "public_url": None,
    "registry_url": "https://registry-1.docker.io",
    "auth_url": "https://auth.docker.io/token",
    "search_url": "https://index.docker.io",
    "fallback": (),
    "registries": (),
    "secret_path": None,
    "allow_client": (),
    "deny_client": (),
    "allow_repository": (),
    "deny_repository": (),
    "client_requests": None,
    "client_pulls": None,
    "client_bandwidth": None,
    "client_streams": None,
    "access_log": "text",
    "access_log_file": None,
    "admin_port": None,
    "failover_on": frozenset((429, 502, 503, 504)),
    "allow_redirects_to": (),
    "ca_file": None,
    "workers": 1,
    "plain_transport": False,
    "reuse_port": False,
    "resolver": None,
    "read_only": False,
    "page": True,
    "no_cors": False,
    "no_forwarded": False,
    "trusted_proxy": (),
    "verify": "fallback",
    "connect_timeout": 5.0,
    "response_timeout": 9.0,
    "stall_timeout": 15.0,
    "idle_timeout": 75.0,
    # Options that are not in the documentation's table.
    "proxy": None,
    "resumes": 5,
    "min_speed": 1024.0,
    "client_timeout": 300.0,
    "head_timeout": 30.0,
    "drain_timeout": 30.0,
    "max_connections": None,
    "max_connections_per_client": None,
    "max_upstream_connections": None,
    "max_upstream_connections_per_client": None,
    "queue_timeout": 5.0,
    "max_head": 65536,
    "max_upload": 0,
}

URLS = ("public_url", "registry_url", "auth_url", "search_url")

OPTION_NAMES = {field.name: optionName(field) for field in options()}

GOOD: list[tuple[str, Any, Any]] = [
    ("port", ["ssl:443", "tcp6:5000"], ("ssl:443", "tcp6:5000")),
    ("port", "tcp:80", ("tcp:80",)),
    ("port", [], ()),
    *((name, "https://a.example", "https://a.example") for name in URLS),
    ("public_url", "http://10.0.0.1:5000/", "http://10.0.0.1:5000"),
    ("registry_url", "https://[2001:db8::1]/hub//", "https://[2001:db8::1]/hub"),
    (
        "fallback",
        ["https://a.example/", "http://b.example", "https://c.example?ns"],
        ("https://a.example", "http://b.example", "https://c.example/?ns"),
    ),
    ("secret_path", "k3/long-secret", "k3/long-secret"),
    ("allow_client", "10.0.0.1/8", (ip_network("10.0.0.0/8"),)),
    ("deny_client", ["2001:db8::1"], (ip_network("2001:db8::1"),)),
    ("allow_repository", "docker.io/library/*", ("docker.io/library/*",)),
    ("deny_repository", ["**/nginx", "localhost:5000/?"], ("**/nginx", "localhost:5000/?")),
    ("client_requests", "600/1m", Rate(600, 60)),
    ("client_requests", "10/s", Rate(10, 1)),
    ("client_pulls", "100/6h", Rate(100, 21600)),
    ("client_bandwidth", "20M", 20 * 1024**2),
    ("client_streams", "2", 2),
    ("access_log", "json", "json"),
    ("access_log_file", "access.log", "access.log"),
    ("admin_port", "tcp:9090", "tcp:9090"),
    ("registries", "ghcr.io", (RegistryConfig(name="ghcr.io"),)),
    (
        "registries",
        ["QUAY.io", RegistryConfig(name="localhost:5000")],
        (RegistryConfig(name="quay.io"), RegistryConfig(name="localhost:5000")),
    ),
    ("failover_on", "429", frozenset((429,))),
    ("failover_on", " 500, 599 ,", frozenset((500, 599))),
    ("failover_on", [503], frozenset((503,))),
    ("failover_on", "", frozenset()),
    (
        "allow_redirects_to",
        ["https://CDN.example:8443/", "http://10.0.0.1", "10.0.0.0/8", "fd00::/8", "192.0.2.1"],
        (
            Origin(b"https", b"cdn.example", 8443),
            Origin(b"http", b"10.0.0.1", 80),
            ip_network("10.0.0.0/8"),
            ip_network("fd00::/8"),
            ip_network("192.0.2.1/32"),
        ),
    ),
    ("ca_file", "ca.pem", "ca.pem"),
    ("workers", "4", 4),
    ("plain_transport", True, True),
    ("reuse_port", True, True),
    ("workers", "auto", 0),
    ("resolver", "1.1.1.1", ("1.1.1.1", 53)),
    ("resolver", "1.1.1.1:5353", ("1.1.1.1", 5353)),
    ("resolver", "::1", ("::1", 53)),
    ("resolver", "2606:4700:4700::1111", ("2606:4700:4700::1111", 53)),
    ("resolver", "[::1]", ("::1", 53)),
    ("resolver", "[::1]:5353", ("::1", 5353)),
    ("proxy", "http://proxy.example:3128", "http://proxy.example:3128"),
    ("proxy", "socks5://[::1]:1080/", "socks5://[::1]:1080"),
    ("read_only", True, True),
    ("page", False, False),
    ("page", "true", True),
    ("page", "false", False),
    ("no_cors", True, True),
    ("no_forwarded", True, True),
    (
        "trusted_proxy",
        ["10.0.0.1", "192.168.1.7/16", "2001:db8::/32"],
        (ip_network("10.0.0.1"), ip_network("192.168.0.0/16"), ip_network("2001:db8::/32")),
    ),
    ("verify", "always", "always"),
    ("resumes", "0", 0),
    ("min_speed", "0", 0.0),
    ("max_connections", "1", 1),
    ("max_connections_per_client", 5, 5),
    ("max_upstream_connections", "100", 100),
    ("max_upstream_connections_per_client", "10", 10),
    ("queue_timeout", "2.5", 2.5),
    ("max_head", "8k", 8192),
    ("max_head", "1M", 1024**2),
    ("max_upload", "10GiB", 10 * 1024**3),
    ("max_upload", "1TB", 1024**4),
    ("max_upload", 1000, 1000),
    ("connect_timeout", "0.5", 0.5),
    ("response_timeout", 30, 30.0),
    ("stall_timeout", " 60 ", 60.0),
    ("client_timeout", "1", 1.0),
    ("head_timeout", "1", 1.0),
    ("drain_timeout", "1", 1.0),
    ("idle_timeout", 1e3, 1000.0),
]

#: Invalid values, and a part of the error message.
BAD: list[tuple[str, Any, str]] = [
    ("secret_path", "/k3/long-secret", "without a slash"),
    ("secret_path", "Secret-Path", "small letters"),
    ("secret_path", "short", "8 characters"),
    ("secret_path", "v2/long-secret", "must not begin"),
    ("page", "no", "neither true nor false"),
    ("allow_client", "localhost", "10.0.0.0/8"),
    ("allow_client", [10], "10.0.0.0/8"),
    ("resumes", True, "no whole number"),
    ("resumes", 2.7, "no whole number"),
    ("max_connections", True, "no whole number"),
    ("min_speed", True, "bytes each second"),
    ("queue_timeout", True, "number of seconds"),
    ("deny_client", "10.0.0.0/33", "10.0.0.0/8"),
    ("allow_repository", "docker.io/", "docker.io/library/*"),
    ("deny_repository", "/library/*", "docker.io/library/*"),
    ("client_requests", "600", "600/1m"),
    ("client_requests", "0/1m", "600/1m"),
    ("client_requests", "600/0m", "600/1m"),
    ("client_requests", "600/00m", "600/1m"),
    ("client_pulls", "100/6w", "600/1m"),
    ("client_bandwidth", "fast", "no size"),
    ("client_bandwidth", "100", "1k or more"),
    ("client_streams", "0", "1 or more"),
    ("access_log", "xml", "text, json, combined, off"),
    ("admin_port", "9090", "tcp:5000"),
    ("registries", "library/alpine", "such as ghcr.io"),
    ("registries", "https://ghcr.io", "such as ghcr.io"),
    ("registries", "ghcr", "such as ghcr.io"),
    ("port", "5000", "tcp:5000"),
    *((name, "registry.example", "https://") for name in URLS),
    *((name, "ftp://registry.example", "https://") for name in URLS),
    *((name, "https://user:secret@registry.example", "https://") for name in URLS),
    *((name, "https://registry.example:0", "https://") for name in URLS),
    *((name, "https://r\xe9gistre.example", "https://") for name in URLS),
    *((name, "https://registry.example/?x=1", "query") for name in URLS),
    *((name, "https://registry.example/#x", "fragment") for name in URLS),
    *((name, "https://registry.example/a b", "white space") for name in URLS),
    ("fallback", ["https://a.example", "b.example"], "https://"),
    ("fallback", "https://a.example/?x", "query"),
    ("failover_on", "many", "429,503"),
    ("failover_on", [float("inf")], "429,503"),
    ("failover_on", [float("nan")], "429,503"),
    ("access_log_file", "a\0b", "no file's name"),
    ("ca_file", "a\0b", "no file's name"),
    ("failover_on", "200", "400 and 599"),
    ("failover_on", "600", "400 and 599"),
    ("failover_on", "429,404", "401, 403 and 404"),
    ("allow_redirects_to", "cdn.example", "10.0.0.0/8"),
    ("allow_redirects_to", "https://user:secret@cdn.example", "https://cdn.example"),
    ("allow_redirects_to", "https://cdn.example/path", "leave off"),
    ("allow_redirects_to", "10.0.0.0/33", "10.0.0.0/8"),
    ("workers", "many", "whole number"),
    ("resolver", "dns.example", "1.1.1.1:53"),
    ("resolver", "", "1.1.1.1:53"),
    ("resolver", "1.1.1.1:", "1.1.1.1:53"),
    ("resolver", "1.1.1.1:0", "out of range"),
    ("resolver", "1.1.1.1:65536", "out of range"),
    ("resolver", "[1.1.1.1", "1.1.1.1:53"),
    ("proxy", "proxy.example:3128", "socks5://host:port"),
    ("proxy", "https://proxy.example", "socks5://host:port"),
    ("proxy", "http://user:secret@proxy.example", "user information"),
    ("proxy", "user:secret@proxy.example", "socks5://host:port"),
    ("proxy", "http://proxy.example/path", "end with the port"),
    ("trusted_proxy", "proxy.example", "10.0.0.0/8"),
    ("verify", "sometimes", "never, fallback, always"),
    ("resumes", "many", "whole number"),
    ("resumes", "-1", "from 0 to 1000"),
    ("min_speed", "fast", "bytes each second"),
    ("min_speed", "-1", "0 for no floor"),
    ("min_speed", "nan", "0 for no floor"),
    ("max_connections", "0", "1 or more"),
    ("max_connections", "1.5", "whole number"),
    ("max_connections_per_client", "-1", "1 or more"),
    ("max_upstream_connections", "0", "1 or more"),
    ("max_upstream_connections_per_client", "none", "whole number"),
    ("queue_timeout", "0", "between 0 and 86400"),
    ("max_head", "8191", "from 8k to 1M"),
    ("max_head", "2M", "from 8k to 1M"),
    ("max_upload", "-1", "10G"),
    ("max_upload", "10 G", "10G"),
    ("max_upload", "10P", "10G"),
    ("connect_timeout", "soon", "seconds"),
    ("response_timeout", "0", "between"),
    ("stall_timeout", "-1", "between"),
    ("client_timeout", "0", "between"),
    ("head_timeout", "0", "between"),
    ("drain_timeout", "0", "between"),
    ("idle_timeout", "86400", "between"),
    ("idle_timeout", "nan", "between"),
    ("idle_timeout", "inf", "between"),
]


class ConfigTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        self.assertEqual(attrs.asdict(MirrorConfig()), DEFAULTS)

    def test_good(self) -> None:
        for name, value, expected in GOOD:
            self.assertEqual(getattr(MirrorConfig(**{name: value}), name), expected, (name, value))

    def test_bad(self) -> None:
        """The error is one line that names the option and states what to do, without a password."""
        for name, value, advice in BAD:
            error = self.assertRaises(ConfigError, MirrorConfig, **{name: value})
            text = str(error)
            self.assertTrue(text.startswith(f"--{OPTION_NAMES[name]}: "), text)
            self.assertIn(advice, text)
            self.assertNotIn("\n", text)
            self.assertNotIn("secret", text.partition(": ")[2])

    def test_everyOptionIsTested(self) -> None:
        names = {field.name for field in options()}
        self.assertEqual({name for name, _, _ in GOOD}, names)
        # Any boolean is valid.
        free = {
            "read_only",
            "no_cors",
            "no_forwarded",
            "plain_transport",
            "reuse_port",
        }
        self.assertEqual({name for name, _, _ in BAD}, names - free)

    @given(st.sampled_from([field.name for field in options()]), st.text())
    def test_anything(self, name: str, value: str) -> None:
        try:
            MirrorConfig(**{name: value})
        except ConfigError as error:
            self.assertTrue(str(error).startswith("--"))

    def test_again(self) -> None:
        """The values of a configuration can be passed to another configuration."""
        config = MirrorConfig(**{name: value for name, value, _ in GOOD})
        self.assertEqual(attrs.evolve(config), config)

    def test_frozen(self) -> None:
        config = MirrorConfig()
        self.assertRaises(attrs.exceptions.FrozenInstanceError, setattr, config, "proxy", "x")

    def test_helps(self) -> None:
        """Every option has a help of one line."""
        for field in options():
            self.assertRegex(field.metadata["help"], r"\A[^\n]{5,90}\Z")
            self.assertNotIn("_", optionName(field))
