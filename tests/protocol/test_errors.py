"""Tests of the error responses to clients."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol import errors
from hubmirror.protocol.errors import (
    ConnectFailed,
    ConnectTimedOut,
    HeadFailed,
    MirrorError,
    UpstreamFailed,
    UpstreamsFailed,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


class BodyTests(SynchronousTestCase):
    def test_shape(self) -> None:
        """The body has the form of the OCI distribution spec."""
        error = errors.UnknownName("quay.io is not mirrored here", {"name": "quay.io"})
        self.assertEqual(
            json.loads(error.body()),
            {
                "errors": [
                    {
                        "code": "NAME_UNKNOWN",
                        "message": "quay.io is not mirrored here",
                        "detail": {"name": "quay.io"},
                    }
                ]
            },
        )

    @given(st.text(), st.dictionaries(st.text(), JSON))
    def test_anyText(self, message: str, detail: dict[str, object]) -> None:
        """The body is JSON in ASCII for any text."""
        [error] = json.loads(MirrorError(message, detail).body().decode("ascii"))["errors"]
        self.assertEqual(error, {"code": "UNKNOWN", "message": message, "detail": detail})

    def test_upstreams(self) -> None:
        """The status of an upstream's failure is neither a client error nor 500."""
        kinds = [
            kind
            for kind in vars(errors).values()
            if isinstance(kind, type) and issubclass(kind, UpstreamFailed)
        ]
        self.assertGreater(len(kinds), 5)
        for kind in kinds:
            self.assertIn(kind.status, (502, 503, 504), kind)

    def test_fields(self) -> None:
        error = errors.NotAllowed("no", fields=[(b"Allow", b"GET")])
        self.assertEqual((error.status, error.fields), (405, ((b"Allow", b"GET"),)))


class UpstreamsTests(SynchronousTestCase):
    def test_all(self) -> None:
        """The error lists all upstreams that were asked, and has the status of the first."""
        attempts = [
            ("registry-1.docker.io", ConnectTimedOut("could not connect within 5 s")),
            ("mirror.example", HeadFailed("no response head")),
        ]
        error = UpstreamsFailed(attempts)
        self.assertEqual(error.status, 504)
        self.assertEqual(str(error), "registry-1.docker.io: could not connect within 5 s")
        [told] = json.loads(error.body())["errors"]
        self.assertEqual(
            told["detail"]["upstreams"],
            [
                "registry-1.docker.io: could not connect within 5 s",
                "mirror.example: no response head",
            ],
        )

    def test_otherStatus(self) -> None:
        self.assertEqual(UpstreamsFailed([("a", ConnectFailed("connection refused"))]).status, 502)
