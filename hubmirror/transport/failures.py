"""
Interprets the failures of connections: whether the cause is on this machine or on the other side,
and a short description, which may be shown to clients because it has no address and no traceback.
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
Error numbers that a connection to any address would have got.
"""

_LOCAL = {
    **_SHORTAGES,
    # There is no free port; or, where IPv6 is disabled, no address of that family.
    EADDRNOTAVAIL: "the mirror has no port or address left for it",
    EADDRINUSE: "the mirror has no port or address left for it",
    EAFNOSUPPORT: "the mirror has no address of its kind",
    ENETUNREACH: "no route to it",
    ENETDOWN: "no route to it",
    EACCES: "the mirror's machine does not permit the connection",
    EPERM: "the mirror's machine does not permit the connection",
}
"""
Error numbers whose cause is on this machine.  C{EHOSTUNREACH} is not among them: there is a route,
but no response from its other end.
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
    Describe in a few words why a connection failed.
    """
    value = reason.value
    if isinstance(value, MirrorError):
        return value.message
    if isinstance(value, SSL.Error):
        # A SysCallError has an error number in place of OpenSSL's list of errors.
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
    Convert the failure of a connection: to L{LocalFailure} if its cause is on this machine,
    otherwise to L{ConnectFailed}.
    """
    kind = LocalFailure if _isLocal(reason.value) else ConnectFailed
    return kind(describeFailure(reason))


def mostTelling(reasons: Sequence[Failure]) -> Failure:
    """
    Select one of the failures to connect to the addresses of a host, to represent them all.

    A shortage on this machine takes precedence, because it kept some addresses from being tried.
    Other local failures count only if there is nothing else: if this machine has no route for IPv6,
    for example, the failure of the IPv4 address counts.

    @param reasons: at least one failure, in the order of their occurrence.
    """
    for reason in reasons:
        if _isShortage(reason.value):
            return reason
    others = [reason for reason in reasons if not _isLocal(reason.value)]
    return (others or reasons)[-1]


def checkDescriptors() -> None:
    """
    Check that there is a free file descriptor.  Without one, the C library can't resolve names and
    OpenSSL can't load certificates, but neither reports the cause.

    @raise LocalFailure: when no file can be opened.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        raise connectFailure(Failure()) from None


def _isShortage(value: BaseException | None) -> bool:
    # A thread for the resolution of a name that can't be started is a RuntimeError.  A socket for a
    # DNS query that can't be bound is a BindError.
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
    The C{errno} of an error, which Twisted's exceptions have in different places; 0 when there is
    none.
    """
    if isinstance(value, error.CannotListenError):
        value = value.socketError
    number = value.osError if isinstance(value, error.ConnectError) else None
    if isinstance(value, OSError):
        number = value.errno
    return number if isinstance(number, int) else 0
