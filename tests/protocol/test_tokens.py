"""
Requests for tokens, and what token services answer.
"""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.errors import UpstreamFailed
from hubmirror.protocol.tokens import readToken, tokenURL

MEMBERS = st.sampled_from(["token", "access_token", "expires_in", "other"])
NUMBERS = st.integers() | st.integers(0, 400).map(lambda n: 10**n) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(MEMBERS | st.text(), inner),
)
# Any lifetime together with a token that is right.
LIFETIMES = st.fixed_dictionaries({"token": st.just("a"), "expires_in": NUMBERS | NUMBERS.map(str)})


class TokenTests(SynchronousTestCase):
    def test_url(self) -> None:
        parameters = {b"realm": b"https://x/", b"scope": b"repository:a:pull", b"service": b"s 1"}
        for service, account, url in (
            (b"https://a/token", b"", b"https://a/token?service=s+1&scope=repository%3Aa%3Apull"),
            (
                b"https://a/t?b=c",
                b"me",
                b"https://a/t?b=c&service=s+1&scope=repository%3Aa%3Apull&account=me",
            ),
        ):
            self.assertEqual(tokenURL(service, parameters, account), url)
        self.assertEqual(tokenURL(b"https://a/token", {}), b"https://a/token")

    def test_read(self) -> None:
        for body, life in (
            (b'{"token":"a"}', 60),
            (b'{"access_token":"a","expires_in":300}', 300),
            (b'{"token":"a","access_token":"b","expires_in":5}', 60),
            (b'{"token":"","access_token":"a","expires_in":null}', 60),
        ):
            self.assertEqual(readToken(body), (b"Bearer a", life))

    def test_lifetime(self) -> None:
        """A lifetime must be a finite number."""
        for life in (b"Infinity", b'"inf"', b"NaN", b"1e400", b"1" + b"0" * 400, b'"x"', b"[1]"):
            body = b'{"token":"a","expires_in":%s}' % life
            self.assertRaises(UpstreamFailed, readToken, body)

    def test_nested(self) -> None:
        self.assertRaises(UpstreamFailed, readToken, b'{"token":' + b"[" * 100_000)

    @given((JSON | LIFETIMES).map(lambda value: json.dumps(value).encode()) | st.binary())
    def test_foreign(self, body: bytes) -> None:
        """Anything else is refused as that."""
        try:
            authorization, life = readToken(body)
        except UpstreamFailed:
            return
        self.assertTrue(authorization.startswith(b"Bearer "))
        self.assertGreaterEqual(life, 60)
        self.assertTrue(math.isfinite(life))
