"""
Tests of the receive buffer: reading takes time in proportion to the data, and the result does not
depend on how it is split.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.buffers import MAX_HEAD, MAX_START_LINE, ReceiveBuffer
from hubmirror.protocol.errors import BadRequest, FieldsTooLarge, TargetTooLong
from hubmirror.protocol.heads import ChunkedDecoder, Decoder, IdentityDecoder
from tests.protocol.test_decoders import split


def buffered(data: bytes) -> ReceiveBuffer:
    """A buffer with data that was received at once."""
    buffer = ReceiveBuffer()
    buffer.add(data)
    return buffer


def headOf(data: bytes, most: int = MAX_HEAD) -> tuple[bytes | None, bytes]:
    """The head at the beginning of some bytes, and the rest."""
    buffer = buffered(data)
    head = buffer.takeHead(most)
    return head, buffer.takeAll()


class HeadTests(SynchronousTestCase):
    def test_found(self) -> None:
        for data, head, rest in (
            (b"", None, b""),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", None, b"GET / HTTP/1.1\r\nHost: a\r\n"),
            (b"X\r\n\r", None, b"X\r\n\r"),
            (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1", b""),
            (b"GET / HTTP/1.1\r\n\r\nbody\r\n\r\n", b"GET / HTTP/1.1", b"body\r\n\r\n"),
        ):
            self.assertEqual(headOf(data), (head, rest))

    def test_bareLF(self) -> None:
        """A bare LF makes a head invalid, so it is reported at once."""
        for data in (b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r\nHost: a\n\n", b"\n"):
            self.assertRaises(BadRequest, headOf, data)

    def test_longLine(self) -> None:
        """
        A line of the greatest length is accepted, and a longer one is not, before or after its end
        is received.
        """
        longest = b"a" * MAX_START_LINE
        for rest in (b"", b"\r", b"\r\n", b"\r\n\r"):
            self.assertIsNone(headOf(longest + rest)[0])
        self.assertEqual(headOf(longest + b"\r\n\r\n"), (longest, b""))
        for rest in (b"a\r", b"a\r\n", b"a\r\n\r\n", b"a" * MAX_HEAD):
            self.assertRaises(TargetTooLong, headOf, longest + rest)

    def test_smallerHead(self) -> None:
        head = b"GET / HTTP/1.1\r\n".ljust(8192, b"a")
        self.assertEqual(headOf(head + b"\r\n\r\n", 8192), (head, b""))
        self.assertRaises(FieldsTooLarge, headOf, head + b"a\r\n\r\n", 8192)

    def test_largeHead(self) -> None:
        largest = b"GET / HTTP/1.1\r\n".ljust(MAX_HEAD, b"a")
        self.assertIsNone(headOf(largest + b"\r\n\r")[0])
        self.assertEqual(headOf(largest + b"\r\n\r\n"), (largest, b""))
        self.assertRaises(FieldsTooLarge, headOf, largest + b"a\r\n\r")
        self.assertRaises(FieldsTooLarge, headOf, largest + b"a\r\n\r\n")

    @given(
        st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"a" * 9000])).map(
            b"".join
        ),
        st.sets(st.integers(1, 60_000), max_size=20),
    )
    def test_anySplit(self, data: bytes, places: set[int]) -> None:
        """However the bytes of a head are split, the result is the same."""

        def outcome(pieces: Iterable[bytes]) -> Any:
            buffer = ReceiveBuffer()
            for piece in pieces:
                buffer.add(piece)
                try:
                    head = buffer.takeHead(20_000)
                except (BadRequest, TargetTooLong, FieldsTooLarge):
                    return "refused"
                if head is not None:
                    return head
            return None

        # A bare LF may be noticed before the end of the head is received; in a complete head, the
        # parser refuses it.
        whole = outcome([data])
        cut = outcome(split(data, places))
        if isinstance(whole, bytes) and cut == "refused":
            self.assertIn(b"\n", whole.replace(b"\r\n", b""))
        else:
            self.assertEqual(cut, whole)


class Counting(bytearray):
    """
    Counts the bytes that are searched, copied or moved.
    """

    work = 0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        Counting.work += len(self)

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        last = len(self) if end is None else min(end, len(self))
        found = super().find(sub, start, last)
        Counting.work += 1 + max(0, (found if found >= 0 else last) - start)
        return found

    def __iadd__(self, other: Any) -> Any:
        Counting.work += len(other)
        return super().__iadd__(other)

    def __delitem__(self, key: Any) -> None:
        # Dropping bytes at the front moves nothing.
        assert isinstance(key, slice) and key.start in (None, 0)
        Counting.work += 1
        super().__delitem__(key)

    def __getitem__(self, key: Any) -> Any:
        assert not isinstance(key, slice), "a slice copies"
        Counting.work += 1
        return super().__getitem__(key)


class CostTests(SynchronousTestCase):
    """
    Reading bytes one by one costs only a few times as much as reading them at once.
    """

    size = 60_000

    def setUp(self) -> None:
        self.patch(ReceiveBuffer, "makeArray", Counting)
        self.patch(Counting, "work", 0)

    def assertLinear(self, size: int) -> None:
        self.assertGreater(Counting.work, 0)
        self.assertLess(Counting.work, 12 * size)

    def test_head(self) -> None:
        for line in (b"X-Field: value\r\n", b"X: " + b"v" * 7000 + b"\r\n"):
            Counting.work = 0
            head = b"GET / HTTP/1.1\r\n" + line * (self.size // len(line))
            buffer = ReceiveBuffer()
            for byte in head:
                buffer.add(bytes([byte]))
                self.assertIsNone(buffer.takeHead())
            buffer.add(b"\r\n")
            self.assertEqual(buffer.takeHead(), head[:-2])
            self.assertLinear(len(head))

    def test_longLine(self) -> None:
        buffer = ReceiveBuffer()
        for _ in range(MAX_START_LINE):
            buffer.add(b"a")
            self.assertIsNone(buffer.takeHead())
        self.assertLinear(MAX_START_LINE)

    def test_manyHeads(self) -> None:
        """The heads of many requests are received at once."""
        head = b"GET / HTTP/1.1\r\n\r\n"
        buffer = buffered(head * (self.size // len(head)))
        while buffer:
            self.assertEqual(buffer.takeHead(), head[:-4])
        self.assertLinear(self.size)

    def test_emptyLines(self) -> None:
        buffer = buffered(b"\r\n" * (self.size // 2))
        while buffer.startswith(b"\r\n"):
            buffer.skip(2)
        self.assertLinear(self.size)

    def decode(self, decoder: Decoder, wire: bytes, step: int) -> None:
        buffer = ReceiveBuffer()
        for start in range(0, len(wire), step):
            buffer.add(wire[start : start + step])
            decoder.feed(buffer)
        self.assertTrue(decoder.done)

    def test_chunks(self) -> None:
        """Many small chunks are received at once, and a chunk byte by byte."""
        many = b"1\r\na\r\n" * (self.size // 6) + b"0\r\n\r\n"
        large = b"%x\r\n%b\r\n0\r\n\r\n" % (self.size, b"a" * self.size)
        for wire in (many, large):
            for step in (len(wire), 1):
                Counting.work = 0
                self.decode(ChunkedDecoder(), wire, step)
                self.assertLess(Counting.work, 12 * len(wire))

    def test_longChunkLine(self) -> None:
        self.decode(ChunkedDecoder(), b"0;" + b"a" * 4000 + b"\r\n\r\n", 1)
        self.assertLinear(4000)

    def test_trailers(self) -> None:
        wire = b"0\r\n" + b"X-Trailer: value\r\n" * 3000 + b"\r\n"
        for step in (len(wire), 1):
            Counting.work = 0
            self.decode(ChunkedDecoder(), wire, step)
            self.assertLinear(len(wire))

    def test_identity(self) -> None:
        self.decode(IdentityDecoder(self.size), b"a" * self.size, 1)
        self.assertLess(Counting.work, 12 * self.size)
