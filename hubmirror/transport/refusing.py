"""
The response to data that is not a valid request, for HTTP/1.1 and HTTP/2.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import SERVER, RequestRefused, reasonOf


def writeRefusal(channel: Any, error: RequestRefused) -> None:
    """
    Write the error response to data that is not a valid request.

    @param channel: an L{HTTP1Channel<hubmirror.transport.http1server.HTTP1Channel>} or
        L{HTTP2Stream<hubmirror.transport.http2stream.HTTP2Stream>}.
    """
    body = error.body()
    headers = Headers()
    for name, value in (
        (b"Server", SERVER),
        (b"Date", datetimeToString()),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        *error.fields,
    ):
        headers.setRawHeaders(name, [value])
    channel.writeHeaders(b"HTTP/1.1", b"%d" % error.status, reasonOf(error.status), headers)
    channel.write(body)
