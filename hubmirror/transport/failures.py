"""
Why a connection failed, in a few words that may be shown to a client: no address, no trace.
"""

from __future__ import annotations

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.python.failure import Failure

from hubmirror.protocol.errors import MirrorError

_TEXTS: tuple[tuple[type[BaseException], str], ...] = (
    (VerificationError, "its certificate is for another name"),
    (error.ConnectionRefusedError, "connection refused"),
    (error.TimeoutError, "could not connect in time"),
    (error.NoRouteError, "no route to it"),
    (error.DNSLookupError, "the name does not resolve"),
    (ValueError, "its name can't be that of a host"),
    (error.ConnectionClosed, "the connection closed while it was set up"),
)


def describeFailure(reason: Failure) -> str:
    """
    Why a connection failed.
    """
    value = reason.value
    if isinstance(value, MirrorError):
        return value.message
    if isinstance(value, SSL.Error):
        reasons = [entry[2] for entry in value.args[0]] if value.args else []
        if "certificate verify failed" in reasons:
            return "its certificate does not verify"
        return f"TLS failed ({', '.join(reasons) or 'closed'})"
    for kind, text in _TEXTS:
        if isinstance(value, kind):
            return text
    return f"could not connect ({type(value).__name__})"
