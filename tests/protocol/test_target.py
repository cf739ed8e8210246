"""
Tests of targets: the route depends on the meaning, and the target is sent on as it was written.
"""

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.errors import BadRequest
from hubmirror.protocol.target import Kind, Target, readTarget, searchTarget
from tests import examples

DIGEST = b"sha256:" + b"ab" * 32

#: Spellings of the catalog that some server interprets as such.
CATALOGS = [
    b"/v2/_catalog",
    b"/v2/_catalog/",
    b"/v2/_catalog//",
    b"/v2/_catalog?n=1000&last=x",
    b"/v2/_catalog#x",
    b"/v2/_catalog#?n=1",
    b"/v2//_catalog",
    b"//v2/_catalog",
    b"///v2///_catalog",
    b"/./v2/_catalog",
    b"/v2/./_catalog",
    b"/v2/_catalog/.",
    b"/v2/x/../_catalog",
    b"/../v2/_catalog",
    b"/x/../v2/_catalog/y/..",
    b"/v2/%5Fcatalog",
    b"/v2/%5fcatalog",
    b"/v2/%255Fcatalog",
    b"/v2/%25255Fcatalog",
    b"/v2/_%63atalog",
    b"/%76%32/_catalog",
    b"/v2%2F_catalog",
    b"/v2%252f_catalog",
    b"%2Fv2/_catalog",
    b"/v2/%2E/_catalog",
    b"/v2/x/%2e%2E/_catalog",
    b"/v2/_catalog%2F",
    # For a server that decodes twice, and then splits off a query or a fragment.
    b"/v2/_catalog%3Fn=1",
    b"/v2/_catalog%23x",
    # For a server that decodes once or never before it removes dot segments.
    b"/v2/%252e%252e/../_catalog",
    b"/v2/%2e%2e/../_catalog",
    # For a server that decodes once, for which this is not a manifest called _catalog.
    b"/v2/x%252fmanifests%252fy/../_catalog",
    # For a server that removes dot segments before it merges slashes.
    b"/v2/x//../../_catalog",
    # For a server that does not end a path at the "#".
    b"/v2/x#/../_catalog",
]

NOT_CATALOGS = [
    b"/v2/_catalogue",
    b"/v2/_Catalog",
    b"/V2/_catalog",
    b"/v2/library/_catalog",
    b"/v2/library/debian/manifests/_catalog",
    b"/v2/library/debian/manifests/x?y=/../_catalog",
    b"/_catalog",
    b"/v2/_cat/alog",
]

pieces = st.sampled_from(
    b"/ // /.. v2 _catalog x manifests % 25 %2f %252f %2E %5f # ? %23 %00 ; & ns= =".split()
)
segments = st.sampled_from([*b". .. %2e%2e %252e%252e x x%2Fy x%252fy x# x%23 v2".split(), b""])
soup = st.one_of(
    st.lists(segments, max_size=4).map(lambda some: b"/".join([b"/v2", *some, b"_catalog"])),
    st.lists(pieces, max_size=12).map(lambda some: b"/" + b"".join(some)),
    st.binary(max_size=40),
)


@st.composite
def catalogs(draw: st.DrawFn) -> bytes:
    """
    The catalog, with any of its bytes encoded any number of times, and with detours at its slashes.
    """
    slash = st.sampled_from([b"/", b"//", b"/./", b"/x/../", b"/x/.//.././"])
    written = b""
    for part in (b"v2", b"_catalog"):
        written += draw(slash) + part
    written += draw(st.sampled_from([b"", b"/", b"/."]))
    for _ in range(draw(st.integers(0, 3))):
        chosen = draw(st.sets(st.integers(1, len(written) - 1)))
        written = b"".join(
            b"%%%02x" % byte if place in chosen else bytes([byte])
            for place, byte in enumerate(written)
        )
    return written


def readings(path: bytes) -> Iterator[bytes]:
    """
    The interpretations of a path by servers, however often they decode it, and wherever it ends for
    them.
    """
    while True:
        for read in (path, re.split(b"[?#]", path)[0]):
            yield posixpath.normpath(b"/" + read.lstrip(b"/"))
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return
        path = decoded


def kindOf(raw: bytes) -> Kind:
    return readTarget(raw).kind


class CatalogTests(SynchronousTestCase):
    def test_spellings(self) -> None:
        for raw in CATALOGS:
            self.assertIs(kindOf(raw), Kind.CATALOG, raw)

    def test_others(self) -> None:
        for raw in NOT_CATALOGS:
            self.assertIsNot(kindOf(raw), Kind.CATALOG, raw)

    @given(catalogs())
    def test_anySpelling(self, raw: bytes) -> None:
        self.assertIs(kindOf(raw), Kind.CATALOG)

    @examples(4)
    @given(soup)
    def test_noWayPast(self, raw: bytes) -> None:
        """
        A target that any server could interpret as the catalog is the catalog; all others are read
        or refused.
        """
        try:
            kind = kindOf(raw)
        except BadRequest:
            return
        if b"/v2/_catalog" in readings(raw.partition(b"?")[0]):
            self.assertIs(kind, Kind.CATALOG)


class KindTests(SynchronousTestCase):
    def test_fixed(self) -> None:
        for raw, kind in (
            (b"/v2/", Kind.PING),
            (b"/v2", Kind.PING),
            (b"/v2/?x", Kind.PING),
            (b"//v2/", Kind.PING),
            (b"/token", Kind.TOKEN),
            (b"/token/?service=x", Kind.TOKEN),
            (b"/%74oken", Kind.TOKEN),
            (b"/v1/search?q=x", Kind.SEARCH),
            (b"/v1/search", Kind.SEARCH),
            (b"/v1/_ping", Kind.SEARCH_PING),
            (b"/", Kind.ROOT),
            (b"/v1/", Kind.OTHER),
            (b"/tokens", Kind.OTHER),
            (b"/v2/token", Kind.OTHER),
            (b"/v2/library/debian", Kind.OTHER),
            (b"/v2/library/debian/tags", Kind.OTHER),
            (b"/v2/library/debian/tags/other", Kind.OTHER),
            (b"/v2/manifests/latest", Kind.OTHER),
            (b"*", Kind.ROOT),
            (b"", Kind.ROOT),
        ):
            self.assertIs(kindOf(raw), kind, raw)

    def test_inARepository(self) -> None:
        for raw, kind, repository, reference in (
            (b"/v2/library/debian/manifests/12", Kind.MANIFEST, b"library/debian", b"12"),
            (b"/v2/debian/manifests/" + DIGEST, Kind.MANIFEST, b"debian", DIGEST),
            (b"/v2/debian/manifests/sha256%3Aab", Kind.MANIFEST, b"debian", b"sha256:ab"),
            (b"/v2/a/b/c/d/blobs/" + DIGEST + b"?x=1", Kind.BLOB, b"a/b/c/d", DIGEST),
            (b"/v2/a/blobs/uploads/", Kind.UPLOAD, b"a", None),
            (b"/v2/a/blobs/uploads", Kind.UPLOAD, b"a", None),
            (b"/v2/a/blobs/uploads/?mount=x&from=y", Kind.UPLOAD, b"a", None),
            (b"/v2/a/blobs/uploads/7f-1?_state=x", Kind.UPLOAD, b"a", b"7f-1"),
            # GHCR writes its locations so.
            (b"/v2/a/blobs/upload/7f-1?digest=x", Kind.UPLOAD, b"a", b"7f-1"),
            (b"/v2/a/blobs/upload", Kind.BLOB, b"a", b"upload"),
            (b"/v2/a/blobs/upload/", Kind.BLOB, b"a", b"upload"),
            (b"/v2/a/blobs/upload/manifests/x", Kind.MANIFEST, b"a/blobs/upload", b"x"),
            (b"/v2/a/b/tags/list?n=10&last=x", Kind.TAGS, b"a/b", None),
            (b"/v2/a/tags/list/", Kind.TAGS, b"a", None),
            (b"/v2/a/referrers/" + DIGEST, Kind.REFERRERS, b"a", DIGEST),
            # Names that are also words of the protocol.
            (b"/v2/manifests/blobs/manifests/latest", Kind.MANIFEST, b"manifests/blobs", b"latest"),
            (b"/v2/a/blobs/uploads/manifests/x", Kind.MANIFEST, b"a/blobs/uploads", b"x"),
            (b"/v2/tags/list/tags/list", Kind.TAGS, b"tags/list", None),
        ):
            target = readTarget(raw)
            found = (target.kind, target.repository, target.reference)
            self.assertEqual(found, (kind, repository, reference), raw)

    def test_nul(self) -> None:
        for raw in (b"/v2/\0", b"/v2/a%00/manifests/x", b"/v2/a%2500", b"/v2/a#%00"):
            self.assertRaises(BadRequest, readTarget, raw)
        readTarget(b"/token?scope=%00")


class RawTests(SynchronousTestCase):
    def test_namespaces(self) -> None:
        for raw, sent, namespaces in (
            (b"/v2/?ns=docker.io", b"/v2/", (b"docker.io",)),
            (b"/v2/a?x=1&ns=docker.io&y=%2f", b"/v2/a?x=1&y=%2f", (b"docker.io",)),
            (b"/v2/a?ns=docker.io&ns=quay.io", b"/v2/a", (b"docker.io", b"quay.io")),
            (b"/v2/a?ns=Reg.Example%3A5000", b"/v2/a", (b"reg.example:5000",)),
            (b"/v2/a?ns=", b"/v2/a", (b"",)),
            # Without ns, nothing changes.
            (b"/v2/a?dns=x&&NS=y&answers=", b"/v2/a?dns=x&&NS=y&answers=", ()),
            (b"/v2/a?x=ns=", b"/v2/a?x=ns=", ()),
            (b"/v2/a?", b"/v2/a?", ()),
            (b"/v2/ns=docker.io", b"/v2/ns=docker.io", ()),
        ):
            target = readTarget(raw)
            self.assertEqual((target.raw, target.namespaces), (sent, namespaces), raw)

    def test_ping(self) -> None:
        """C{/v2} is sent as C{/v2/}, which every registry supports."""
        for raw, sent in ((b"/v2", b"/v2/"), (b"/v2?x=1", b"/v2/?x=1"), (b"/%762", b"/v2/")):
            self.assertEqual(readTarget(raw).raw, sent)

    @given(soup)
    def test_byteForByte(self, raw: bytes) -> None:
        try:
            target = readTarget(raw)
        except BadRequest:
            return
        self.assertIsInstance(target, Target)
        if not target.namespaces and target.path != b"/v2":
            self.assertEqual(target.raw, raw)


class SearchTests(SynchronousTestCase):
    def test_table(self) -> None:
        for query, sent in (
            (b"q=debian", b"q=debian"),
            (b"q=library/debian", b"q=debian"),
            (b"q=library%2Fdebian", b"q=debian"),
            (b"q=library%2fdebian&n=25", b"q=debian&n=25"),
            (b"q=Library/debian", b"q=debian"),
            (b"q=library/", b"q=library"),
            (b"q=library%2F", b"q=library"),
            (b"q=library", b"q=library"),
            (b"q=library/library/x", b"q=library/x"),
            (b"q=mylibrary/x", b"q=mylibrary/x"),
            (b"q=user/library/x", b"q=user/library/x"),
            (b"n=5&q=library/a+b%20c&page=2&&x", b"n=5&q=a+b%20c&page=2&&x"),
            (b"qq=library/x&x=q=library/y", b"qq=library/x&x=q=library/y"),
            (b"", b""),
        ):
            self.assertEqual(searchTarget(b"/v1/search?" + query), b"/v1/search?" + sent, query)

    def test_noQuery(self) -> None:
        self.assertEqual(searchTarget(b"/v1/search"), b"/v1/search")

    @given(st.lists(soup | st.just(b"q=library/") | st.just(b"q=library%2F"), max_size=4))
    def test_foreign(self, parts: list[bytes]) -> None:
        """Of all bytes, only those before a name change."""
        query = b"&".join(parts)
        path, _, sent = searchTarget(b"/v1/search?" + query).partition(b"?")
        self.assertEqual(path, b"/v1/search")
        for old, new in zip(query.split(b"&"), sent.split(b"&"), strict=True):
            name = new.removeprefix(b"q=")
            self.assertTrue(new == old or name == b"library" or old.endswith(name), (old, new))


class DecodingTests(SynchronousTestCase):
    def test_oftenEncoded(self) -> None:
        """
        A path that is encoded many times is refused, because each round of decoding takes time in
        proportion to its length.
        """
        self.assertEqual(readTarget(b"/v2/" + b"%25" * 3 + b"2Fa").kind, Kind.OTHER)
        for path in (b"/v2/%" + b"25" * 8 + b"41", b"/%" + b"25" * 6000):
            self.assertRaises(BadRequest, readTarget, path)
