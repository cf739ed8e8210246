"""
Why a connection failed: whether that says anything of the other side, and in a few words that may
be shown to a client, without an address or a traceback.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import (
    EACCES,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EMFILE,
    ENETDOWN,
    ENETUNREACH,
    ENFILE,
    ENOBUFS,
    ENOMEM,
    EPERM,
)

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet import error
from twisted.python.failure import Failure

from hubmirror.protocol.errors import ConnectFailed, LocalFailure, MirrorError

_NO_FILE = "the mirror has no file descriptor left for it"
_NO_MEMORY = "the mirror has no memory left for it"

_SHORTAGES = {EMFILE: _NO_FILE, ENFILE: _NO_FILE, ENOBUFS: _NO_MEMORY, ENOMEM: _NO_MEMORY}
"""
Errors that any connection would have met, to whatever address.
"""

_LOCAL = {
    **_SHORTAGES,
    # No free port; or, where IPv6 is off, no address of that kind at all.
    EADDRNOTAVAIL: "the mirror has no port or address left for it",
    EADDRINUSE: "the mirror has no port or address left for it",
    EAFNOSUPPORT: "the mirror has no address of its kind",
    ENETUNREACH: "no route to it",
    ENETDOWN: "no route to it",
    EACCES: "the mirror's machine does not permit the connection",
    EPERM: "the mirror's machine does not permit the connection",
}
"""
Errors of this machine's own.  C{EHOSTUNREACH} is none of them: there is a route, and at its other
end nobody answers.
"""

_TEXTS: tuple[tuple[type[BaseException], str], ...] = (
    (VerificationError, "its certificate is for another name"),
    (CertificateError, "its certificate names no host as it should"),
    (error.ConnectionRefusedError, "connection refused"),
    (error.TimeoutError, "could not connect in time"),
    (error.NoRouteError, "no route to it"),
    (error.DNSLookupError, "the name does not resolve"),
    (MemoryError, _NO_MEMORY),
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
        # A SysCallError has a number in place of OpenSSL's list.
        listed = value.args and isinstance(value.args[0], list)
        reasons = [entry[2] for entry in value.args[0]] if listed else []
        if "certificate verify failed" in reasons:
            return "its certificate does not verify"
        return f"TLS failed ({', '.join(reasons) or 'closed'})"
    for kind, text in _TEXTS:
        if isinstance(value, kind):
            return text
    return _LOCAL.get(_errnoOf(value)) or f"could not connect ({type(value).__name__})"


def connectFailure(reason: Failure) -> ConnectFailed:
    """
    The error that a failed connection becomes: a L{LocalFailure} when it says nothing of the other
    side.
    """
    kind = LocalFailure if _isLocal(reason.value) else ConnectFailed
    return kind(describeFailure(reason))


def mostTelling(reasons: Sequence[Failure]) -> Failure:
    """
    Of the failures to connect to each address of a host, the one that stands for all of them.
    While anything is short on this machine none of the others counts, since not all addresses
    could be tried.  Where one family of addresses has no route, the other family's failure counts.

    @param reasons: one at least, in order.
    """
    for reason in reasons:
        if _isShortage(reason.value):
            return reason
    others = [reason for reason in reasons if not _isLocal(reason.value)]
    return (others or reasons)[-1]


def checkDescriptors() -> None:
    """
    Make sure that a file can be opened.  Where none can, the C library finds no server for a name,
    and OpenSSL no certificate, and neither tells why.

    @raise LocalFailure: when none can be opened.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        raise connectFailure(Failure()) from None


def _isShortage(value: BaseException | None) -> bool:
    # A thread that can't be started, for the lookup of a name, is a RuntimeError; a socket that
    # can't be bound, for a question to a DNS server, is a BindError.
    return (
        isinstance(value, MemoryError | error.BindError)
        or type(value) is RuntimeError
        or _errnoOf(value) in _SHORTAGES
    )


def _isLocal(value: BaseException | None) -> bool:
    return (
        _isShortage(value)
        or isinstance(value, error.ConnectBindError | error.NoRouteError)
        or _errnoOf(value) in _LOCAL
    )


def _errnoOf(value: BaseException | None) -> int:
    """
    The number of an error, wherever Twisted keeps it; 0 where there is none.
    """
    if isinstance(value, error.CannotListenError):
        value = value.socketError
    number = value.osError if isinstance(value, error.ConnectError) else None
    if isinstance(value, OSError):
        number = value.errno
    return number if isinstance(number, int) else 0
