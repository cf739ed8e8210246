"""
Splits the data of an HTTP/2 connection into whole frames (RFC 9113 section 4.1) before it is passed
to h2.

h2 copies its unread data for each frame and for each read, so that many small frames, or a frame
that is received byte by byte, would take quadratic time.  It also does not report that a header
block has begun, and buffers the whole of a frame before it refuses its size.
"""

from __future__ import annotations

from h2.exceptions import FrameTooLargeError

from hubmirror.protocol.buffers import ReceiveBuffer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16 * 1024
"""
The largest payload of a frame, in bytes.  h2 announces this limit to the client.
"""

_HEAD = 9
_DATA, _HEADERS, _GOAWAY, _CONTINUATION = 0, 1, 7, 9
_END_STREAM, _END_HEADERS = 1, 4


def isGoodbye(frame: bytes) -> bool:
    """
    Whether a frame is a GOAWAY with NO_ERROR: the client sends no further requests.

    @param frame: a whole frame.
    """
    # The payload is the last stream and the error code (RFC 9113 section 6.8).
    return (
        len(frame) >= _HEAD + 8
        and frame[3] == _GOAWAY
        and not any(frame[5:_HEAD])
        and not any(frame[_HEAD + 4 : _HEAD + 8])
    )


class FrameReader:
    """
    Splits data into frames.

    @ivar control: the number of frames so far that carry neither a part of a request's head nor of
        its body.  A client needs few of them, and each may need a reply.
    @ivar blockSize: the number of bytes so far of a header block that is not complete; 0 when there
        is none.
    """

    def __init__(self) -> None:
        self.control = 0
        self.blockSize = 0
        self._buffer = ReceiveBuffer()
        self._needed = len(PREFACE)
        self._isPreface = True
        self._type = _HEADERS

    @property
    def headBegun(self) -> bool:
        """
        Whether a header block, or a frame other than DATA, has begun and is not complete.  The
        channel limits the time for it.
        """
        return self.blockSize > 0 or (len(self._buffer) > 0 and self._type != _DATA)

    def feed(self, data: bytes) -> list[bytes]:
        """
        Add received data.

        @return: the frames that are complete now.  The client's preface counts as the first frame.
        @raise FrameTooLargeError: when a frame has begun that is larger than L{MAX_FRAME}.
        """
        self._buffer.add(data)
        frames: list[bytes] = []
        while len(self._buffer) >= self._needed:
            frame = self._next()
            if frame is None:
                break
            frames.append(frame)
        if self._isPreface and not self._buffer.startswith(PREFACE[: len(self._buffer)]):
            # This is not HTTP/2.  h2 raises the error.
            frames.append(self._buffer.takeAll())
        return frames

    def _next(self) -> bytes | None:
        if self._isPreface:
            self._isPreface = False
            self._needed, self._type = _HEAD, _HEADERS
            return self._buffer.take(len(PREFACE))
        if self._needed == _HEAD:
            head = self._buffer.peek(_HEAD)
            size = int.from_bytes(head[:3], "big")
            if size > MAX_FRAME:
                raise FrameTooLargeError(f"a frame of {size} bytes")
            self._type = head[3]
            self._needed = _HEAD + size
            self._count(head[3], head[4], size)
            if len(self._buffer) < self._needed:
                return None
        frame = self._buffer.take(self._needed)
        self._needed, self._type = _HEAD, _HEADERS
        return frame

    def _count(self, kind: int, flags: int, size: int) -> None:
        if kind in (_HEADERS, _CONTINUATION):
            self.blockSize = 0 if flags & _END_HEADERS else self.blockSize + max(1, size)
        elif kind != _DATA or not (size or flags & _END_STREAM):
            self.control += 1
