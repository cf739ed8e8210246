"""
Clients that stall, or abort their requests.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
from contextlib import suppress

from h2.connection import H2Connection
from h2.settings import SettingCodes

from benchmarks.clients import HOST, TOKEN, CannotMeasure
from benchmarks.watched import Doors

#: The largest flow-control window of HTTP/2 (RFC 9113, 6.9.1).
_WINDOW = 2**31 - 1
_INITIAL_WINDOW = 65535
_TIMEOUT = 60


#: HTTP/1.1 and HTTP/2 with TLS, and HTTP/1.1 without.
WAYS = ("1.1", "2", "plain")


class Raw:
    """
    A client connection that is controlled step by step.  Its receive buffer has the default size of
    the system.

    @param how: one of L{WAYS}.
    """

    def __init__(self, doors: Doors, context: ssl.SSLContext, how: str) -> None:
        self.how = how
        port = doors.plain if how == "plain" else doors.tls
        self._authority = f"{HOST}:{port}"
        self.socket = socket.create_connection((HOST, port), timeout=_TIMEOUT)
        self._h2 = H2Connection()
        if how != "plain":
            self.socket = context.wrap_socket(
                self.socket, server_hostname=HOST, do_handshake_on_connect=False
            )

    def request(self, target: str) -> bytes:
        """The bytes of a GET request. Over HTTP/2, they open the windows as far as possible."""
        if self.how != "2":
            head = f"GET {target} HTTP/1.1\r\nHost: {self._authority}\r\n{TOKEN}\r\n\r\n"
            return head.encode()
        name, value = TOKEN.lower().split(": ")
        fields = {":method": "GET", ":scheme": "https", ":authority": self._authority}
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._h2.increment_flow_control_window(_WINDOW - _INITIAL_WINDOW)
        self._h2.send_headers(1, [*fields.items(), (":path", target), (name, value)], True)
        return self._h2.data_to_send()

    def cancel(self) -> None:
        """Cancel the request by resetting its HTTP/2 stream."""
        self._h2.reset_stream(1, 8)
        self.socket.sendall(self._h2.data_to_send())

    def read(self, size: int) -> None:
        """
        Read C{size} bytes, or fewer if the connection ends.
        """
        while size > 0 and (data := self.socket.recv(min(size, 65536))):
            size -= len(data)

    def reset(self) -> None:
        """Close the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Send FIN, and wait until the other side closes the connection."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
            self.read(2**40)
        self.socket.close()


class Crowd:
    """
    Creates clients that stall or abort.

    @param doors: the ports of the mirror.
    @param blob: the request target of a large blob.
    """

    def __init__(self, doors: Doors, blob: str) -> None:
        self._doors = doors
        self._blob = blob
        self._contexts = {how: self._context(how) for how in WAYS}

    def _context(self, how: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._doors.bundle))
        context.set_alpn_protocols(["h2" if how == "2" else "http/1.1"])
        return context

    def _connect(self, how: str) -> Raw:
        return Raw(self._doors, self._contexts[how], how)

    def stall(self, how: str) -> Raw:
        """
        Request the blob, and read nothing of the response.

        @raise CannotMeasure: when the mirror does not select HTTP/2 for it.
        """
        raw = self._connect(how)
        if isinstance(raw.socket, ssl.SSLSocket):
            raw.socket.do_handshake()
            if how == "2" and raw.socket.selected_alpn_protocol() != "h2":
                raise CannotMeasure("HTTP/2 was asked for and not given")
        raw.socket.sendall(raw.request(self._blob))
        return raw

    def abort(self, seed: float) -> None:
        """
        Abort a request at a random point: before or in the request, before the response, in its
        head, or in its body.
        """
        draw = random.Random(seed)
        raw = self._connect(draw.choice(WAYS))
        request = raw.request(self._blob)
        point = draw.choice(("handshake", "request", "answer", "head", "body", "body"))
        # The mirror may close the connection first.
        with suppress(OSError):
            if point != "handshake":
                if isinstance(raw.socket, ssl.SSLSocket):
                    raw.socket.do_handshake()
                raw.socket.sendall(
                    request[: draw.randrange(len(request))] if point == "request" else request
                )
            if point == "head":
                raw.read(draw.randrange(1, 600))
            elif point == "body":
                raw.read(int(2 ** draw.uniform(10, 23)))
            if point in ("answer", "body") and raw.how == "2" and draw.random() < 0.5:
                raw.cancel()
        if draw.random() < 0.5:
            raw.reset()
        else:
            raw.close()
