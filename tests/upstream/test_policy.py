"""Tests of the decisions about upstreams."""

from ipaddress import ip_address, ip_network

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror import MirrorConfig
from hubmirror.config import RegistryConfig
from hubmirror.protocol.errors import RedirectRefused
from hubmirror.protocol.url import Origin, splitURL
from hubmirror.upstream.policy import (
    AddressPolicy,
    Service,
    Upstream,
    addressPolicy,
    effectiveStatus,
    fallbackChallenges,
    fallbackServes,
    follow,
    limitsPulls,
    mayRepeat,
    upstreamsOf,
)

HUB = b"https://registry-1.docker.io/v2/library/debian/blobs/sha256:ab"
SECRETS = Headers({b"Authorization": [b"Bearer x"], b"Range": [b"bytes=0-"]})


class AddressTests(SynchronousTestCase):
    def test_permits(self) -> None:
        configured = Origin(b"https", b"registry.local", 443)
        allowed = Origin(b"https", b"cdn.local", 8443)
        policy = AddressPolicy([configured], [allowed, ip_network("10.1.0.0/16")])
        other = Origin(b"https", b"other.example", 443)
        for origin, address, expected in (
            (configured, "127.0.0.1", True),
            (allowed, "::1", True),
            # Another port or scheme is another origin.
            (Origin(b"https", b"cdn.local", 443), "127.0.0.1", False),
            (Origin(b"http", b"registry.local", 80), "127.0.0.1", False),
            (other, "1.1.1.1", True),
            (other, "10.1.2.3", True),
            (other, "::ffff:10.1.2.3", True),
            (other, "10.2.0.1", False),
            (other, "::ffff:10.2.0.1", False),
            (other, "fd00::1", False),
        ):
            permitted = policy.permits(origin, ip_address(address))
            self.assertEqual(permitted, expected, (origin, address))

    def test_configured(self) -> None:
        """The configured URLs of all services and upstreams are trusted."""
        config = MirrorConfig(
            registry_url="http://registry.local:5000/hub",
            auth_url="http://auth.local/token",
            search_url="http://index.local",
            fallback=["http://mirror.local:5001"],
            allow_redirects_to=["http://cdn.local"],
        )
        policy = addressPolicy(config.allRegistries()[0], config.allow_redirects_to)
        here = ip_address("127.0.0.1")
        for url, expected in (
            (b"http://registry.local:5000", True),
            (b"http://auth.local", True),
            (b"http://index.local", True),
            (b"http://mirror.local:5001", True),
            (b"http://cdn.local", True),
            (b"http://registry.local", False),
            (b"https://cdn.local", False),
        ):
            self.assertEqual(policy.permits(splitURL(url)[0], here), expected, url)


class URLTests(SynchronousTestCase):
    def test_tokens(self) -> None:
        """The URL of a token service may have a query of its own."""
        for base, target, url in (
            (b"https://h/t", b"", b"https://h/t"),
            (b"https://h/t", b"?a=b?&c", b"https://h/t?a=b?&c"),
            (b"https://h/t?x=y", b"", b"https://h/t?x=y"),
            (b"https://h/t?x=y", b"?a=b?&c", b"https://h/t?x=y&a=b?&c"),
        ):
            upstream = Upstream("h", {Service.TOKEN: base})
            self.assertEqual(upstream.url(Service.TOKEN, target), url)


class UpstreamsTests(SynchronousTestCase):
    def test_hub(self) -> None:
        [hub] = upstreamsOf(MirrorConfig().allRegistries()[0])
        self.assertEqual(hub.name, "registry-1.docker.io")
        self.assertEqual(
            hub.bases,
            {
                Service.REGISTRY: b"https://registry-1.docker.io",
                Service.TOKEN: b"https://auth.docker.io/token",
                Service.SEARCH: b"https://index.docker.io",
            },
        )

    def test_fallbacks(self) -> None:
        """The fallbacks are in order; a mirror has all three services at one URL."""
        config = MirrorConfig(fallback=["https://mirror.gcr.io", "http://10.0.0.2:5000/hub/"])
        _, first, second = upstreamsOf(config.allRegistries()[0])
        self.assertEqual((first.name, second.name), ("mirror.gcr.io", "10.0.0.2:5000/hub"))
        self.assertEqual(
            second.bases,
            {
                Service.REGISTRY: b"http://10.0.0.2:5000/hub",
                Service.TOKEN: b"http://10.0.0.2:5000/hub/token",
                Service.SEARCH: b"http://10.0.0.2:5000/hub",
            },
        )

    def test_namedInQuery(self) -> None:
        """
        The URL of a fallback can request C{ns}, as the Hub's option and in the Hub's table.
        """
        url = "https://mirror.example/m/?ns"
        table = RegistryConfig(name="docker.io", fallback=url)
        for config in (MirrorConfig(fallback=url), MirrorConfig(registries=[table])):
            _, fallback = upstreamsOf(config.allRegistries()[0])
            self.assertEqual(
                fallback.url(Service.REGISTRY, b"/v2/o/a/manifests/1"),
                b"https://mirror.example/m/v2/o/a/manifests/1?ns=docker.io",
            )


class FailoverTests(SynchronousTestCase):
    def test_effectiveStatus(self) -> None:
        """A CDN's 500 is treated as temporary, like a 502."""
        for status in (200, 401, 404, 429, 500, 501, 502, 503):
            self.assertEqual(effectiveStatus(status, False), status)
            self.assertEqual(effectiveStatus(status, True), 502 if status == 500 else status)

    def test_mayRepeat(self) -> None:
        for method, hasBody, expected in (
            (b"GET", False, True),
            (b"HEAD", False, True),
            (b"GET", True, False),
            (b"POST", False, False),
            (b"PUT", True, False),
            (b"PATCH", True, False),
            (b"DELETE", False, False),
            (b"OPTIONS", False, False),
        ):
            self.assertEqual(mayRepeat(method, hasBody), expected, (method, hasBody))

    def test_serves(self) -> None:
        for status in (200, 204, 206, 304, 416):
            self.assertTrue(fallbackServes(status), status)
        for status in (301, 307, 400, 401, 403, 404, 429, 500, 502, 503, 504):
            self.assertFalse(fallbackServes(status), status)

    def test_limits(self) -> None:
        for status, kind, expected in (
            (429, b"application/json", True),
            (429, b"Application/JSON; charset=utf-8", True),
            (429, b"text/plain", False),
            (429, None, False),
            (503, b"application/json", False),
        ):
            headers = Headers({} if kind is None else {b"Content-Type": [kind]})
            self.assertEqual(limitsPulls(status, headers), expected, (status, kind))

    def test_challenges(self) -> None:
        """Only a client without a token needs a challenge."""
        self.assertTrue(fallbackChallenges(401, Headers()))
        self.assertFalse(fallbackChallenges(401, SECRETS))
        self.assertFalse(fallbackChallenges(403, Headers()))


class RedirectTests(SynchronousTestCase):
    def test_follow(self) -> None:
        for location, target, keeps in (
            (b"/v2/other", b"https://registry-1.docker.io/v2/other", True),
            (b"other?x", b"https://registry-1.docker.io/v2/library/debian/blobs/other?x", True),
            (b"https://REGISTRY-1.docker.io:443/x", b"https://REGISTRY-1.docker.io:443/x", True),
            (b"https://registry-1.docker.io:8443/x", b"https://registry-1.docker.io:8443/x", False),
            (b"https://cdn.example/x?Sig=a%2Fb~#f", b"https://cdn.example/x?Sig=a%2Fb~", False),
            (b"//cdn.example/x", b"https://cdn.example/x", False),
        ):
            found, headers = follow(HUB, SECRETS, [location])
            self.assertEqual(found, target)
            self.assertEqual(headers.hasHeader(b"Authorization"), keeps, location)
            self.assertEqual(headers.getRawHeaders(b"Range"), [b"bytes=0-"])

    def test_fromPlain(self) -> None:
        """A redirect from an upstream without TLS to one with TLS leads to another origin."""
        target, headers = follow(b"http://registry.local/x", SECRETS, [b"https://registry.local/x"])
        self.assertEqual(target, b"https://registry.local/x")
        self.assertFalse(headers.hasHeader(b"Authorization"))

    def test_refused(self) -> None:
        for locations in (
            [],
            [b"https://a.example/", b"https://b.example/"],
            [b"http://cdn.example/x"],
            [b"http://registry-1.docker.io/x"],
            [b"ftp://cdn.example/x"],
            [b"javascript:alert(1)"],
            [b"https://user:secret@cdn.example/"],
            [b"https:///x"],
        ):
            error = self.assertRaises(RedirectRefused, follow, HUB, SECRETS, locations)
            self.assertNotIn("secret", str(error))

    def test_quiet(self) -> None:
        """A signed query is not logged."""
        error = self.assertRaises(RedirectRefused, follow, HUB, SECRETS, [b"http://a/?Sig=secret"])
        self.assertEqual(str(error), "a redirect from https to http (http://a)")
