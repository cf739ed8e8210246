"""
Assembles the data that an HTTP/2 connection sends, with as little copying as possible.

h2 copies a payload into its frame, the frame into its buffer, and the buffer into its output.  This
is a third of the cost of a blob over HTTP/2.  Writing the nine bytes of a frame header (RFC 9113
section 4.1) before the payload has the same effect if h2's flow control windows are updated.  Their
attributes have public names but are not documented, so they are used only if they behave as
expected.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from twisted.logger import Logger

# The header of a frame: the length in 24 bits, the type, the flags and the stream identifier.
_HEAD = Struct(">HBBBL")
_log = Logger()


class Outbound:
    """
    Lets h2 make all frames.
    """

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2

    def sendData(self, number: int, payload: memoryview) -> None:
        """
        Send bytes of a body, in as many DATA frames as necessary.

        @param number: the identifier of the stream, which must be open.
        @param payload: the bytes, no more than the flow control windows allow.
        """
        most = self._h2.max_outbound_frame_size
        for start in range(0, len(payload), most):
            self._h2.send_data(number, payload[start : start + most])

    def take(self) -> bytes:
        """
        Take the bytes to send.
        """
        return self._h2.data_to_send()


class BulkOutbound(Outbound):
    """
    Makes DATA frames itself, and lets h2 make all others.
    """

    def __init__(self, h2: H2Connection) -> None:
        super().__init__(h2)
        self._pieces: list[bytes | memoryview] = []

    def sendData(self, number: int, payload: memoryview) -> None:
        h2 = self._h2
        h2.streams[number].outbound_flow_control_window -= len(payload)
        h2.outbound_flow_control_window -= len(payload)
        # Frames that h2 has already made, such as HEADERS, come first.
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
    Create the object that assembles the frames of a connection.

    @param bulk: whether to use L{BulkOutbound} if that is possible.
    """
    return BulkOutbound(h2) if bulk and _works() else Outbound(h2)


@cache
def _works() -> bool:
    """
    Whether h2's flow control windows behave as L{BulkOutbound} expects.
    """
    try:
        works = _outcome(BulkOutbound) == _outcome(Outbound)
    except Exception:
        works = False
    if not works:
        _log.warn(
            "this version of h2 is not known; h2 makes the DATA frames itself, which costs more CPU"
            " time"
        )
    return works


def _outcome(kind: type[Outbound]) -> list[Any]:
    """
    The output for two payloads, and the flow control windows after them.
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
    # h2 returns the smaller of two windows.  Make each of them the smaller one in turn.
    for change in (-1000, 2000):
        server.outbound_flow_control_window += change
        outcome.append(server.local_flow_control_window(1))
    return outcome
