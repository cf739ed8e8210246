"""
What an HTTP/2 connection has to send, put together by the way that copies least.

h2 copies a payload into its frame, the frame into its buffer, and the buffer into what it gives
out, 16 KiB at a time; over HTTP/2 that is a third of what a blob costs.  Nine bytes before a
payload that stays where it is do the same, when h2's counters of the windows are told.  Those have
public names, but its documentation does not speak of them: they are used only where they are found
to behave.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from twisted.logger import Logger

_HEAD = Struct(">HBBBL")
_log = Logger()


class Outbound:
    """
    All by h2.
    """

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2

    def sendData(self, number: int, payload: memoryview) -> None:
        """
        Send bytes of a body, in as many frames as it takes.

        @param number: the stream, which must be open.
        @param payload: no longer than the windows allow.
        """
        most = self._h2.max_outbound_frame_size
        for start in range(0, len(payload), most):
            self._h2.send_data(number, payload[start : start + most])

    def take(self) -> bytes:
        """
        The bytes that are to be sent now.
        """
        return self._h2.data_to_send()


class BulkOutbound(Outbound):
    """
    DATA frames beside h2.
    """

    def __init__(self, h2: H2Connection) -> None:
        super().__init__(h2)
        self._pieces: list[bytes | memoryview] = []

    def sendData(self, number: int, payload: memoryview) -> None:
        h2 = self._h2
        h2.streams[number].outbound_flow_control_window -= len(payload)
        h2.outbound_flow_control_window -= len(payload)
        # What h2 has said before, such as the stream's head, comes before.
        self._pieces.append(h2.data_to_send())
        most = h2.max_outbound_frame_size
        for start in range(0, len(payload), most):
            piece = payload[start : start + most]
            size = len(piece)
            self._pieces += _HEAD.pack(size >> 8, size & 0xFF, 0, 0, number), piece

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        pieces.append(self._h2.data_to_send())
        return b"".join(pieces)


def outbound(h2: H2Connection, bulk: bool) -> Outbound:
    """
    What puts the frames of a connection together.

    @param bulk: whether the way that copies least is wanted.
    """
    return BulkOutbound(h2) if bulk and _works() else Outbound(h2)


@cache
def _works() -> bool:
    """
    Whether h2's counters behave as they do in the version that this was written for.
    """
    try:
        works = _outcome(BulkOutbound) == _outcome(Outbound)
    except Exception:
        works = False
    if not works:
        _log.warn("this h2 is not known: its own DATA frames are used, which cost more")
    return works


def _outcome(kind: type[Outbound]) -> list[Any]:
    """
    What comes of two payloads: the bytes, and the windows after them.
    """
    client, server = H2Connection(), H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    fields = [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
    client.send_headers(1, fields, end_stream=True)
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200")])
    sender = kind(server)
    for size in (1, 20_000):
        sender.sendData(1, memoryview(bytes(size)))
    outcome: list[Any] = [sender.take()]
    # h2 tells the smaller of two windows: each is made the smaller one in turn.
    for change in (-1000, 2000):
        server.outbound_flow_control_window += change
        outcome.append(server.local_flow_control_window(1))
    return outcome
