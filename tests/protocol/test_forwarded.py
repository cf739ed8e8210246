"""Tests of the client's address behind trusted and untrusted proxies."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.forwarded import Client, findClient, isIn, unmapped

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
PROXY = ip_address("10.0.0.1")


def client(peer: object = PROXY, **fields: list[bytes] | bytes) -> Client:
    headers = Headers()
    for name, values in fields.items():
        for value in [values] if isinstance(values, bytes) else values:
            headers.addRawHeader(name.replace("_", "-"), value)
    return findClient(None if peer is None else ip_address(peer), headers, TRUSTED)


class TrustTests(SynchronousTestCase):
    def test_untrusted(self) -> None:
        """An untrusted peer is the client, whatever it sends."""
        for peer in ("192.0.2.1", "2001:db9::1", "127.0.0.1"):
            found = client(
                peer,
                Forwarded=b"for=1.2.3.4;proto=https;host=evil.example",
                X_Forwarded_For=b"1.2.3.4",
                X_Forwarded_Proto=b"https",
                X_Forwarded_Host=b"evil.example",
            )
            self.assertEqual(found, Client(ip_address(peer), (peer.encode(),)))

    def test_noAddress(self) -> None:
        self.assertEqual(client(None, X_Forwarded_For=b"1.2.3.4"), Client(None))

    def test_dualStack(self) -> None:
        """An IPv4 client on a dual-stack socket has its IPv4 address."""
        self.assertEqual(str(client("::ffff:192.0.2.1").address), "192.0.2.1")
        found = client("::ffff:10.0.0.1", X_Forwarded_For=b"192.0.2.9")
        self.assertEqual(
            (str(found.address), found.chain), ("192.0.2.9", (b"192.0.2.9", b"10.0.0.1"))
        )

    def test_isIn(self) -> None:
        self.assertTrue(isIn(ip_address("2001:db8::1"), TRUSTED))
        self.assertFalse(isIn(ip_address("2001:db9::1"), TRUSTED))
        self.assertFalse(isIn(None, [ip_network("0.0.0.0/0"), ip_network("::/0")]))

    def test_unmapped(self) -> None:
        for written, expected in (
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::1", "::1"),
            ("10.0.0.1", "10.0.0.1"),
        ):
            self.assertEqual(unmapped(ip_address(written)), ip_address(expected))


class ChainTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        """
        The client is the last hop that is not a trusted proxy; hops before it are not trusted.
        """
        for hops, address in (
            ([], "10.0.0.1"),
            ([b"192.0.2.1"], "192.0.2.1"),
            ([b"1.1.1.1, 192.0.2.1"], "192.0.2.1"),
            ([b"192.0.2.1, 10.0.0.3, 10.0.0.2"], "192.0.2.1"),
            ([b"192.0.2.1", b"10.0.0.2"], "192.0.2.1"),
            ([b"10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ([b"2001:db8::5, 10.0.0.2"], "2001:db8::5"),
            ([b"192.0.2.1:4711"], "192.0.2.1"),
            ([b"[2001:db9::1]:4711"], "2001:db9::1"),
            ([b"[2001:db9::1]"], "2001:db9::1"),
            ([b"::ffff:192.0.2.1"], "192.0.2.1"),
            # Hops before one that can't be parsed are not trusted.
            ([b"192.0.2.1, unknown"], "10.0.0.1"),
            ([b"192.0.2.1, _hidden, 10.0.0.2"], "10.0.0.2"),
            ([b"192.0.2.1, 999.0.2.1"], "10.0.0.1"),
        ):
            self.assertEqual(str(client(X_Forwarded_For=hops).address), address, hops)

    def test_chain(self) -> None:
        found = client(X_Forwarded_For=[b"1.1.1.1, 192.0.2.1", b"10.0.0.2"])
        self.assertEqual(found.chain, (b"1.1.1.1", b"192.0.2.1", b"10.0.0.2", b"10.0.0.1"))

    def test_forwarded(self) -> None:
        """The examples of RFC 7239 and others."""
        for lines, hops, scheme, host in (
            ([b'for="_gazonk"'], [b"_gazonk"], None, None),
            ([b'For="[2001:db8:cafe::17]:4711"'], [b"[2001:db8:cafe::17]:4711"], None, None),
            ([b"for=192.0.2.60;proto=http;by=203.0.113.43"], [b"192.0.2.60"], b"http", None),
            ([b"for=192.0.2.43, for=198.51.100.17"], [b"192.0.2.43", b"198.51.100.17"], None, None),
            (
                [b"for=192.0.2.43", b"for=198.51.100.17"],
                [b"192.0.2.43", b"198.51.100.17"],
                None,
                None,
            ),
            (
                [b'for=192.0.2.1;host="a.example:5000";proto=HTTPS, for=10.0.0.2;proto=http'],
                [b"192.0.2.1", b"10.0.0.2"],
                b"https",
                b"a.example:5000",
            ),
            ([b'for="a\\"b;c,d";host="x\\""'], [b'a"b;c,d'], None, b'x"'),
        ):
            found = client(Forwarded=lines)
            self.assertEqual(found.chain, (*hops, b"10.0.0.1"), lines)
            self.assertEqual((found.scheme, found.host), (scheme, host), lines)

    def test_olderFirst(self) -> None:
        """A client can't claim an address in C{Forwarded} behind a proxy that sets the others."""
        older = {
            "X_Forwarded_For": b"192.0.2.2",
            "X_Forwarded_Proto": b"http",
            "X_Forwarded_Host": b"a.example, b.example",
        }
        found = client(Forwarded=b"for=192.0.2.1;proto=https;host=evil.example", **older)
        self.assertEqual(str(found.address), "192.0.2.2")
        self.assertEqual((found.scheme, found.host), (b"http", b"a.example"))
        for name, value in older.items():
            found = client(Forwarded=b"for=192.0.2.1", **{name: value})
            self.assertNotEqual(str(found.address), "192.0.2.1", name)

    def test_scheme(self) -> None:
        for value, scheme in ((b"https", b"https"), (b"HTTP, https", b"http"), (b"ftp", None)):
            self.assertEqual(client(X_Forwarded_Proto=value).scheme, scheme)

    @given(st.binary(), st.binary())
    def test_anything(self, forwarded: bytes, forwardedFor: bytes) -> None:
        found = client(Forwarded=forwarded, X_Forwarded_For=forwardedFor)
        self.assertEqual(found.chain[-1], b"10.0.0.1")
        self.assertIsNotNone(found.address)

    def test_endless(self) -> None:
        """A long name is read only once, not again from each of its bytes."""
        self.assertEqual(client(Forwarded=b"a" * 1_000_000).chain, (b"10.0.0.1",))
