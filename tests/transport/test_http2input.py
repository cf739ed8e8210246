"""
Tests of how HTTP/2 input is split into whole frames, in time that is proportional to its length.
"""

from __future__ import annotations

from h2.exceptions import FrameTooLargeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.buffers import ReceiveBuffer
from hubmirror.transport.http2input import MAX_FRAME, PREFACE, FrameReader
from tests.protocol.test_buffers import Counting
from tests.protocol.test_decoders import split

PING = PingFrame(0, b"12345678").serialize()
FRAMES = [
    PREFACE,
    HeadersFrame(1, b"abc").serialize(),
    ContinuationFrame(1, b"d" * 100, flags=["END_HEADERS"]).serialize(),
    DataFrame(1, b"e" * MAX_FRAME).serialize(),
    PING,
    WindowUpdateFrame(0, window_increment=5).serialize(),
    DataFrame(1, b"", flags=["END_STREAM"]).serialize(),
]


class FrameReaderTests(SynchronousTestCase):
    @given(st.sets(st.integers(1, 17_000), max_size=30))
    def test_anySplit(self, places: set[int]) -> None:
        """The frames do not depend on how the bytes are split."""
        reader = FrameReader()
        frames = [
            frame for piece in split(b"".join(FRAMES), places) for frame in reader.feed(piece)
        ]
        self.assertEqual(frames, FRAMES)
        self.assertEqual(reader.control, 2)
        self.assertFalse(reader.headBegun)

    def test_headBegun(self) -> None:
        """Whether a head has begun: any incomplete input except the frame of a body."""
        reader = FrameReader()
        for data, begun in (
            (PREFACE[:5], True),
            (PREFACE[5:], False),
            (PING[:3], True),
            (PING[3:], False),
            (FRAMES[1], True),
            (FRAMES[2][:20], True),
            (FRAMES[2][20:], False),
            (FRAMES[3][:9], False),
            (FRAMES[3][9:5000], False),
            (FRAMES[3][5000:], False),
        ):
            reader.feed(data)
            self.assertIs(reader.headBegun, begun, data[:10])

    def test_tooLarge(self) -> None:
        """A frame that is too large is refused when its header is complete."""
        reader = FrameReader()
        reader.feed(PREFACE)
        head = (MAX_FRAME + 1).to_bytes(3, "big") + bytes(6)
        self.assertEqual(reader.feed(head[:-1]), [])
        self.assertRaises(FrameTooLargeError, reader.feed, head[-1:])

    def test_otherProtocol(self) -> None:
        self.assertEqual(FrameReader().feed(b"GET / HTTP/1.1"), [b"GET / HTTP/1.1"])

    def test_control(self) -> None:
        """An empty DATA frame that does not end a stream counts as a control frame."""
        reader = FrameReader()
        reader.feed(PREFACE + DataFrame(1, b"").serialize() * 5 + PING * 3 + FRAMES[-1])
        self.assertEqual(reader.control, 8)

    def test_cost(self) -> None:
        """The cost of many small frames at once, and of frames that arrive byte by byte."""
        self.patch(ReceiveBuffer, "makeArray", Counting)
        self.patch(Counting, "work", 0)
        small = PREFACE + PING * 4000
        large = PREFACE + FRAMES[3] * 4
        for wire in (small, large):
            for step in (len(wire), 1):
                Counting.work = 0
                reader = FrameReader()
                for start in range(0, len(wire), step):
                    reader.feed(wire[start : start + step])
                self.assertLess(Counting.work, 12 * len(wire))
