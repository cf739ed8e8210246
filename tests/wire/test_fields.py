"""
Tests of which fields are forwarded byte for byte in either direction, which are removed, and which
the mirror sets.
"""

from __future__ import annotations

from typing import ClassVar

from hubmirror.protocol.cors import CORS_FIELDS
from tests.wire.support import MemoryCase, Message, answer

Fields = tuple[tuple[bytes, bytes], ...]

#: Fields that are forwarded unchanged, whatever their value.
PASSED: Fields = (
    (b"User-Agent", b"docker/29.0 go/1.25 os/linux (x; y)  two  blanks"),
    (b"Accept", b"application/vnd.oci.image.index.v1+json, */*;q=0.5"),
    (b"Accept", b"a/b"),
    (b"Accept-Language", b"de;q=0.9,\ten"),
    (b"Authorization", b'Bearer "a\\"b" \xc3\xa9=='),
    (b"If-None-Match", b'W/"a,b", "\\"'),
    (b"If-Modified-Since", b"not a date at all"),
    (b"If-Range", b'"etag"'),
    (b"Range", b"bytes=0-0,5-,-9" + b",1-2" * 300),
    (b"X-Empty", b""),
    (b"X-Latin1", b"caf\xe9"),
    (b"X-Bytes", bytes(range(0x80, 0x100))),
    (b"X-Quotes", b"\"';,=<>{}[]\\"),
    (b"Cookie", b"a=b; c=d"),
    (b"Cookie2", b"null"),
)


class RequestFieldTests(MemoryCase):
    def ask(self, fields: Fields, **request: object) -> Message:
        """The request that the registry is sent for a client's request with these fields."""
        self.send(b"/v2/a/manifests/1", fields=fields, **request)
        return self.asked()

    def test_passed(self) -> None:
        asked = self.ask(PASSED)
        for name in dict(PASSED):
            self.assertEqual(
                asked.values(name), [value for other, value in PASSED if other == name], name
            )

    def test_nothingElse(self) -> None:
        """Only these fields are added to a client's."""
        names = sorted(name.lower() for name, _ in self.ask(()).fields)
        self.assertEqual(
            names,
            [
                b"accept-encoding",
                b"host",
                b"via",
                b"x-forwarded-for",
                b"x-forwarded-proto",
                b"x-real-ip",
                b"x-request-id",
            ],
        )

    def test_absentStayAbsent(self) -> None:
        self.assertNotIn(b"null", b"".join(value for _, value in self.ask(()).fields))

    def test_identity(self) -> None:
        """
        The request asks for no content coding, because clients that resume count the stored bytes.
        """
        asked = self.ask(((b"Accept-Encoding", b"zstd,gzip,deflate"),))
        self.assertEqual(asked.values(b"Accept-Encoding"), [b"identity"])

    def test_hostIsTheUpstreams(self) -> None:
        self.assertEqual(self.ask(()).values(b"Host"), [b"hub.example"])

    def test_hopByHop(self) -> None:
        """Hop-by-hop fields are removed, and so are those that C{Connection} names."""
        asked = self.ask(
            (
                (b"Connection", b"keep-alive, X-Named"),
                (b"Connection", b"x-other"),
                (b"Keep-Alive", b"timeout=5"),
                (b"Proxy-Authorization", b"Basic c2VjcmV0"),
                (b"Proxy-Connection", b"keep-alive"),
                (b"TE", b"trailers"),
                (b"Trailer", b"X-Sum"),
                (b"Upgrade", b"h2c"),
                (b"HTTP2-Settings", b"AAMAAABkAAQCAAAAAAIAAAAA"),
                (b"X-Named", b"1"),
                (b"X-Other", b"1"),
                (b"X-Stays", b"1"),
            )
        )
        names = {name.lower() for name, _ in asked.fields}
        self.assertIn(b"x-stays", names)
        self.assertEqual(
            names
            & {
                b"connection",
                b"keep-alive",
                b"proxy-authorization",
                b"proxy-connection",
                b"te",
                b"trailer",
                b"upgrade",
                b"http2-settings",
                b"x-named",
                b"x-other",
            },
            set(),
        )

    def test_via(self) -> None:
        """The mirror appends itself to C{Via}."""
        [via] = self.ask(((b"Via", b"1.0 first"), (b"Via", b"2 second"))).values(b"Via")
        self.assertRegex(via, rb"\A1\.0 first, 2 second, 1\.1 hubmirror-[0-9a-f]+\Z")

    def test_loop(self) -> None:
        """A request that has already passed through this mirror is refused."""
        [via] = self.ask(()).values(b"Via")
        got = self.local(b"/v2/", fields=((b"Via", b"1.1 other, " + via.upper()),))
        self.assertEqual((got.status, got.error), (508, "UNAVAILABLE"))

    def test_client(self) -> None:
        """The client's address is sent; what the client itself claims is not."""
        asked = self.ask(
            (
                (b"X-Forwarded-For", b"198.51.100.1"),
                (b"X-Forwarded-Proto", b"https"),
                (b"X-Forwarded-Host", b"evil.example"),
                (b"X-Forwarded-Port", b"1"),
                (b"X-Real-IP", b"198.51.100.1"),
                (b"Forwarded", b"for=198.51.100.1"),
            )
        )
        self.assertEqual(asked.values(b"X-Forwarded-For"), [b"192.0.2.7"])
        self.assertEqual(asked.values(b"X-Forwarded-Proto"), [b"http"])
        self.assertEqual(asked.values(b"X-Real-IP"), [b"192.0.2.7"])
        for name in (b"X-Forwarded-Host", b"X-Forwarded-Port", b"Forwarded"):
            self.assertEqual(asked.values(name), [], name)

    def test_clientOverTLS(self) -> None:
        asked = self.ask((), line=self.connect(secure=True, peer="2001:db8::7"))
        self.assertEqual(asked.values(b"X-Forwarded-For"), [b"2001:db8::7"])
        self.assertEqual(asked.values(b"X-Forwarded-Proto"), [b"https"])

    def test_clientBehindTrustedProxy(self) -> None:
        self.configure(trusted_proxy=("192.0.2.0/24",))
        asked = self.ask(
            (
                (b"X-Forwarded-For", b"203.0.113.5, 198.51.100.1, 192.0.2.9"),
                (b"X-Forwarded-Proto", b"https"),
            )
        )
        self.assertEqual(
            asked.values(b"X-Forwarded-For"),
            [b"203.0.113.5, 198.51.100.1, 192.0.2.9, 192.0.2.7"],
        )
        self.assertEqual(asked.values(b"X-Forwarded-Proto"), [b"https"])
        self.assertEqual(asked.values(b"X-Real-IP"), [b"198.51.100.1"])

    def test_noForwarded(self) -> None:
        self.configure(no_forwarded=True)
        asked = self.ask(((b"X-Forwarded-For", b"198.51.100.1"), (b"X-Real-IP", b"198.51.100.1")))
        self.assertFalse([name for name, _ in asked.fields if b"forward" in name.lower()])
        self.assertEqual(asked.values(b"X-Real-IP"), [])

    def test_otherServices(self) -> None:
        """The token service and the index are sent the client's address, too."""
        for target in (b"/token?service=a", b"/v1/search?q=a"):
            self.send(target)
            self.assertEqual(self.asked().values(b"X-Real-IP"), [b"192.0.2.7"], target)

    def test_credentials(self) -> None:
        """
        The registry and the token service are sent the client's credentials, the index is not.
        """
        secret = (b"Authorization", b"Basic c2VjcmV0")
        for target, expected in (
            (b"/v2/", [secret[1]]),
            (b"/token?service=a", [secret[1]]),
            (b"/v1/search?q=a", []),
        ):
            self.send(target, fields=(secret,))
            self.assertEqual(self.asked().values(b"Authorization"), expected, target)


class RedirectFieldTests(MemoryCase):
    def follow(self, location: bytes) -> Message:
        """The request to the target of a redirect."""
        self.send(
            b"/v2/a/blobs/sha256:1",
            fields=(
                (b"Authorization", b"Bearer secret"),
                (b"Cookie", b"a=b"),
                (b"Via", b"1.1 before"),
                (b"Forwarded", b"for=198.51.100.1"),
                (b"Range", b"bytes=5-"),
                (b"If-Range", b'"e"'),
                (b"If-None-Match", b'"f"'),
                (b"Accept", b"*/*"),
                (b"User-Agent", b"client"),
            ),
        )
        self.network.lines[-1].hears()
        self.network.lines[-1].says(answer(307, b"", ((b"Location", location),)))
        return self.asked()

    def test_acrossOrigins(self) -> None:
        """
        A redirect to another origin is followed without credentials and the client's address, but
        with the fields that affect the response.
        """
        asked = self.follow(b"https://cdn.example:8443/blob")
        self.assertEqual(
            sorted((name.lower(), value) for name, value in asked.fields),
            [
                (b"accept", b"*/*"),
                (b"accept-encoding", b"identity"),
                (b"host", b"cdn.example:8443"),
                (b"if-none-match", b'"f"'),
                (b"if-range", b'"e"'),
                (b"range", b"bytes=5-"),
                (b"user-agent", b"client"),
            ],
        )

    def test_sameOrigin(self) -> None:
        asked = self.follow(b"/elsewhere")
        self.assertEqual(asked.target, b"/elsewhere")
        self.assertEqual(asked.values(b"Authorization"), [b"Bearer secret"])
        self.assertEqual(asked.values(b"Cookie"), [b"a=b"])
        self.assertEqual(asked.values(b"X-Real-IP"), [b"192.0.2.7"])

    def test_bodyOfGet(self) -> None:
        """The body of a GET affects neither the redirect nor the next request."""
        for fields, body in (
            (((b"Content-Length", b"1"),), b"x"),
            (((b"Transfer-Encoding", b"chunked"),), b"1\r\nx\r\n0\r\n\r\n"),
        ):
            self.setUp()
            client = self.send(b"/v2/a", fields=fields)
            client.says(body)
            asked = self.asked()
            self.assertEqual(asked.values(b"Transfer-Encoding"), [])
            self.assertEqual(asked.values(b"Content-Length"), [])
            location = ((b"Location", b"https://cdn.example/blob"),)
            self.network.lines[-1].says(answer(307, b"", location))
            self.assertEqual(self.asked().target, b"/blob")
            self.network.lines[-1].says(answer(200, b"12345"))
            self.assertEqual(self.answered(client).body, b"12345")
            self.send(b"/v2/b", line=client)
            self.assertEqual(self.asked(0).target, b"/v2/b")

    def test_notBackAgain(self) -> None:
        """
        Credentials that were removed for another origin are not sent again if it redirects back.
        """
        self.follow(b"https://cdn.example/blob")
        self.network.lines[-1].says(answer(302, b"", ((b"Location", b"https://hub.example/x"),)))
        asked = self.asked(0)
        self.assertEqual(asked.target, b"/x")
        self.assertEqual(asked.values(b"Authorization"), [])


class AnswerFieldTests(MemoryCase):
    #: Fields that are passed on unchanged.
    fields: ClassVar[Fields] = (
        (b"Docker-Distribution-API-Version", b"registry/2.0"),
        (b"Docker-Content-Digest", b"sha256:1"),
        (b"ETag", b'W/"\\"'),
        (b"Content-Type", b"text/x; charset=\xe9"),
        (b"Content-Range", b"bytes 5-8/9"),
        (b"Accept-Ranges", b"bytes"),
        (b"RateLimit-Limit", b"100;w=21600"),
        (b"ratelimit-remaining", b"98;w=21600"),
        (b"docker-ratelimit-source", b"192.0.2.7"),
        (b"Retry-After", b"60"),
        (b"Last-Modified", b"no date"),
        (b"Cache-Control", b"public, max-age=1"),
        (b"Set-Cookie", b"a=b; Expires=Mon, 01 Jan 2024 00:00:00 GMT"),
        (b"Set-Cookie", b"c=d"),
        (b"X-Empty", b""),
        (b"X-Bytes", bytes(range(0x80, 0x100))),
        (b"X-Quotes", b"\"';,=<>{}[]\\"),
        (b"X-Null", b"null"),
    )

    def get(self, fields: Fields, **request: object) -> Message:
        return self.exchange(b"/v2/a", answer(200, b"body", fields), **request)[1]

    def test_passed(self) -> None:
        got = self.get(self.fields)
        for name in dict(self.fields):
            self.assertEqual(
                got.values(name),
                [value for other, value in self.fields if other == name],
                name,
            )
        self.assertEqual(got.body, b"body")

    def test_phrase(self) -> None:
        reply = b"HTTP/1.1 299 An unheard-of \xe9 phrase\r\nContent-Length: 0\r\n\r\n"
        got = self.exchange(b"/v2/a", reply)[1]
        self.assertEqual(got.start, b"HTTP/1.1 299 An unheard-of \xe9 phrase")

    def test_nothingElse(self) -> None:
        """A response without C{Content-Type} gets none; only these fields are added."""
        got = self.get(())
        self.assertEqual(got.values(b"Server"), [b"hubmirror"])
        names = sorted(name.lower() for name, _ in got.fields)
        self.assertEqual(
            names,
            [
                b"access-control-allow-origin",
                b"access-control-expose-headers",
                b"content-length",
                b"date",
                b"server",
                b"via",
                b"x-request-id",
            ],
        )

    def test_oneOnly(self) -> None:
        """A field that must occur only once does, with the upstream's value."""
        date = b"Mon, 01 Jan 2024 00:00:00 GMT"
        got = self.get(
            (
                (b"Content-Type", b"a/b"),
                (b"content-type", b"c/d"),
                (b"Date", date),
                (b"DATE", b"x"),
                (b"Server", b"nginx"),
                (b"Server", b"y"),
            )
        )
        self.assertEqual(got.values(b"Content-Type"), [b"a/b"])
        self.assertEqual(got.values(b"Date"), [date])
        self.assertEqual(got.values(b"Server"), [b"nginx"])
        self.assertEqual(got.values(b"Content-Length"), [b"4"])

    def test_hopByHop(self) -> None:
        got = self.get(
            (
                (b"Connection", b"keep-alive, X-Named"),
                (b"Keep-Alive", b"timeout=5"),
                (b"Proxy-Authenticate", b"Basic"),
                (b"Trailer", b"X-Sum"),
                (b"Upgrade", b"h2"),
                (b"X-Named", b"1"),
                (b"X-Stays", b"1"),
            )
        )
        names = {name.lower() for name, _ in got.fields}
        self.assertIn(b"x-stays", names)
        self.assertEqual(
            names
            & {
                b"connection",
                b"keep-alive",
                b"proxy-authenticate",
                b"trailer",
                b"upgrade",
                b"x-named",
            },
            set(),
        )

    def test_ofTheOrigin(self) -> None:
        """
        Fields that apply to the Hub's origin are removed, because they would apply to the mirror's.
        """
        named = (
            b"Refresh",
            b"Alt-Svc",
            b"Strict-Transport-Security",
            b"Clear-Site-Data",
            b"NEL",
            b"Report-To",
            b"Reporting-Endpoints",
        )
        got = self.get(tuple((name, b"x") for name in named))
        self.assertEqual([name for name in named if got.values(name)], [])

    def test_via(self) -> None:
        [via] = self.get(((b"Via", b"1.1 cdn"),)).values(b"Via")
        self.assertRegex(via, rb"\A1\.1 cdn, 1\.1 hubmirror-[0-9a-f]+\Z")

    def test_cors(self) -> None:
        got = self.get(((b"Access-Control-Allow-Origin", b"https://hub.example"),))
        for name, value in CORS_FIELDS:
            self.assertEqual(got.values(name), [value])

    def test_noCORS(self) -> None:
        self.configure(no_cors=True)
        got = self.get(((b"Access-Control-Allow-Origin", b"https://hub.example"),))
        self.assertFalse([name for name, _ in got.fields if b"access-control" in name.lower()])

    def test_cookiesAreNotKept(self) -> None:
        """A cookie that one client is sent is not sent with another client's request."""
        self.get(((b"Set-Cookie", b"session=secret"),))
        asked, _ = self.exchange(b"/v2/b", answer(200))
        self.assertEqual(asked.values(b"Cookie"), [])


class OtherServersTests(MemoryCase):
    """
    Fields that a CDN or a fallback sends about itself mean nothing to a client of the mirror.
    """

    said: Fields = (
        (b"Set-Cookie", b"a=b; Path=/"),
        (b"Set-Cookie2", b"c=d"),
        (b"Content-Location", b"/elsewhere"),
        (b"X-Stays", b"1"),
    )

    def test_registry(self) -> None:
        """The registry's own cookies are sent to the client of the request, as its challenge is."""
        got = self.exchange(b"/v2/a", answer(200, b"", self.said))[1]
        self.assertEqual(got.values(b"Set-Cookie"), [b"a=b; Path=/"])
        self.assertEqual(got.values(b"Set-Cookie2"), [b"c=d"])

    def test_cdn(self) -> None:
        """Cookies and C{Content-Location} of a CDN are removed."""
        client = self.send(b"/v2/a/blobs/sha256:1")
        location = ((b"Location", b"https://cdn.example/x"),)
        self.network.lines[-1].says(answer(307, b"", location))
        self.network.lines[-1].says(answer(200, b"", self.said))
        got = self.answered(client)
        self.assertEqual((got.status, got.values(b"X-Stays")), (200, [b"1"]))
        for name in (b"Set-Cookie", b"Set-Cookie2", b"Content-Location"):
            self.assertEqual(got.values(name), [], name)

    def test_sameOrigin(self) -> None:
        """A redirect within the registry's origin changes nothing."""
        client = self.send(b"/v2/a/blobs/sha256:1")
        self.network.lines[-1].says(answer(307, b"", ((b"Location", b"/x"),)))
        self.network.lines[-1].says(answer(200, b"", self.said))
        self.assertEqual(self.answered(client).values(b"Set-Cookie"), [b"a=b; Path=/"])

    def test_fallback(self) -> None:
        """Cookies of a fallback are removed, even those with its challenge."""
        for status in (200, 401):
            self.setUp()
            self.configure(fallback=["https://other.example"])
            client = self.send(b"/v2/")
            self.network.lines[-1].says(answer(429, b"", ((b"Set-Cookie", b"e=f"),)))
            self.assertEqual(self.network.origins[-1].host, b"other.example")
            self.network.lines[-1].says(answer(status, b"", self.said))
            got = self.answered(client)
            self.assertEqual((got.status, got.values(b"X-Stays")), (status, [b"1"]))
            self.assertEqual((got.values(b"Set-Cookie"), got.values(b"Set-Cookie2")), ([], []))

    def test_repeated(self) -> None:
        """A 429 is repeated to others from memory, without the cookies of the first response."""
        reply = answer(429, b"{}", ((b"Set-Cookie", b"session=secret"), (b"Retry-After", b"9")))
        for got in (
            self.exchange(b"/v2/a/manifests/1", reply)[1],
            self.local(b"/v2/a/manifests/1"),
        ):
            self.assertEqual((got.status, got.values(b"Set-Cookie")), (429, []))

    def test_contentLocation(self) -> None:
        """C{Content-Location} of the registry is changed to the mirror; any other is removed."""
        self.configure(registry_url="https://hub.example/sub")
        for value, expected in (
            (
                b"https://hub.example/sub/v2/a/manifests/2",
                [b"http://mirror.example/v2/a/manifests/2"],
            ),
            (b"//HUB.example/sub/v2/b", [b"http://mirror.example/v2/b"]),
            (b"/sub/v2/b", [b"http://mirror.example/v2/b"]),
            (b"c", [b"c"]),
            (b"https://cdn.example/v2/b", []),
            (b"//cdn.example/v2/b", []),
            (b"http://hub.example/v2/b", []),
            (b"https://hub.example:8443/v2/b", []),
            (b"ftp://hub.example/v2/b", []),
            (b"https://a@hub.example/v2/b", []),
        ):
            got = self.exchange(b"/v2/a", answer(200, b"", ((b"Content-Location", value),)))[1]
            self.assertEqual(got.values(b"Content-Location"), expected, value)
