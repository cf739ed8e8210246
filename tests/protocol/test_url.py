"""Tests of URLs: they are split and resolved without changing a byte of what is sent."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.url import Origin, parseAuthority, removeDotSegments, resolve, splitURL

HUB = b"https://registry-1.docker.io/v2/library/debian/blobs/sha256:ab?x=1"

SIGNED = (
    b"https://production.cloudfront.docker.com/registry-v2/docker/registry/v2/blobs/sha256/ab/data"
    b"?Expires=1767225600&Signature=Ab~c-d_%2B%2f==&Key-Pair-Id=K1&&empty=&a=;b,c:@'()*!$|^`{}\\"
)

#: The examples of RFC 3986 5.4 with the base http://a/b/c/d;p?q; fragments are removed.
RFC3986 = [
    (b"g", b"http://a/b/c/g"),
    (b"./g", b"http://a/b/c/g"),
    (b"g/", b"http://a/b/c/g/"),
    (b"/g", b"http://a/g"),
    (b"//g", b"http://g"),
    (b"?y", b"http://a/b/c/d;p?y"),
    (b"g?y", b"http://a/b/c/g?y"),
    (b"#s", b"http://a/b/c/d;p?q"),
    (b"g#s", b"http://a/b/c/g"),
    (b"g?y#s", b"http://a/b/c/g?y"),
    (b";x", b"http://a/b/c/;x"),
    (b"g;x", b"http://a/b/c/g;x"),
    (b"g;x?y#s", b"http://a/b/c/g;x?y"),
    (b"", b"http://a/b/c/d;p?q"),
    (b".", b"http://a/b/c/"),
    (b"./", b"http://a/b/c/"),
    (b"..", b"http://a/b/"),
    (b"../", b"http://a/b/"),
    (b"../g", b"http://a/b/g"),
    (b"../..", b"http://a/"),
    (b"../../", b"http://a/"),
    (b"../../g", b"http://a/g"),
    (b"../../../g", b"http://a/g"),
    (b"../../../../g", b"http://a/g"),
    (b"g.", b"http://a/b/c/g."),
    (b".g", b"http://a/b/c/.g"),
    (b"g..", b"http://a/b/c/g.."),
    (b"..g", b"http://a/b/c/..g"),
    (b"./../g", b"http://a/b/g"),
    (b"./g/.", b"http://a/b/c/g/"),
    (b"g/./h", b"http://a/b/c/g/h"),
    (b"g/../h", b"http://a/b/c/h"),
    (b"g;x=1/./y", b"http://a/b/c/g;x=1/y"),
    (b"g;x=1/../y", b"http://a/b/c/y"),
    (b"g?y/./x", b"http://a/b/c/g?y/./x"),
    (b"g?y/../x", b"http://a/b/c/g?y/../x"),
    (b"g#s/./x", b"http://a/b/c/g"),
    # This differs from the RFC: the path of an absolute location is not changed, since it may be
    # signed.
    (b"/./g", b"http://a/./g"),
    (b"/../g", b"http://a/../g"),
]

targets = st.binary(max_size=60).map(lambda tail: b"/" + tail)
visible = st.lists(st.integers(0x21, 0x7E), max_size=60).map(bytes)


class SplitTests(SynchronousTestCase):
    def test_table(self) -> None:
        for url, origin, target in (
            (b"https://a", Origin(b"https", b"a", 443), b"/"),
            (b"http://a:80/", Origin(b"http", b"a", 80), b"/"),
            (b"HTTPS://A.Example:8443/B", Origin(b"https", b"a.example", 8443), b"/B"),
            (b"https://a:/", Origin(b"https", b"a", 443), b"/"),
            (b"https://a?q", Origin(b"https", b"a", 443), b"/?q"),
            (b"https://a/p?q#f?g", Origin(b"https", b"a", 443), b"/p?q"),
            (b"https://a#f", Origin(b"https", b"a", 443), b"/"),
            (b"https://[2001:DB8::1]:5000//x", Origin(b"https", b"2001:db8::1", 5000), b"//x"),
        ):
            self.assertEqual(splitURL(url), (origin, target), url)

    def test_refused(self) -> None:
        for url in (
            b"",
            b"/v2/",
            b"a.example/v2/",
            b"//a.example/",
            b"ftp://a.example/",
            b"javascript://a/%0aalert(1)",
            b"https:///path",
            b"https://user@a.example/",
            b"https://user:secret@a.example/",
            b"https://a.example:port/",
            b"https://a.example:0/",
            b"https://a.example:65536/",
            b"https://a.example:443:443/",
            b"https://2001:db8::1/",
            b"https://[2001:db8::1/",
            b"https://[fe80::1%25eth0]/",
            b"https://a b/",
            b"https://a\\@b/",
            b"https://a%2eexample/",
            b"https://\xc3\xa4.example/",
            b"https://%b/" % (b"a" * 256),
        ):
            self.assertRaises(ValueError, splitURL, url)

    def test_signed(self) -> None:
        self.assertEqual(SIGNED, b"https://production.cloudfront.docker.com" + splitURL(SIGNED)[1])

    @given(targets)
    def test_targetStays(self, target: bytes) -> None:
        self.assertEqual(splitURL(b"https://a.example" + target)[1], target.partition(b"#")[0])


class OriginTests(SynchronousTestCase):
    def test_authority(self) -> None:
        for origin, authority in (
            (Origin(b"https", b"a.example", 443), b"a.example"),
            (Origin(b"https", b"a.example", 80), b"a.example:80"),
            (Origin(b"http", b"a.example", 80), b"a.example"),
            (Origin(b"https", b"::1", 443), b"[::1]"),
            (Origin(b"http", b"::1", 5000), b"[::1]:5000"),
        ):
            self.assertEqual(origin.authority, authority)
            self.assertEqual(parseAuthority(authority, origin.scheme), origin)
            self.assertEqual(str(origin), f"{origin.scheme.decode()}://{authority.decode()}")


class ResolveTests(SynchronousTestCase):
    def test_rfc3986(self) -> None:
        for reference, expected in RFC3986:
            self.assertEqual(resolve(b"http://a/b/c/d;p?q", reference), expected, reference)

    def test_signed(self) -> None:
        self.assertEqual(resolve(HUB, SIGNED), SIGNED)
        path = SIGNED.removeprefix(b"https://production.cloudfront.docker.com")
        self.assertEqual(resolve(HUB, path), b"https://registry-1.docker.io" + path)

    def test_schemeOfTheBase(self) -> None:
        self.assertEqual(resolve(HUB, b"//cdn.example/x"), b"https://cdn.example/x")

    def test_portOfTheBase(self) -> None:
        self.assertEqual(resolve(b"http://[::1]:5000/a", b"b"), b"http://[::1]:5000/b")

    def test_unsafeBytes(self) -> None:
        """Bytes that would end the request line early are encoded."""
        for reference, expected in (
            (b"/a b", b"/a%20b"),
            (b"/\r\nHost: evil", b"/%0D%0AHost:%20evil"),
            (b"/\xc3\xa4?\xff\x00", b"/%C3%A4?%FF%00"),
            (b"/a%20b", b"/a%20b"),
        ):
            self.assertEqual(resolve(HUB, reference), b"https://registry-1.docker.io" + expected)

    def test_refused(self) -> None:
        for reference in (
            b"g:h",
            b"http:g",
            b"javascript:alert(1)",
            b"mailto:a@b.example",
            b"file:///etc/passwd",
            b"///path",
            b"//user:secret@a.example/",
            b"https://a.example\\@evil.example/",
            b"https://a.example\r\n.evil.example/",
            b"https://a.example:99999/",
        ):
            self.assertRaises(ValueError, resolve, HUB, reference)

    @given(st.one_of(st.binary(max_size=80), visible))
    def test_anything(self, reference: bytes) -> None:
        """For any C{Location}, the result is a URL that fits into a request line, or an error."""
        try:
            target = resolve(HUB, reference)
        except ValueError:
            return
        self.assertRegex(target, rb"\Ahttps?://[!-~]+\Z")
        splitURL(target)

    @given(visible)
    def test_absoluteStays(self, tail: bytes) -> None:
        url = b"https://cdn.example/" + tail
        self.assertEqual(resolve(HUB, url), url.partition(b"#")[0])


class DotSegmentTests(SynchronousTestCase):
    @given(st.lists(st.sampled_from([b".", b"..", b"", b"a", b"b.", b"..."])))
    def test_properties(self, segments: list[bytes]) -> None:
        path = b"/" + b"/".join(segments)
        removed = removeDotSegments(path)
        self.assertTrue(removed.startswith(b"/"))
        self.assertFalse({b".", b".."} & set(removed.split(b"/")))
        self.assertEqual(removeDotSegments(removed), removed)
        if not {b".", b".."} & set(segments):
            self.assertEqual(removed, path)
