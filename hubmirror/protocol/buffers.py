"""
A buffer for data that has been received and not parsed yet.

Parsing takes time in proportion to the number of bytes, however they are split: bytes that have
been searched are not searched again, and taking data from the front does not move the rest.
"""

from __future__ import annotations

from hubmirror.protocol.errors import BadRequest, FieldsTooLarge, TargetTooLong

MAX_START_LINE = 16 * 1024
MAX_HEAD = 64 * 1024


class ReceiveBuffer:
    """
    Bytes in the order in which they were received.

    The data of one read is kept as it is, since most messages arrive in one piece.  When more data
    has to be held, it is moved into a C{bytearray}, which can grow at its end and shrink at its
    front without being copied each time.

    @cvar makeArray: creates the C{bytearray}; tests replace it.
    """

    makeArray: type[bytearray] = bytearray

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._searched = 0
        self._hasLine = False

    def __len__(self) -> int:
        return len(self._data)

    def add(self, data: bytes) -> None:
        """
        Append bytes that have been received.
        """
        if not self._data:
            self._data = data
            return
        if isinstance(self._data, bytes):
            self._data = self.makeArray(self._data)
        self._data += data

    def first(self) -> int:
        """
        The first byte.

        @raise IndexError: when the buffer is empty.
        """
        return self._data[0]

    def peek(self, size: int) -> bytes:
        """
        The first bytes, which stay in the buffer.
        """
        return bytes(memoryview(self._data)[:size])

    def startswith(self, prefix: bytes) -> bool:
        """
        Whether the buffer begins with these bytes.
        """
        return self._data.startswith(prefix)

    def take(self, size: int) -> bytes:
        """
        Take bytes from the front: C{size} of them, or all where there are fewer.
        """
        data = self._data
        if size >= len(data):
            return self.takeAll()
        taken = bytes(memoryview(data)[:size])
        self.skip(size)
        return taken

    def takeAll(self) -> bytes:
        """
        Take everything.
        """
        data, self._data = self._data, b""
        self._searched = 0
        self._hasLine = False
        return bytes(data)

    def skip(self, size: int) -> None:
        """
        Drop bytes from the front.
        """
        if size >= len(self._data):
            self.takeAll()
            return
        if isinstance(self._data, bytes):
            self._data = self.makeArray(memoryview(self._data)[size:])
        else:
            del self._data[:size]
        self._searched = 0
        self._hasLine = False

    def takeLine(self, most: int) -> bytes | None:
        """
        Take a line without its CR LF.

        @param most: bytes that the line may have.
        @return: C{None} when the line is not complete yet.
        @raise ValueError: when the line is longer.
        """
        end = self._data.find(b"\r\n", max(0, self._searched - 1), most + 2)
        if end < 0:
            if len(self._data) > most + 1:
                raise ValueError("line too long")
            self._searched = len(self._data)
            return None
        line = self.take(end + 2)
        return line[:-2]

    def takeHead(self, most: int = MAX_HEAD) -> bytes | None:
        """
        Take a message's head, without the empty line that ends it.

        @param most: bytes that the head may have.
        @return: C{None} when the head is not complete yet.
        @raise BadRequest: when a line ends with a bare LF, as soon as it has been received.
        @raise TargetTooLong: when the first line is longer than L{MAX_START_LINE}.
        @raise FieldsTooLarge: when the head is larger than C{most}.
        """
        data = self._data
        end = data.find(b"\r\n\r\n", max(0, self._searched - 3), most + 4)
        if end < 0 or end > MAX_START_LINE:
            self._checkHead(most, isWhole=end >= 0)
        if end < 0:
            self._searched = len(data)
            return None
        if end + 4 == len(data):
            # Most heads arrive with nothing behind them.
            return self.takeAll()[:-4]
        head = bytes(memoryview(data)[:end])
        self.skip(end + 4)
        return head

    def _checkHead(self, most: int, isWhole: bool) -> None:
        """
        Check the part of a head that has been received since the last check.
        """
        data, start = self._data, self._searched
        if not self._hasLine:
            self._hasLine = data.find(b"\r\n", max(0, start - 1), MAX_START_LINE + 2) >= 0
            if not self._hasLine and len(data) >= MAX_START_LINE + 2:
                raise TargetTooLong(f"the first line is longer than {MAX_START_LINE} bytes")
        if isWhole:
            return
        if len(data) >= most + 4:
            raise FieldsTooLarge(f"the head is larger than {most} bytes")
        position = data.find(b"\n", start)
        while position >= 0:
            if position == 0 or data[position - 1] != ord("\r"):
                raise BadRequest("a line must end with CR LF")
            position = data.find(b"\n", position + 1)
