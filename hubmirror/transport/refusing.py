"""
The response to something that is not a valid request, for HTTP/1.1 and HTTP/2.
"""

from __future__ import annotations

from typing import Any

from twisted.web.http import datetimeToString
from twisted.web.http_headers import Headers

from hubmirror.protocol.errors import SERVER, RequestRefused, reasonOf


def writeRefusal(channel: Any, error: RequestRefused) -> None:
    """
    Write the error response for something that is not a valid request.

    @param channel: an object with the methods C{writeHeaders} and C{write}.
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
