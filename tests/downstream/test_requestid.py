"""
Tests of the identifiers of requests.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.downstream.requestid import REQUEST_ID, requestIDOf

VALUES = st.binary(max_size=140) | st.from_regex(r"[A-Za-z0-9._:=+/@-]{1,140}").map(str.encode)


class RequestIDTests(SynchronousTestCase):
    @given(st.lists(VALUES, max_size=2))
    def test_foreign(self, values: list[bytes]) -> None:
        """Whatever a client sends, the identifier is safe to log."""
        found = requestIDOf(Headers({REQUEST_ID: values}))
        self.assertRegex(found, rb"\A[A-Za-z0-9._:=+/@-]{1,128}\Z")
        if len(values) == 1 and found != values[0]:
            self.assertRegex(found, rb"\A[0-9a-f]{16}\Z")
