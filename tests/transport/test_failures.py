"""
Tests of the errors of connections: whether the upstream is to blame, and a description for clients
without addresses or paths.
"""

import errno
from os import strerror

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.errors import ConnectFailed, ConnectTimedOut, LocalFailure
from hubmirror.transport import failures
from hubmirror.transport.failures import (
    checkDescriptors,
    connectFailure,
    describeFailure,
    mostTelling,
)

PLACE = "10.1.2.3:443"

TABLE = [
    (ConnectTimedOut("could not connect within 5 s"), "could not connect within 5 s"),
    (VerificationError(errors=[PLACE]), "its certificate is for another name"),
    (error.ConnectionRefusedError(f"refused by {PLACE}"), "connection refused"),
    (error.TimeoutError(PLACE), "could not connect in time"),
    (error.NoRouteError(PLACE), "no route to it"),
    (error.DNSLookupError(PLACE), "the name does not resolve"),
    (error.ConnectionDone(PLACE), "the connection closed while it was set up"),
    (error.ConnectionLost(PLACE), "the connection closed while it was set up"),
    (error.ConnectError(string=PLACE), "could not connect (ConnectError)"),
    (OSError(PLACE), "could not connect (OSError)"),
    (UnicodeError(PLACE), "its name can't be that of a host"),
    (
        SSL.Error([("SSL routines", "", "certificate verify failed")]),
        "its certificate does not verify",
    ),
    (
        SSL.Error([("SSL routines", "", "version too low")]),
        "TLS failed (version too low)",
    ),
    (SSL.Error([]), "TLS failed (closed)"),
    (SSL.Error(), "TLS failed (closed)"),
    (SSL.SysCallError(104, "ECONNRESET"), "TLS failed (closed)"),
]


def connecting(number: int) -> BaseException:
    """Twisted's exception for an error of connect(2)."""
    return error.getConnectError((number, strerror(number)))


def binding(number: int) -> BaseException:
    """Twisted's exception for an error of socket(2) or bind(2)."""
    return error.ConnectBindError(number, strerror(number))


LOCAL: list[tuple[BaseException, str]] = [
    # No file descriptor, in this process or on the machine.
    (binding(errno.EMFILE), "the mirror has no file descriptor left for it"),
    (binding(errno.ENFILE), "the mirror has no file descriptor left for it"),
    (OSError(errno.EMFILE, "Too many open files"), "the mirror has no file descriptor left for it"),
    (
        error.CannotListenError("", 53, OSError(errno.EMFILE, "Too many open files")),
        "the mirror has no file descriptor left for it",
    ),
    # No memory, no buffers, or no thread to resolve the name.
    (binding(errno.ENOBUFS), "the mirror has no memory left for it"),
    (connecting(errno.ENOBUFS), "the mirror has no memory left for it"),
    (connecting(errno.ENOMEM), "the mirror has no memory left for it"),
    (MemoryError(), "the mirror has no memory left for it"),
    (RuntimeError("can't start new thread"), "could not connect (RuntimeError)"),
    # No port.
    (connecting(errno.EADDRNOTAVAIL), "the mirror has no port or address left for it"),
    (connecting(errno.EADDRINUSE), "the mirror has no port or address left for it"),
    (binding(errno.EADDRINUSE), "the mirror has no port or address left for it"),
    (error.CannotListenError("", 53, None), "could not connect (CannotListenError)"),
    # No network, or none of this family.
    (connecting(errno.ENETUNREACH), "no route to it"),
    (connecting(errno.ENETDOWN), "no route to it"),
    (error.NoRouteError(), "no route to it"),
    (binding(errno.EAFNOSUPPORT), "the mirror has no address of its kind"),
    # A firewall or a security module of this machine.
    (connecting(errno.EACCES), "the mirror's machine does not permit the connection"),
    (connecting(errno.EPERM), "the mirror's machine does not permit the connection"),
    (PermissionError(errno.EPERM, PLACE), "the mirror's machine does not permit the connection"),
    (error.ConnectBindError(), "could not connect (ConnectBindError)"),
]

UPSTREAM: list[BaseException] = [
    connecting(errno.ECONNREFUSED),
    connecting(errno.ECONNRESET),
    connecting(errno.ETIMEDOUT),
    # There is a route, and no response.
    connecting(errno.EHOSTUNREACH),
    connecting(errno.EHOSTDOWN),
    error.TimeoutError(),
    error.UserError(),
    error.DNSLookupError(),
    error.ConnectionLost(),
    error.ConnectionDone(),
    error.ConnectError(),
    error.ConnectError(string=PLACE),
    VerificationError(errors=[PLACE]),
    SSL.Error([("SSL routines", "", "certificate verify failed")]),
    SSL.SysCallError(errno.ECONNRESET, "ECONNRESET"),
    OSError(PLACE),
    ValueError(PLACE),
    # A defect of this program is not an error of its machine.
    NotImplementedError(),
]


class WhoseTests(SynchronousTestCase):
    """An error of this machine is not a failure of the upstream."""

    def test_local(self) -> None:
        for value, text in LOCAL:
            made = connectFailure(Failure(value))
            self.assertIs(type(made), LocalFailure, repr(value))
            self.assertEqual(made.message, text)
            self.assertEqual((made.status, made.fields), (503, ((b"Retry-After", b"5"),)))

    def test_upstream(self) -> None:
        for value in UPSTREAM:
            self.assertIs(type(connectFailure(Failure(value))), ConnectFailed, repr(value))

    def test_addresses(self) -> None:
        """For a host with several addresses, the most significant failure counts."""
        refused, timedOut = connecting(errno.ECONNREFUSED), error.TimeoutError()
        noRoute, noAddress = connecting(errno.ENETUNREACH), connecting(errno.EADDRNOTAVAIL)
        noFile, noMemory = binding(errno.EMFILE), MemoryError()
        for values, expected in (
            ([refused], refused),
            ([noRoute], noRoute),
            # IPv6 is disabled here, which does not excuse a failure over IPv4.
            ([refused, noRoute], refused),
            ([noRoute, timedOut], timedOut),
            ([noAddress, refused, noAddress], refused),
            ([refused, timedOut], timedOut),
            # No address has a route.
            ([noRoute, noAddress], noAddress),
            # The address that could not be tried might have responded.
            ([noFile, refused], noFile),
            ([refused, noRoute, noMemory], noMemory),
        ):
            self.assertIs(mostTelling([Failure(value) for value in values]).value, expected)


class DescriptorTests(SynchronousTestCase):
    def test_left(self) -> None:
        checkDescriptors()

    def test_none(self) -> None:
        """The error is that of opening a file."""

        def refuse(*_arguments: object) -> int:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(failures.os, "open", refuse)
        self.assertRaises(LocalFailure, checkDescriptors)


class TextTests(SynchronousTestCase):
    def test_table(self) -> None:
        for value, expected in TABLE:
            text = describeFailure(Failure(value))
            self.assertEqual(text, expected)
            self.assertNotIn(PLACE, text)
