"""Tests of which fields are forwarded in each direction."""

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.fields import (
    acrossOrigins,
    forClient,
    forFallback,
    forUpstream,
    hasPassed,
    hasPassword,
)
from hubmirror.protocol.forwarded import Client

VIA = b"hubmirror-12ab34cd"

HOP_BY_HOP = [
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Authorization",
    b"Proxy-Authenticate",
    b"Proxy-Connection",
    b"Proxy-Whatever",
    b"TE",
    b"Trailer",
    b"Transfer-Encoding",
    b"Upgrade",
    b"HTTP2-Settings",
]

PASS_UP = [
    (b"Authorization", b"Bearer abc"),
    (b"Cookie", b"a=b"),
    (b"User-Agent", b"docker/28.0 go/go1.24"),
    (b"Accept", b"application/vnd.oci.image.index.v1+json, */*"),
    (b"Accept-Language", b"de"),
    (b"Range", b"bytes=0-99"),
    (b"If-Range", b'"x"'),
    (b"If-None-Match", b'"x", "y"'),
    (b"If-Modified-Since", b"Thu, 01 Jan 2026 00:00:00 GMT"),
    (b"Content-Type", b"application/octet-stream"),
    (b"Content-Range", b"0-99"),
    (b"X-Meta-Source-Client", b"containerd"),
]

OF_THE_CLIENT = [
    (b"Forwarded", b"for=192.0.2.1"),
    (b"X-Forwarded-For", b"192.0.2.1"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"mirror.example"),
    (b"X-Forwarded-Anything", b"x"),
    (b"X-Real-IP", b"192.0.2.1"),
    (b"Via", b"1.1 other"),
]

PASS_DOWN = [
    (b"Content-Type", b"application/vnd.oci.image.manifest.v1+json"),
    (b"Content-Length", b"7"),
    (b"Content-Range", b"bytes 0-6/100"),
    (b"Accept-Ranges", b"bytes"),
    (b"Docker-Distribution-API-Version", b"registry/2.0"),
    (b"Docker-Content-Digest", b"sha256:ab"),
    (b"Docker-Upload-UUID", b"7f"),
    (b"Etag", b'"sha256:ab"'),
    (b"Date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
    (b"Server", b"nginx"),
    (b"Ratelimit-Limit", b"100;w=21600"),
    (b"Ratelimit-Remaining", b"76;w=21600"),
    (b"Docker-Ratelimit-Source", b"192.0.2.1"),
    (b"Retry-After", b"60"),
    (b"Link", b'</v2/x/tags/list?last=y>; rel="next"'),
    (b"Location", b"/v2/x/blobs/uploads/7f"),
    (b"Www-Authenticate", b'Bearer realm="https://auth.docker.io/token"'),
    (b"Set-Cookie", b"a=b"),
]


def headersOf(*fields: tuple[bytes, bytes]) -> Headers:
    headers = Headers()
    for name, value in fields:
        headers.addRawHeader(name, value)
    return headers


def up(headers: Headers, client: Client | None = None) -> Headers:
    return forUpstream(headers, client, b"https", VIA, b"1.1")


class UpstreamTests(SynchronousTestCase):
    def test_pass(self) -> None:
        passed = up(headersOf(*PASS_UP))
        for name, value in PASS_UP:
            self.assertEqual(passed.getRawHeaders(name), [value], name)

    def test_hopByHop(self) -> None:
        passed = up(headersOf(*((name, b"x") for name in HOP_BY_HOP)))
        for name in HOP_BY_HOP:
            self.assertFalse(passed.hasHeader(name), name)

    def test_namedByConnection(self) -> None:
        passed = up(
            headersOf(
                (b"Connection", b"close, X-A"),
                (b"Connection", b" x-b ,"),
                (b"X-A", b"1"),
                (b"X-B", b"2"),
                (b"X-C", b"3"),
            )
        )
        self.assertFalse(passed.hasHeader(b"X-A"))
        self.assertFalse(passed.hasHeader(b"X-B"))
        self.assertEqual(passed.getRawHeaders(b"X-C"), [b"3"])

    def test_ownFraming(self) -> None:
        """Fields that the mirror sets itself are not duplicated."""
        names = (b"Host", b"Content-Length", b"Expect")
        passed = up(headersOf(*((name, b"x") for name in names)))
        for name in names:
            self.assertFalse(passed.hasHeader(name), name)

    def test_identity(self) -> None:
        for fields in ((), ((b"Accept-Encoding", b"gzip, zstd"),)):
            passed = up(headersOf(*fields))
            self.assertEqual(passed.getRawHeaders(b"Accept-Encoding"), [b"identity"])

    def test_via(self) -> None:
        for before, after in (
            ([], b"1.1 " + VIA),
            ([b"1.0 a"], b"1.0 a, 1.1 " + VIA),
            ([b"1.0 a, 2 b", b"1.1 c"], b"1.0 a, 2 b, 1.1 c, 1.1 " + VIA),
        ):
            passed = up(headersOf(*((b"Via", value) for value in before)))
            self.assertEqual(passed.getRawHeaders(b"Via"), [after])

    def test_nothingOfTheClient(self) -> None:
        """Without a client address, no field has one, whatever the client sent."""
        for client in (None, Client(None)):
            passed = up(headersOf(*OF_THE_CLIENT), client)
            for name, _ in OF_THE_CLIENT:
                if name != b"Via":
                    self.assertFalse(passed.hasHeader(name), name)

    def test_client(self) -> None:
        """
        The chain of the L{Client} is passed on; forwarding fields of the request itself are not.
        """
        client = Client(ip_address("192.0.2.7"), (b"192.0.2.7", b"10.0.0.1"))
        passed = up(headersOf(*OF_THE_CLIENT), client)
        for name, values in (
            (b"X-Forwarded-For", [b"192.0.2.7, 10.0.0.1"]),
            (b"X-Forwarded-Proto", [b"https"]),
            (b"X-Real-IP", [b"192.0.2.7"]),
            (b"X-Forwarded-Host", None),
            (b"Forwarded", None),
        ):
            self.assertEqual(passed.getRawHeaders(name), values, name)

    def test_originalStays(self) -> None:
        original = headersOf(*PASS_UP, *OF_THE_CLIENT)
        before = original.copy()
        up(original)
        acrossOrigins(original)
        self.assertEqual(original, before)


class AcrossOriginsTests(SynchronousTestCase):
    def test_stop(self) -> None:
        passed = acrossOrigins(
            headersOf((b"Authorization", b"Basic x"), (b"Cookie", b"a=b"), *OF_THE_CLIENT)
        )
        self.assertEqual(list(passed.getAllRawHeaders()), [])

    def test_pass(self) -> None:
        fields = [field for field in PASS_UP if field[0] not in (b"Authorization", b"Cookie")]
        fields.append((b"Accept-Encoding", b"identity"))
        self.assertEqual(acrossOrigins(headersOf(*fields)), headersOf(*fields))


class FallbackTests(SynchronousTestCase):
    def test_stop(self) -> None:
        """Passwords, whatever their scheme, and cookies are for the registry alone."""
        for value in (b"Basic x", b"basic x", b"Digest x", b"Negotiate x", b"x", b""):
            original = headersOf((b"Authorization", value), (b"Cookie", b"a=b"), (b"Range", b"x"))
            before = original.copy()
            self.assertTrue(hasPassword(original))
            self.assertEqual(forFallback(original), headersOf((b"Range", b"x")))
            self.assertEqual(original, before)
        self.assertTrue(
            hasPassword(headersOf((b"Authorization", b"Bearer x"), (b"Authorization", b"Basic x")))
        )

    def test_pass(self) -> None:
        for fields in (headersOf(), headersOf((b"Authorization", b"BEARER x"), *OF_THE_CLIENT)):
            self.assertFalse(hasPassword(fields))
            self.assertEqual(forFallback(fields), fields)


class ClientTests(SynchronousTestCase):
    def test_pass(self) -> None:
        passed = forClient(headersOf(*PASS_DOWN), VIA, 1)
        for name, value in PASS_DOWN:
            self.assertEqual(passed.getRawHeaders(name), [value], name)

    def test_stop(self) -> None:
        """Hop-by-hop fields, and those that apply to the upstream's origin, are removed."""
        names = [
            *HOP_BY_HOP,
            b"X-Named",
            b"Alt-Svc",
            b"Strict-Transport-Security",
            b"Clear-Site-Data",
            b"NEL",
            b"Report-To",
            b"Access-Control-Allow-Origin",
            b"Access-Control-Allow-Credentials",
        ]
        fields = [(name, b"x") for name in names if name != b"Connection"]
        passed = forClient(headersOf((b"Connection", b"x-named"), *fields), VIA, 1)
        for name in names:
            self.assertFalse(passed.hasHeader(name), name)

    def test_exactlyOne(self) -> None:
        for name in (b"Content-Type", b"Content-Length", b"Date", b"Server"):
            passed = forClient(headersOf((name, b"1"), (name, b"2")), VIA, 1)
            self.assertEqual(passed.getRawHeaders(name), [b"1"], name)

    def test_several(self) -> None:
        fields = [
            (b"Link", b"<a>"),
            (b"Link", b"<b>"),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
        ]
        passed = forClient(headersOf(*fields), VIA, 1)
        self.assertEqual(passed.getRawHeaders(b"Link"), [b"<a>", b"<b>"])
        self.assertEqual(passed.getRawHeaders(b"Set-Cookie"), [b"a", b"b"])

    def test_via(self) -> None:
        """The C{Via} field has the upstream's version of HTTP."""
        for minor, value in ((0, b"1.1 cache, 1.0 " + VIA), (1, b"1.1 cache, 1.1 " + VIA)):
            passed = forClient(headersOf((b"Via", b"1.1 cache")), VIA, minor)
            self.assertEqual(passed.getRawHeaders(b"Via"), [value])


class LoopTests(SynchronousTestCase):
    def test_table(self) -> None:
        for values, expected in (
            ([], False),
            ([b"1.1 " + VIA], True),
            ([b"1.1 a, 2 " + VIA.upper() + b", 1.1 b"], True),
            ([b"1.1 a", b"1.1 " + VIA], True),
            ([b"1.1 hubmirror-00000000"], False),
            ([b"1.1 x" + VIA], False),
        ):
            headers = headersOf(*((b"Via", value) for value in values))
            self.assertEqual(hasPassed(headers, VIA), expected, values)

    def test_ownRequest(self) -> None:
        self.assertTrue(hasPassed(up(headersOf((b"Via", b"1.0 a"))), VIA))
        # Names of hosts are compared without regard to case.
        for via in (b"1.1 Mirror-A", b"1.1 mirror-a"):
            self.assertTrue(hasPassed(headersOf((b"Via", via)), b"Mirror-A"))
