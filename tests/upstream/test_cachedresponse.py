"""
Tests of error responses, whose status reaches the client whatever happens to the body.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.errors import BodyFailed
from hubmirror.upstream.bodies import DISCARD_TIME, MAX_SHORT_BODY
from hubmirror.upstream.cachedresponse import isErrorOfKnownLength, wholeError
from tests.upstream.support import Response


class WholeErrorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def ask(self, response: Response) -> Deferred[Any]:
        return Deferred.fromCoroutine(wholeError(response, self.clock))

    def assertReplaced(self, asking: Deferred[Any]) -> None:
        """Check that the status is kept, with a body that describes the problem."""
        got = self.successResultOf(asking)
        self.assertEqual(got.code, 404)
        [error] = json.loads(got.body)["errors"]
        self.assertIn("answered 404", error["message"])
        self.assertEqual(got.headers.getRawHeaders(b"Content-Length"), [b"%d" % len(got.body)])
        self.assertEqual(got.headers.getRawHeaders(b"Content-Type"), [b"application/json"])
        self.assertEqual(got.headers.getRawHeaders(b"X-Kept"), [b"yes"])
        self.assertFalse(got.headers.hasHeader("ETag"))

    def make(self, length: int) -> Response:
        return Response(404, length, X_Kept=b"yes", ETag=b'"x"', Content_Length=b"%d" % length)

    def test_whole(self) -> None:
        response = self.make(5)
        asking = self.ask(response)
        response.gives(b"12345")
        response.ends()
        got = self.successResultOf(asking)
        self.assertEqual((got.code, got.body), (404, b"12345"))
        self.assertEqual(got.headers.getRawHeaders(b"ETag"), [b'"x"'])

    def test_broken(self) -> None:
        response = self.make(5)
        asking = self.ask(response)
        response.gives(b"123")
        response.ends(BodyFailed("closed"))
        self.assertReplaced(asking)

    def test_stalled(self) -> None:
        response = self.make(5)
        asking = self.ask(response)
        response.gives(b"123")
        self.clock.advance(DISCARD_TIME)
        self.assertEqual(response.state, "stopped")
        self.assertReplaced(asking)

    def test_long(self) -> None:
        """A body that long is not an error message."""
        response = self.make(MAX_SHORT_BODY + 1)
        self.assertReplaced(self.ask(response))

    def test_which(self) -> None:
        for response, expected in (
            (Response(404, 5), True),
            (Response(500, 5), True),
            (Response(404, 0), False),
            (Response(404), False),
            (Response(399, 5), False),
            (Response(200, 5), False),
        ):
            self.assertIs(isErrorOfKnownLength(response), expected)
