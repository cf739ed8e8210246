"""Tests of preflight requests."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.cors import preflightFields

ORIGIN = (b"Origin", b"https://page.example")
METHOD = (b"Access-Control-Request-Method", b"GET")
ASKED = b"Access-Control-Request-Headers"


def answer(method: bytes, *fields: tuple[bytes, bytes]) -> dict[bytes, bytes] | None:
    headers = Headers()
    for name, value in fields:
        headers.addRawHeader(name, value)
    found = preflightFields(method, headers, (b"GET", b"HEAD"))
    return None if found is None else dict(found)


class PreflightTests(SynchronousTestCase):
    def test_isNone(self) -> None:
        self.assertIsNone(answer(b"GET", ORIGIN, METHOD))
        self.assertIsNone(answer(b"OPTIONS", ORIGIN))
        self.assertIsNone(answer(b"OPTIONS", METHOD))

    def test_answer(self) -> None:
        self.assertEqual(
            answer(b"OPTIONS", ORIGIN, METHOD, (ASKED, b"authorization, x-meta")),
            {
                b"Access-Control-Allow-Origin": b"*",
                b"Access-Control-Allow-Methods": b"GET, HEAD",
                b"Access-Control-Allow-Headers": b"authorization, x-meta",
                b"Access-Control-Max-Age": b"86400",
            },
        )

    def test_names(self) -> None:
        """The requested names are repeated if they are a valid list."""
        for values, contained in (
            ([], b"Authorization"),
            ([b"a", b"b"], b"a, b"),
            ([b""], b"Authorization"),
            ([b"x: y"], b"Authorization"),
            ([b"<script>"], b"Authorization"),
        ):
            found = answer(b"OPTIONS", ORIGIN, METHOD, *((ASKED, value) for value in values))
            allowed = (found or {})[b"Access-Control-Allow-Headers"]
            self.assertIn(contained, allowed)
            self.assertNotIn(b"<", allowed)
            self.assertNotIn(b":", allowed)

    @given(st.lists(st.binary()))
    def test_foreign(self, values: list[bytes]) -> None:
        """Whatever is requested, the response has a list of names."""
        found = answer(b"OPTIONS", ORIGIN, METHOD, *((ASKED, value) for value in values))
        allowed = (found or {})[b"Access-Control-Allow-Headers"]
        self.assertRegex(allowed, rb"\A[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]+\Z")
