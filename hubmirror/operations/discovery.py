"""
Which registries a mirror serves, as it says itself where clients begin.
"""

from __future__ import annotations

import http.client

from hubmirror.config.known import HUB
from hubmirror.operations.clientconfig import MirrorURL

FIELD = "Hubmirror-Registries"
_TIMEOUT = 5


def registriesOf(mirror: MirrorURL) -> list[str]:
    """
    Ask a mirror.  One that can't be asked from here, or says nothing, is a mirror of the Hub.
    """
    kind = http.client.HTTPConnection if mirror.plain else http.client.HTTPSConnection
    connection = kind(mirror.authority, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"{mirror.path}/v2/")
        return listed(connection.getresponse().getheader(FIELD))
    except (OSError, http.client.HTTPException, ValueError):
        return [HUB.name]
    finally:
        connection.close()


def listed(value: str | None) -> list[str]:
    """
    The names in the field.
    """
    names = [name for part in (value or "").split(",") if (name := part.strip())]
    return names or [HUB.name]
