"""
Tests of which part of an entity a response contains, and of the request for the rest.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from hubmirror.protocol.ranges import Part, partOf, rangeFrom

TAG = b'"strong"'


def fields(contentRange: bytes | None = None, tag: bytes | None = None) -> Headers:
    headers = Headers()
    if contentRange is not None:
        headers.setRawHeaders(b"Content-Range", [contentRange])
    if tag is not None:
        headers.setRawHeaders(b"ETag", [tag])
    return headers


class PartTests(SynchronousTestCase):
    def test_whole(self) -> None:
        self.assertEqual(partOf(200, 10, fields()), Part(0, 10, 10, None))
        self.assertEqual(partOf(200, 10, fields(tag=TAG)), Part(0, 10, 10, TAG))

    def test_wholeOfUnknownLength(self) -> None:
        self.assertIsNone(partOf(200, None, fields(tag=TAG)))

    def test_weakTag(self) -> None:
        """Two entities with the same weak tag may have different bytes (RFC 9110 8.8.1)."""
        self.assertEqual(partOf(200, 10, fields(tag=b'W/"weak"')), Part(0, 10, 10, None))

    def test_part(self) -> None:
        for value, part in (
            (b"bytes 0-9/100", Part(0, 10, 100, None)),
            (b"bytes 90-99/100", Part(90, 10, 100, None)),
            (b"bytes 5-14/*", Part(5, 10, None, None)),
        ):
            for length in (10, None):
                self.assertEqual(partOf(206, length, fields(value)), part, value)

    def test_noPart(self) -> None:
        for value in (
            None,
            b"",
            b"bytes */100",
            b"bytes 0-9",
            b"bytes 9-0/100",
            b"bytes 91-100/100",
            b"bytes 0-9/9",
            b"bytes=0-9/100",
            b"BYTES 0-9/100",
            b"bytes 0-9/100 ",
            b"bytes -9/100",
            b"bytes 0-9/1" + b"0" * 18,
            b"lines 0-9/100",
        ):
            self.assertIsNone(partOf(206, 10, fields(value)), value)

    def test_twoLengths(self) -> None:
        """A response with contradictory lengths is not resumed."""
        for length in (0, 9, 11):
            self.assertIsNone(partOf(206, length, fields(b"bytes 0-9/100")))

    def test_otherStatuses(self) -> None:
        for status in (201, 203, 226, 304, 401, 404, 416, 429, 500):
            self.assertIsNone(partOf(status, 10, fields(b"bytes 0-9/100")))

    @given(st.binary(max_size=40), st.none() | st.integers(0))
    def test_anything(self, value: bytes, length: int | None) -> None:
        part = partOf(
            206, length, fields(b"bytes " + value.replace(b"\n", b"").replace(b"\r", b""))
        )
        if part is not None:
            self.assertGreater(part.length, 0)
            self.assertIn(length, (None, part.length))


class RestTests(SynchronousTestCase):
    def test_toTheEnd(self) -> None:
        """
        A part that reaches to the entity's end is requested without a last position, as clients do.
        """
        self.assertEqual(rangeFrom(Part(0, 100, 100, None), 1), b"bytes=1-")
        self.assertEqual(rangeFrom(Part(40, 60, 100, None), 10), b"bytes=50-")

    def test_toAPartsEnd(self) -> None:
        self.assertEqual(rangeFrom(Part(40, 10, 100, None), 0), b"bytes=40-49")
        self.assertEqual(rangeFrom(Part(40, 10, 100, None), 9), b"bytes=49-49")

    def test_unknownTotal(self) -> None:
        self.assertEqual(rangeFrom(Part(40, 10, None, None), 5), b"bytes=45-49")

    @given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6), st.data())
    def test_isTheRest(self, first: int, length: int, after: int, data: st.DataObject) -> None:
        """A server that is sent the range returns the bytes that were missing."""
        part = Part(first, length, first + length + after, None)
        position = data.draw(st.integers(0, length - 1))
        start, _, end = rangeFrom(part, position).removeprefix(b"bytes=").partition(b"-")
        stop = int(end) + 1 if end else first + length + after
        self.assertEqual((int(start), stop), (first + position, first + length))
