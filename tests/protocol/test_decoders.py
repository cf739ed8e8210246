"""Tests of body framing, however the bytes are split."""

import contextlib
from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.buffers import MAX_HEAD, ReceiveBuffer
from hubmirror.protocol.errors import BodyFailed
from hubmirror.protocol.heads import (
    ChunkedDecoder,
    Decoder,
    IdentityDecoder,
    UntilCloseDecoder,
)

MALFORMED = [
    b"x\r\n",
    b"\r\n",
    b" 5\r\n",
    b"-5\r\n",
    b"+5\r\n",
    b"0x5\r\n",
    b"5_0\r\n",
    b"\xd9\xa5\r\n",
    b"5 5\r\n",
    b"5\nhello\r\n",
    b"5,\r\n",
    b"5;a\nb\r\n",
    b"5;a\0\r\n",
    b"1" * 16 + b"\r\n",
    b"5\r\nhello!",
    b"5\r\nhello\n",
    b"5\r\nhello\rx",
    b"0\r\nX\r\n",
    b"0\r\nX : a\r\n",
    b"0\r\n folded: a\r\n",
    b"0\r\nX: a\nY: b\r\n",
]

extensions = st.sampled_from([b"", b" ", b";a", b";a=b", b' ; a="b;c"\t', b";\xff"])
chunks = st.lists(st.tuples(st.binary(min_size=1, max_size=40), extensions), max_size=8)
trailers = st.lists(st.sampled_from([b"X: a", b"Digest:sha256=ab", b"X-Y:"]), max_size=3)


@st.composite
def encoded(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body and a chunked encoding of it."""
    wire = body = b""
    for data, extension in draw(chunks):
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x"])) % len(data)
        wire += size + extension + b"\r\n" + data + b"\r\n"
        body += data
    wire += draw(st.sampled_from([b"0", b"000"])) + draw(extensions) + b"\r\n"
    return body, wire + b"".join(line + b"\r\n" for line in draw(trailers)) + b"\r\n"


def split(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Split bytes at some positions; positions beyond the end are ignored."""
    ends = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]


def feed(decoder: Decoder, data: bytes) -> list[bytes]:
    """Decode the body in some bytes that arrive at once."""
    buffer = ReceiveBuffer()
    buffer.add(data)
    return decoder.feed(buffer)


def decode(decoder: Decoder, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """
    Decode a whole body.

    @return: the body, and the bytes after it.
    """
    buffer, body = ReceiveBuffer(), b""
    for piece in pieces:
        buffer.add(piece)
        if not decoder.done:
            body += b"".join(decoder.feed(buffer))
    return body, buffer.takeAll() if decoder.done else b""


class ChunkedTests(SynchronousTestCase):
    @given(encoded(), st.binary(max_size=20), st.sets(st.integers(1, 400), max_size=40))
    def test_anySplit(self, coded: tuple[bytes, bytes], rest: bytes, places: set[int]) -> None:
        body, wire = coded
        decoder = ChunkedDecoder()
        self.assertEqual(decode(decoder, split(wire + rest, places)), (body, rest))
        self.assertTrue(decoder.done)

    @given(encoded())
    def test_unfinished(self, coded: tuple[bytes, bytes]) -> None:
        """Without its last byte, no body is complete."""
        decoder = ChunkedDecoder()
        self.assertEqual(decode(decoder, [coded[1][:-1]]), (coded[0], b""))
        self.assertFalse(decoder.done)

    def test_atOnce(self) -> None:
        """The available part of a chunk is not held back until the rest arrives."""
        decoder = ChunkedDecoder()
        self.assertEqual(feed(decoder, b"a\r\nhel"), [b"hel"])
        self.assertEqual(feed(decoder, b"lo"), [b"lo"])

    def test_malformed(self) -> None:
        for wire in MALFORMED:
            self.assertRaises(BodyFailed, feed, ChunkedDecoder(), wire)
            self.assertRaises(BodyFailed, decode, ChunkedDecoder(), split(wire, range(len(wire))))

    @given(st.binary())
    def test_anything(self, wire: bytes) -> None:
        with contextlib.suppress(BodyFailed):
            decode(ChunkedDecoder(), [wire])

    def test_longLines(self) -> None:
        """The length of chunk lines and trailers is limited."""
        for line in (b"5;" + b"a" * 4096, b"5;" + b"a" * 4096 + b"\r\n"):
            self.assertRaises(BodyFailed, feed, ChunkedDecoder(), line)
        decoder = ChunkedDecoder()
        feed(decoder, b"0\r\n")
        line = b"X: " + b"a" * 1021 + b"\r\n"
        feed(decoder, line * (MAX_HEAD // 1024))
        self.assertRaises(BodyFailed, feed, decoder, line)


class IdentityTests(SynchronousTestCase):
    @given(st.binary(min_size=1), st.binary(max_size=20), st.sets(st.integers(1, 100)))
    def test_anySplit(self, body: bytes, rest: bytes, places: set[int]) -> None:
        decoder = IdentityDecoder(len(body))
        self.assertEqual(decode(decoder, split(body + rest, places)), (body, rest))
        self.assertTrue(decoder.done)
        self.assertEqual(decoder.length, len(body))

    def test_unfinished(self) -> None:
        decoder = IdentityDecoder(6)
        self.assertEqual(decode(decoder, [b"hel", b"lo"]), (b"hello", b""))
        self.assertFalse(decoder.done)


class UntilCloseTests(SynchronousTestCase):
    def test_neverDone(self) -> None:
        decoder = UntilCloseDecoder()
        self.assertEqual(decode(decoder, [b"0\r\n\r\n", b"more"]), (b"0\r\n\r\nmore", b""))
        self.assertFalse(decoder.done)
        self.assertIsNone(decoder.length)
