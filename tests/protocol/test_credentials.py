"""
Tests of which credentials may be sent to which registry.
"""

from __future__ import annotations

import json
from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.credentials import (
    authorizationFor,
    formFor,
    mark,
    markAnswer,
    unmark,
)

BASIC = b"Basic bWU6c2VjcmV0"
GHCR = b"ghcr.io"

BYTES = st.binary() | st.lists(
    st.sampled_from(
        b"Bearer |bearer|Basic |=|&|~|%|ghcr.io~|ghcr.io%7E|abc| |password=|refresh_token=".split(
            b"|"
        )
    )
).map(b"".join)
JSON = st.dictionaries(
    st.sampled_from(["token", "access_token", "refresh_token", "x"]),
    st.none() | st.integers() | st.text(st.characters()) | st.lists(st.text()),
)


class AuthorizationTests(SynchronousTestCase):
    def test_table(self) -> None:
        for name, isDefault, passes, given_, permitted in (
            # The default registry gets passwords, and tokens without a mark.
            (b"docker.io", True, False, BASIC, BASIC),
            (b"docker.io", True, False, b"Bearer abc.d-e_f", b"Bearer abc.d-e_f"),
            (b"docker.io", True, False, b"Bearer ghcr.io~abc", None),
            (b"docker.io", True, False, b"bearer  ghcr.io~abc", None),
            # Other registries get only their own tokens.
            (GHCR, False, False, BASIC, None),
            (GHCR, False, True, BASIC, BASIC),
            (GHCR, False, False, b"Bearer abc", None),
            (GHCR, False, True, b"Bearer abc", None),
            (GHCR, False, False, b"Bearer ghcr.io~abc", b"Bearer abc"),
            (GHCR, False, False, b"bearer ghcr.io~a~b=", b"bearer a~b="),
            (GHCR, False, False, b"Bearer quay.io~abc", None),
            (GHCR, False, False, b"Bearer evil.ghcr.io~abc", None),
            (GHCR, False, False, b"Negotiate abc", None),
            (b"localhost:5000", False, False, b"Bearer localhost+5000~abc", b"Bearer abc"),
        ):
            self.assertEqual(
                authorizationFor(name, given_, isDefault=isDefault, passCredentials=passes),
                permitted,
                (name, given_),
            )

    def test_form(self) -> None:
        password = b"grant_type=password&username=me&password=secret&scope=x"
        refresh = b"grant_type=refresh_token&refresh_token=%s&scope=x"
        for name, isDefault, passes, form, permitted in (
            (b"docker.io", True, False, password, password),
            (b"docker.io", True, False, refresh % b"a%2Bb", refresh % b"a%2Bb"),
            (b"docker.io", True, False, refresh % b"ghcr.io~abc", None),
            (b"docker.io", True, False, refresh % b"ghcr.io%7Eabc", None),
            (GHCR, False, False, password, None),
            (GHCR, False, True, password, password),
            (GHCR, False, False, refresh % b"abc", None),
            (GHCR, False, False, refresh % b"ghcr.io~a%2Bb", refresh % b"a%2Bb"),
            (GHCR, False, False, refresh % b"quay.io~abc", None),
            # Passwords may be anybody's, but tokens are not.
            (GHCR, False, True, refresh % b"ghcr.io~abc", refresh % b"abc"),
            (GHCR, False, True, refresh % b"quay.io~abc", None),
            (GHCR, False, True, refresh % b"abc", None),
            (
                b"localhost:5000",
                False,
                False,
                refresh % b"localhost%2B5000~abc",
                refresh % b"abc",
            ),
            (GHCR, False, False, b"service=a&scope=b", b"service=a&scope=b"),
        ):
            self.assertEqual(
                formFor(name, form, isDefault=isDefault, passCredentials=passes), permitted, form
            )

    @given(BYTES, st.booleans(), st.booleans())
    def test_foreign(self, sent: bytes, isDefault: bool, passes: bool) -> None:
        """Whatever is sent, a registry gets no token that is not its own."""
        permitted = authorizationFor(GHCR, sent, isDefault=isDefault, passCredentials=passes)
        scheme, _, token = sent.partition(b" ")
        if permitted is None or isDefault or scheme.lower() != b"bearer":
            self.assertIn(permitted, (sent, None) if isDefault or passes else (None,))
        else:
            self.assertEqual(mark(GHCR, permitted.partition(b" ")[2]), token.strip(b" "))

    @given(BYTES, st.booleans(), st.booleans())
    def test_foreignForm(self, form: bytes, isDefault: bool, passes: bool) -> None:
        permitted = formFor(GHCR, form, isDefault=isDefault, passCredentials=passes)
        if permitted is None or isDefault:
            self.assertIn(permitted, (form, None))
            return
        for old, new in zip(form.split(b"&"), permitted.split(b"&"), strict=True):
            key, _, value = old.partition(b"=")
            if key == b"refresh_token":
                token = unquote_to_bytes(new.partition(b"=")[2])
                self.assertEqual(mark(GHCR, token), unquote_to_bytes(value))
            else:
                self.assertEqual(new, old)
                self.assertTrue(passes or key not in (b"username", b"password"))


class MarkTests(SynchronousTestCase):
    @given(st.sampled_from([GHCR, b"a.example:5000"]), st.binary())
    def test_roundTrip(self, name: bytes, token: bytes) -> None:
        """Unmarking a token yields the same token again, and only for its own registry."""
        self.assertEqual(unmark(name, mark(name, token)), token)
        self.assertIsNone(unmark(b"other.example", mark(name, token)))

    def test_answer(self) -> None:
        body = b'{"token":"a","access_token":"b","refresh_token":"c","expires_in":300,"x":null}'
        self.assertEqual(
            json.loads(markAnswer(GHCR, body)),
            {
                "token": "ghcr.io~a",
                "access_token": "ghcr.io~b",
                "refresh_token": "ghcr.io~c",
                "expires_in": 300,
                "x": None,
            },
        )

    def test_noAnswer(self) -> None:
        for body in (b"", b"[]", b"1", b"{", b"\xff", b'{"x":' + b"[" * 100_000):
            self.assertRaises(ValueError, markAnswer, GHCR, body)

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_foreign(self, body: bytes) -> None:
        """Every token in a JSON object is marked, and anything else is refused."""
        try:
            members = json.loads(markAnswer(GHCR, body))
        except ValueError:
            return
        for member in ("token", "access_token", "refresh_token"):
            token = members.get(member)
            self.assertTrue(not isinstance(token, str) or token.startswith("ghcr.io~"))
