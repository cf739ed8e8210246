"""
Finds out which registries a mirror serves, from a field of its response to C{GET /v2/}.
"""

from __future__ import annotations

import http.client

from hubmirror.config.known import HUB
from hubmirror.operations.clientconfig import MirrorURL

FIELD = "Hubmirror-Registries"
_TIMEOUT = 5


def registriesOf(mirror: MirrorURL) -> list[str]:
    """
    Ask a mirror for the names of its registries.  If its response lacks the field, it is a mirror
    of Docker Hub.  This function blocks.

    @raise OSError: when the mirror can't be reached, or does not respond with HTTP.
    """
    kind = http.client.HTTPConnection if mirror.plain else http.client.HTTPSConnection
    connection = kind(mirror.authority, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"{mirror.path}/v2/")
        return listed(connection.getresponse().getheader(FIELD))
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"no HTTP response: {error!r}") from None
    finally:
        connection.close()


def listed(value: str | None) -> list[str]:
    """
    The names in the value of the field; that of Docker Hub when there are none.
    """
    names = [name for part in (value or "").split(",") if (name := part.strip())]
    return names or [HUB.name]
