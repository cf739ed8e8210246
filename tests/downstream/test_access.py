"""
Tests of the rules on clients and repositories, and of rates.
"""

from __future__ import annotations

import mmap
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.config import MirrorConfig, Rate
from hubmirror.downstream.access import Access, compileGlobs
from hubmirror.downstream.rates import SIZE, RateTable
from hubmirror.protocol.addressing import RegistryNames
from hubmirror.protocol.errors import Denied
from hubmirror.protocol.target import readTarget

HUB = RegistryNames(b"docker.io", implicitNamespace=b"library")


class ClientTests(SynchronousTestCase):
    def test_table(self) -> None:
        """
        A denied network takes precedence over an allowed one.
        """
        for allow, deny, client, rule in (
            ([], [], "192.0.2.1", None),
            (["192.0.2.0/24"], [], "192.0.2.1", None),
            (["192.0.2.0/24"], [], "198.51.100.1", "allow-client"),
            (["192.0.2.0/24"], [], None, "allow-client"),
            (["192.0.2.0/24"], [], "2001:db8::1", "allow-client"),
            ([], ["192.0.2.0/24"], "192.0.2.1", "deny-client"),
            ([], ["192.0.2.0/24"], None, None),
            ([], ["2001:db8::/32"], "2001:db8:1::1", "deny-client"),
            (["192.0.2.0/24"], ["192.0.2.7"], "192.0.2.7", "deny-client"),
            (["192.0.2.0/24", "10.0.0.0/8"], ["192.0.2.7"], "10.1.2.3", None),
        ):
            access = Access(MirrorConfig(allow_client=allow, deny_client=deny))
            found = None
            try:
                access.permitClient(None if client is None else ip_address(client))
            except Denied as error:
                found = error.rule
            self.assertEqual(found, rule, (allow, deny, client))


class RepositoryTests(SynchronousTestCase):
    def test_table(self) -> None:
        manifest, nginx = "/v2/%s/manifests/1", "library/nginx"
        for allow, deny, registry, target, rule in (
            ([], [], "docker.io", manifest % nginx, None),
            (["docker.io/library/*"], [], "docker.io", manifest % nginx, None),
            (["docker.io/library/*"], [], "ghcr.io", manifest % nginx, "allow-repository"),
            (["docker.io/*"], [], "docker.io", manifest % nginx, "allow-repository"),
            (["docker.io/**"], [], "docker.io", manifest % nginx, None),
            (["**/nginx"], [], "ghcr.io", manifest % "a/b/nginx", None),
            (["*/nginx"], [], "ghcr.io", manifest % "nginx", None),
            (["*/nginx"], [], "ghcr.io", manifest % "a/nginx", "allow-repository"),
            (["ghcr.io/a-?/*"], [], "ghcr.io", manifest % "a-b/c", None),
            (["ghcr.io/a.b/*"], [], "ghcr.io", manifest % "axb/c", "allow-repository"),
            (["**"], ["**/nginx"], "docker.io", manifest % nginx, "deny-repository"),
            (["**"], ["**/nginx"], "docker.io", manifest % "library/nginx2", None),
            ([], ["docker.io/library/*"], "docker.io", "/v2/", None),
            ([], ["docker.io/library/*"], "docker.io", "/token?scope=x", None),
            # A denied repository is denied in any spelling.
            ([], ["**/nginx"], "docker.io", "/v2/library//ngin%78/tags/list", "deny-repository"),
            ([], ["**/nginx"], "docker.io", "/v2/library/nginx/blobs/x/y/z", "deny-repository"),
            # It is also denied as the source of a mount, and in targets of unknown kind.
            (
                [],
                ["docker.io/secret/*"],
                "docker.io",
                "/v2/a/b/blobs/uploads/?mount=sha256:1&fro%6d=secret%2Fb",
                "deny-repository",
            ),
            (
                [],
                ["docker.io/secret/*"],
                "docker.io",
                "/v2/a/b/blobs/uploads/?mount=sha256:1&from=a/b&from=secret/b",
                "deny-repository",
            ),
            (
                [],
                ["docker.io/secret/*"],
                "docker.io",
                "/v2/a/b/blobs/uploads;x/?mount=sha256:1&from=secret/b",
                "deny-repository",
            ),
            (
                [],
                ["docker.io/secret/*"],
                "docker.io",
                "/v2/a/b/blobs/uploads/?mount=sha256:1;from=secret/b",
                "deny-repository",
            ),
            # An upload is one of its repository however the registry writes its location.
            (["ghcr.io/o/*"], [], "ghcr.io", "/v2/o/n/blobs/uploads/7f?digest=x", None),
            (["ghcr.io/o/*"], [], "ghcr.io", "/v2/o/n/blobs/upload/7f?digest=x", None),
            ([], ["ghcr.io/o/*"], "ghcr.io", "/v2/o/n/blobs/upload/7f", "deny-repository"),
            (["**"], [], "docker.io", "/v2/library/nginx/other", "allow-repository"),
            ([], [], "docker.io", "/v2/library/nginx/other", None),
            # A registry without any denied repository is served as if there were no rule.
            ([], ["docker.io/a"], "a.pkg.dev", "/artifacts-uploads/1", None),
            ([], ["docker.io/a", "a.pkg.dev/x/y"], "a.pkg.dev", "/u/1", "deny-repository"),
            ([], ["a.pkg.*/x/y"], "a.pkg.dev", "/artifacts-uploads/1", "deny-repository"),
            ([], ["?.pkg.dev/x"], "a.pkg.dev", "/artifacts-uploads/1", "deny-repository"),
            (["**"], ["docker.io/a"], "a.pkg.dev", "/artifacts-uploads/1", "allow-repository"),
        ):
            access = Access(MirrorConfig(allow_repository=allow, deny_repository=deny))
            found = None
            try:
                access.permitTarget(RegistryNames(registry.encode()), readTarget(target.encode()))
            except Denied as error:
                found = error.rule
            self.assertEqual(found, rule, (allow, deny, registry, target))

    def test_names(self) -> None:
        """
        Where there is a rule, names that no registry permits are denied: a registry might correct
        them.
        """
        access = Access(MirrorConfig(deny_repository=["docker.io/corp/secret"]))
        for name in ("a/b", "a.b/c__d/e-f/g---h", "0/1_2", "a/" * 127 + "b"):
            access.permitTarget(HUB, readTarget(f"/v2/{name}/manifests/1".encode()))
        for name in (
            "Corp/Secret",
            "corp/secret.",
            "corp/secret%20",
            "corp/secret;x",
            "corp/secret%3Bx",
            "corp;x/secret",
            "corp%5Csecret",
            "corp/.secret",
            "corp/secret\xff",
            "a/" * 128 + "b",
        ):
            target = readTarget(f"/v2/{name}/manifests/1".encode("latin-1"))
            error = self.assertRaises(Denied, access.permitTarget, HUB, target)
            self.assertEqual(error.rule, "deny-repository", name)

    def test_ends(self) -> None:
        """
        Servers differ in where a path ends and how dot segments are removed, so that they might
        find another repository in such a path.
        """
        allowed, denied = "/v2/a/b/manifests/1", "/v2/corp/secret/manifests/1"
        access = Access(MirrorConfig(deny_repository=["docker.io/corp/secret"]))
        for first, second in ((allowed, denied), (denied, allowed)):
            for end in (";", "%3B", "%253b", "%3F", "#", "%23", "\\", "/.", ""):
                raw = f"{first}{end}/../../../../..{second}".encode()
                self.assertRaises(Denied, access.permitTarget, HUB, readTarget(raw))
        for raw in (
            b"/v2/corp/secret//../manifests/1",
            b"/v2/a/b/manifests/1\\..\\..\\..\\..\\corp\\secret\\manifests\\1",
            b"/v2/a/b/manifests/..;/..;/..;/corp/secret/manifests/1",
        ):
            self.assertRaises(Denied, access.permitTarget, HUB, readTarget(raw))
        for raw in (b"//v2//a/b/manifests/1", b"/v2/a/b/blobs/sha256%3A1", b"/v2/", b"/token"):
            access.permitTarget(HUB, readTarget(raw))

    @given(st.from_regex(r"[a-z0-9._-]+(/[a-z0-9._-]+){0,3}", fullmatch=True))
    def test_itself(self, name: str) -> None:
        """
        A glob without wildcards matches only itself.
        """
        pattern = compileGlobs([name])
        assert pattern is not None
        self.assertTrue(pattern.fullmatch(name))
        self.assertFalse(pattern.fullmatch(name + "x") or pattern.fullmatch("x" + name))


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.table = RateTable(self.clock)

    def take(self, client: str = "192.0.2.1", rate: Rate = Rate(6, 60)) -> float:  # noqa: B008
        return round(self.table.take("client-requests", client, rate), 3)

    def test_many(self) -> None:
        """
        A client may send all requests of its rate at once, then evenly spaced; clients are
        independent.
        """
        self.assertEqual([self.take() for _ in range(8)], [0] * 6 + [10, 10])
        self.assertEqual(self.take("192.0.2.2"), 0)
        self.clock.advance(4)
        self.assertEqual(self.take(), 6)
        self.clock.advance(6)
        self.assertEqual([self.take(), self.take()], [0, 10])
        self.clock.advance(3600)
        self.assertEqual([self.take() for _ in range(7)], [0] * 6 + [10])

    def test_rates(self) -> None:
        """
        Requests that count for one rate do not count for another.
        """
        self.assertEqual([self.take(rate=Rate(1, 60)) for _ in range(2)], [0, 60])
        self.assertEqual(self.table.take("client-pulls", "192.0.2.1", Rate(1, 60)), 0)

    def test_bytes(self) -> None:
        """
        The sum of all bytes does not exceed the bandwidth.
        """
        spend = [self.table.spend("client-bandwidth", "a", 500, 1000) for _ in range(3)]
        self.assertEqual(spend, [0.5, 1.0, 1.5])
        self.clock.advance(10)
        self.assertEqual(self.table.spend("client-bandwidth", "a", 500, 1000), 0.5)

    def test_clockSetBack(self) -> None:
        """
        A system clock that is set back delays nobody for longer than the rate says.
        """
        for _ in range(7):
            self.take()
        self.table.spend("client-bandwidth", "a", 500, 1000)
        self.clock.rightNow -= 600
        self.assertEqual(self.take(), 10)
        self.clock.advance(10)
        self.assertEqual(self.take(), 0)
        self.assertEqual(self.table.spend("client-bandwidth", "a", 500, 1000), 60.5)

    def test_crowd(self) -> None:
        """
        More clients take no more memory, and a client that was limited before them stays limited.
        """
        while not self.take():
            pass
        for number in range(20_000):
            self.assertEqual(self.take(f"crowd {number}"), 0)
        self.assertEqual(self.take(), 10)

    def test_shared(self) -> None:
        """
        Two processes that share the memory and the key count together.
        """
        memory = mmap.mmap(-1, SIZE)
        one, other = (RateTable(self.clock, memory, b"key") for _ in "12")
        for table in (one, other) * 3:
            self.assertEqual(table.take("client-requests", "a", Rate(6, 60)), 0)
        self.assertGreater(one.take("client-requests", "a", Rate(6, 60)), 0)
