"""
Messages to the service manager that has started the process, such as systemd.
"""

from __future__ import annotations

import os
import socket

from twisted.logger import Logger

_log = Logger()


def tellManager(state: str) -> None:
    """
    Tell the service manager about a change (sd_notify(3)).  Without a service manager, and for a
    service that does not have C{Type=notify}, this does nothing.

    @param state: C{READY=1} or C{STOPPING=1}.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        # A name that is not in the file system (unix(7)).
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.sendto(state.encode("ascii"), address)
    except OSError as error:
        _log.warn("can't send {state} to the service manager: {error}", state=state, error=error)
