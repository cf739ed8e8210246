"""
Tests of which registry a request addresses: by C{ns}, path, C{Host} or default, in this order.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.addressing import Addressed, Addressing, RegistryNames
from hubmirror.protocol.errors import InvalidName, NothingHere, RequestRefused, UnknownName
from hubmirror.protocol.target import Kind, readTarget

HUB = RegistryNames(
    b"docker.io",
    aliases=(b"registry-1.docker.io", b"index.docker.io"),
    implicitNamespace=b"library",
    dottedNamespaces=False,
)
GHCR = RegistryNames(b"ghcr.io", hosts=(b"ghcr.mirror.example",))
LOCAL = RegistryNames(b"localhost:5000")
REGISTRIES = (HUB, GHCR, LOCAL)

#: Targets, the registry that they address, and the target at that registry.
FOUND = [
    (b"/v2/", b"docker.io", b"/v2/"),
    (b"/v2", b"docker.io", b"/v2/"),
    (b"/v2/o/a/manifests/1", b"docker.io", b"/v2/o/a/manifests/1"),
    (b"/favicon.ico", b"docker.io", b"/favicon.ico"),
    # By ns.
    (b"/v2/o/a/manifests/1?ns=ghcr.io", b"ghcr.io", b"/v2/o/a/manifests/1"),
    (b"/v2/o/a/manifests/1?ns=GHCR.io&a=b", b"ghcr.io", b"/v2/o/a/manifests/1?a=b"),
    (b"/v2/o/a/manifests/1?ns=localhost%3A5000", b"localhost:5000", b"/v2/o/a/manifests/1"),
    (b"/v2/o/a/manifests/1?ns=docker.io", b"docker.io", b"/v2/o/a/manifests/1"),
    (b"/v2/o/a/manifests/1?ns=index.docker.io", b"docker.io", b"/v2/o/a/manifests/1"),
    (b"/v2/o/a/manifests/1?ns=ghcr.io&ns=ghcr.io", b"ghcr.io", b"/v2/o/a/manifests/1"),
    # By a name after /v2/.
    (b"/v2/ghcr.io/o/a/manifests/1", b"ghcr.io", b"/v2/o/a/manifests/1"),
    (b"/v2/ghcr.io/a/manifests/1", b"ghcr.io", b"/v2/a/manifests/1"),
    (b"/v2/localhost:5000/a/tags/list?n=5", b"localhost:5000", b"/v2/a/tags/list?n=5"),
    (b"/v2/ghcr.io/", b"ghcr.io", b"/v2/"),
    (b"/v2/docker.io/o/a/manifests/1", b"docker.io", b"/v2/o/a/manifests/1"),
    (b"/v2/docker.io/a/manifests/1", b"docker.io", b"/v2/library/a/manifests/1"),
    (b"/v2/ghcr.io/o/a/manifests/1?ns=ghcr.io", b"ghcr.io", b"/v2/o/a/manifests/1"),
    # By a name before /v2.
    (b"/ghcr.io/v2/", b"ghcr.io", b"/v2/"),
    (b"/ghcr.io/v2/o/a/manifests/1", b"ghcr.io", b"/v2/o/a/manifests/1"),
    (b"/ghcr.io/v2/o/a/manifests/1?ns=ghcr.io", b"ghcr.io", b"/v2/o/a/manifests/1"),
    (b"/localhost:5000/v2/a/blobs/sha256:00", b"localhost:5000", b"/v2/a/blobs/sha256:00"),
    (b"/token/ghcr.io?scope=x", b"ghcr.io", b"/token?scope=x"),
    (b"/ghcr.io/token?scope=x", b"ghcr.io", b"/token?scope=x"),
    # Names of one component are completed at the Hub only.
    (b"/v2/a/manifests/1", b"docker.io", b"/v2/library/a/manifests/1"),
    (b"/v2/a/blobs/sha256:00", b"docker.io", b"/v2/library/a/blobs/sha256:00"),
    (b"/v2/a/blobs/uploads/?x", b"docker.io", b"/v2/library/a/blobs/uploads/?x"),
    (b"/v2/a/tags/list", b"docker.io", b"/v2/library/a/tags/list"),
    (b"/v2/a/referrers/sha256:00", b"docker.io", b"/v2/library/a/referrers/sha256:00"),
    (b"/v2/a/manifests/1?ns=ghcr.io", b"ghcr.io", b"/v2/a/manifests/1"),
    # A name with a dot is part of the repository's name when the registry is known already.
    (b"/v2/my.project/a/manifests/1?ns=ghcr.io", b"ghcr.io", b"/v2/my.project/a/manifests/1"),
    # Mounts.
    (
        b"/v2/a/blobs/uploads/?mount=sha256:00&from=b",
        b"docker.io",
        b"/v2/library/a/blobs/uploads/?mount=sha256:00&from=library/b",
    ),
    (
        b"/v2/ghcr.io/o/a/blobs/uploads/?mount=sha256:00&from=ghcr.io%2Fo%2Fb",
        b"ghcr.io",
        b"/v2/o/a/blobs/uploads/?mount=sha256:00&from=o/b",
    ),
    (
        b"/v2/ghcr.io/o/a/blobs/uploads/?mount=sha256:00&from=library/b&x=y",
        b"ghcr.io",
        b"/v2/o/a/blobs/uploads/?x=y",
    ),
    (
        b"/v2/o/a/blobs/uploads/?mount=sha256:00&from=ghcr.io/o/b",
        b"docker.io",
        b"/v2/o/a/blobs/uploads/",
    ),
    (
        b"/v2/o/a/blobs/uploads/?mount=sha256:00&from=o%2Fb",
        b"docker.io",
        b"/v2/o/a/blobs/uploads/?mount=sha256:00&from=o%2Fb",
    ),
]

UNKNOWN = (
    b"/v2/quay.io/o/a/manifests/1",
    b"/v2/localhost/a/manifests/1",
    b"/v2/localhost:5001/a/manifests/1",
    b"/v2/a:5000/b/manifests/1",
    b"/quay.io/v2/",
    b"/quay.io/v2/o/a/manifests/1",
    b"/token/quay.io",
    b"/v2/o/a/manifests/1?ns=quay.io",
    b"/v2/o/a/manifests/1?ns=",
    b"/v2/o/a/manifests/1?ns=ghcr.io&ns=quay.io",
    b"/v2/quay.io/a/manifests/1?ns=docker.io",
    # Targets that address a mirrored registry only when they are decoded or merged.
    b"/v2/ghcr%2eio/o/a/manifests/1",
    b"/v2//ghcr.io/o/a/manifests/1",
    b"/v2/x/../ghcr.io/o/a/manifests/1",
    b"/%67hcr.io/v2/o/a/manifests/1",
)

INVALID = (
    b"/v2/ghcr.io/o/a/manifests/1?ns=docker.io",
    b"/ghcr.io/v2/o/a/manifests/1?ns=localhost:5000",
    b"/v2/o/a/manifests/1?ns=docker.io&ns=ghcr.io",
)


class AddressingCase(SynchronousTestCase):
    secret = b""

    def setUp(self) -> None:
        self.addressing = Addressing(REGISTRIES, self.secret)

    def find(self, raw: bytes, host: bytes = b"mirror.example:5000") -> Addressed:
        return self.addressing.find(readTarget(raw), host)

    def assertElsewhere(self, raw: bytes, host: bytes, written: bytes) -> None:
        """
        Check how a client writes a target that is not below C{/v2/}, and that this addresses the
        same registry and the same target.

        @param raw: the target of an earlier request of the client.
        """
        own = b"/u/1?s=%2f&&t"
        first = self.find(raw, host)
        self.assertEqual(first.spelling.write(own), written, raw)
        second = self.find(written, host)
        self.assertEqual((second.registry, second.target.raw), (first.registry, own), raw)
        self.assertEqual(second.spelling.write(own), written, raw)


class FindTests(AddressingCase):
    def test_found(self) -> None:
        for raw, name, own in FOUND:
            found = self.find(raw)
            self.assertEqual((found.registry.name, found.target.raw), (name, own), raw)

    def test_unknown(self) -> None:
        """A registry that the operator has not configured can't be addressed."""
        for raw in UNKNOWN:
            error = self.assertRaises(UnknownName, self.find, raw)
            self.assertEqual((error.status, error.code), (404, "NAME_UNKNOWN"), raw)

    def test_invalid(self) -> None:
        """A target that names two registries is refused."""
        for raw in INVALID:
            error = self.assertRaises(InvalidName, self.find, raw)
            self.assertEqual((error.status, error.code), (400, "NAME_INVALID"), raw)

    def test_host(self) -> None:
        """A registry's own host counts when the target names none."""
        for raw, name in (
            (b"/v2/", b"ghcr.io"),
            (b"/v2/a/manifests/1", b"ghcr.io"),
            (b"/v2/a.b/c/manifests/1", b"ghcr.io"),
            (b"/v2/docker.io/a/manifests/1", b"docker.io"),
            (b"/v2/a/manifests/1?ns=docker.io", b"docker.io"),
        ):
            for host in (b"ghcr.mirror.example", b"ghcr.mirror.example:5000"):
                self.assertEqual(self.find(raw, host).registry.name, name, raw)

    def test_kind(self) -> None:
        """The kind is found wherever the registry's name stands."""
        for raw, kind in (
            (b"/token", Kind.TOKEN),
            (b"/token/ghcr.io?a", Kind.TOKEN),
            (b"/ghcr.io/token", Kind.TOKEN),
            (b"/ghcr.io/v1/search?q=a", Kind.SEARCH),
            (b"/v2/ghcr.io/_catalog", Kind.CATALOG),
            (b"/ghcr.io/v2/_catalog", Kind.CATALOG),
            (b"/v2/ghcr.io/o/a/manifests/1", Kind.MANIFEST),
        ):
            self.assertIs(self.addressing.kindOf(raw), kind, raw)

    def test_spelling(self) -> None:
        """The registry's targets are converted to the client's spelling."""
        for raw, own, written in (
            (b"/v2/o/a/tags/list", b"/v2/o/a/tags/list?n=1", b"/v2/o/a/tags/list?n=1"),
            (b"/v2/a/tags/list", b"/v2/library/a/tags/list?n=1", b"/v2/a/tags/list?n=1"),
            (b"/v2/library/a/tags/list", b"/v2/library/a/tags/list", b"/v2/library/a/tags/list"),
            (b"/v2/ghcr.io/o/a/tags/list", b"/v2/o/a/x?n=1", b"/v2/ghcr.io/o/a/x?n=1"),
            (b"/ghcr.io/v2/o/a/tags/list", b"/v2/o/a/x?n=1", b"/ghcr.io/v2/o/a/x?n=1"),
            (b"/v2/o/a/tags/list?ns=ghcr.io", b"/v2/o/a/x", b"/v2/o/a/x?ns=ghcr.io"),
            (b"/v2/o/a/tags/list?ns=ghcr.io", b"/v2/o/a/x?n=1", b"/v2/o/a/x?n=1&ns=ghcr.io"),
            (b"/v2/o/a/tags/list?ns=docker.io", b"/v2/o/a/x?n=1", b"/v2/o/a/x?n=1"),
        ):
            spelling = self.find(raw).spelling
            self.assertEqual(spelling.write(own), written, raw)
            if not spelling.short:
                self.assertEqual(spelling.read(written), own, raw)

    def test_elsewhere(self) -> None:
        """
        Registries have uploads outside of C{/v2/}, too, where no name in the path can stand for a
        registry.
        """
        for raw, host, written in (
            (b"/v2/o/a/x", b"m", b"/u/1?s=%2f&&t"),
            (b"/v2/docker.io/o/a/x", b"m", b"/u/1?s=%2f&&t"),
            (b"/v2/ghcr.io/o/a/x", b"m", b"/u/1?s=%2f&&t&ns=ghcr.io"),
            (b"/ghcr.io/v2/o/a/x", b"m", b"/u/1?s=%2f&&t&ns=ghcr.io"),
            (b"/v2/o/a/x?ns=ghcr.io", b"m", b"/u/1?s=%2f&&t&ns=ghcr.io"),
            (b"/v2/localhost:5000/o/a/x", b"m", b"/u/1?s=%2f&&t&ns=localhost:5000"),
            (b"/v2/o/a/x", b"ghcr.mirror.example", b"/u/1?s=%2f&&t"),
            (b"/v2/docker.io/a/x", b"ghcr.mirror.example", b"/u/1?s=%2f&&t&ns=docker.io"),
        ):
            self.assertElsewhere(raw, host, written)

    def test_namesInScopes(self) -> None:
        for raw, name, written in (
            (b"/v2/a/tags/list", b"library/a", b"a"),
            (b"/v2/library/a/tags/list", b"library/a", b"library/a"),
            (b"/v2/ghcr.io/o/a/tags/list", b"o/a", b"ghcr.io/o/a"),
            (b"/ghcr.io/v2/o/a/tags/list", b"o/a", b"o/a"),
            (b"/v2/docker.io/a/tags/list", b"library/a", b"docker.io/a"),
        ):
            self.assertEqual(self.find(raw).spelling.writeName(name), written, raw)

    def test_tokenPath(self) -> None:
        for raw, host, path in (
            (b"/v2/", b"mirror.example", b"/token"),
            (b"/ghcr.io/v2/", b"mirror.example", b"/token/ghcr.io"),
            (b"/v2/localhost:5000/a/x", b"mirror.example", b"/token/localhost:5000"),
            (b"/v2/", b"ghcr.mirror.example", b"/token/ghcr.io"),
            (b"/v2/?ns=docker.io", b"ghcr.mirror.example", b"/token/docker.io"),
        ):
            self.assertEqual(self.find(raw, host).tokenPath, path)

    @given(st.binary(max_size=40), st.sampled_from([b"", b"/v2/ghcr.io", b"/ghcr.io/v2", b"/v2"]))
    def test_anything(self, raw: bytes, start: bytes) -> None:
        """Any target addresses a mirrored registry, or is refused."""
        try:
            found = self.find(start + b"/" + raw)
        except RequestRefused:
            return
        self.assertIn(found.registry, REGISTRIES)


class SecretPathTests(AddressingCase):
    secret = b"k3/y"

    def test_positions(self) -> None:
        for raw, name, own, before, after in (
            (b"/k3/y/v2/", b"docker.io", b"/v2/", b"/k3/y", b""),
            (b"/v2/k3/y/", b"docker.io", b"/v2/", b"", b"k3/y/"),
            (b"/k3/y/v2/a/tags/list", b"docker.io", b"/v2/library/a/tags/list", b"/k3/y", b""),
            (b"/v2/k3/y/a/tags/list", b"docker.io", b"/v2/library/a/tags/list", b"", b"k3/y/"),
            (b"/k3/y/ghcr.io/v2/a/x", b"ghcr.io", b"/v2/a/x", b"/k3/y/ghcr.io", b""),
            (b"/k3/y/v2/ghcr.io/a/x", b"ghcr.io", b"/v2/a/x", b"/k3/y", b"ghcr.io/"),
            (b"/v2/k3/y/ghcr.io/a/x?q", b"ghcr.io", b"/v2/a/x?q", b"", b"k3/y/ghcr.io/"),
            (b"/k3/y/token?a", b"docker.io", b"/token?a", b"/k3/y", b""),
            (b"/k3/y/token/ghcr.io", b"ghcr.io", b"/token", b"/k3/y", b""),
            (b"/k3/y", b"docker.io", b"/", b"/k3/y", b""),
        ):
            found = self.find(raw)
            self.assertEqual(
                (found.registry.name, found.target.raw, found.spelling[:2]),
                (name, own, (before, after)),
                raw,
            )

    def test_hidden(self) -> None:
        """As without the path: these targets name a registry only when they are decoded."""
        for raw in (
            b"/k3/y/v2/%67hcr.io/o/a/manifests/1",
            b"/k3/y//v2/ghcr.io/o/a/manifests/1",
            b"/k3/y/v2//ghcr.io/o/a/manifests/1",
            b"/v2/k3/y/%67hcr.io/o/a/manifests/1",
            b"/k3/y/x/../ghcr.io/v2/o/a/manifests/1",
        ):
            self.assertRaises(UnknownName, self.find, raw)

    def test_elsewhere(self) -> None:
        for raw, written in (
            (b"/k3/y/v2/a/x", b"/k3/y/u/1?s=%2f&&t"),
            (b"/v2/k3/y/a/x", b"/k3/y/u/1?s=%2f&&t"),
            (b"/k3/y/ghcr.io/v2/a/x", b"/k3/y/u/1?s=%2f&&t&ns=ghcr.io"),
            (b"/v2/k3/y/ghcr.io/a/x", b"/k3/y/u/1?s=%2f&&t&ns=ghcr.io"),
            (b"/v2/k3/y/a/x?ns=ghcr.io", b"/k3/y/u/1?s=%2f&&t&ns=ghcr.io"),
        ):
            self.assertElsewhere(raw, b"m", written)

    def test_nothingElse(self) -> None:
        for raw in (
            b"/v2/",
            b"/",
            b"/v2/a/tags/list",
            b"/k3",
            b"/k3/yy/v2/",
            b"/k3/Y/v2/",
            b"/x/k3/y/v2/",
            b"/v2/ghcr.io/k3/y/a/tags/list",
            b"/token",
            b"/k3%2Fy/v2/",
            b"//k3/y/v2/",
        ):
            self.assertRaises(NothingHere, self.find, raw)
            self.assertIs(self.addressing.kindOf(raw), Kind.OTHER)

    def test_shown(self) -> None:
        """The path is logged nowhere in a target, however it is written."""
        for raw, shown in (
            (b"/k3/y/v2/a/tags/list", b"/v2/a/tags/list"),
            (b"/v2/k3/y/a/tags/list", b"/v2/a/tags/list"),
            (b"/v2/k3%2Fy/a/tags/list", b"/v2/a/tags/list"),
            (b"/%6B%33/%79/v2/", b"/v2/"),
            (b"/k3/y/token?scope=repository:k3/y/a:pull", b"/token?scope=repository:a:pull"),
            (
                b"/k3/y/token?scope=repository%3Ak3%2Fy%2Fa%3Apull+repository%3ak3%2fy%2fb%3apull",
                b"/token?scope=repository%3Aa%3Apull+repository%3ab%3apull",
            ),
            (b"/v2/k3/y/a/blobs/uploads/?from=k3/y/b", b"/v2/a/blobs/uploads/?from=b"),
            (b"/v2/k3/y/a/blobs/uploads/?from=k3%2Fy%2Fb", b"/v2/a/blobs/uploads/?from=b"),
            (b"/k3?k3/y", b"/k3?"),
            (b"/k3/z/y", b"/k3/z/y"),
        ):
            self.assertEqual(self.addressing.shown(raw), shown)

    def test_tokenPath(self) -> None:
        self.assertEqual(self.find(b"/k3/y/v2/").tokenPath, b"/k3/y/token")
        self.assertEqual(self.find(b"/v2/k3/y/ghcr.io/a/x").tokenPath, b"/k3/y/token/ghcr.io")

    def test_mount(self) -> None:
        raw = b"/v2/k3/y/a/blobs/uploads/?mount=sha256:00&from=k3/y/b"
        self.assertEqual(
            self.find(raw).target.raw,
            b"/v2/library/a/blobs/uploads/?mount=sha256:00&from=library/b",
        )

    def test_mountWithoutPrefix(self) -> None:
        """A dot in the path does not make it the name of a registry."""
        self.addressing = Addressing(REGISTRIES, b"k8s.mirror1")
        for raw, own in (
            (
                b"/v2/k8s.mirror1/a/blobs/uploads/?mount=sha256:00&from=b",
                b"/v2/library/a/blobs/uploads/?mount=sha256:00&from=library/b",
            ),
            (
                b"/v2/k8s.mirror1/ghcr.io/a/blobs/uploads/?mount=sha256:00&from=b",
                b"/v2/a/blobs/uploads/",
            ),
        ):
            self.assertEqual(self.find(raw).target.raw, own)
