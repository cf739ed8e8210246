"""Why a connection failed, in words for a client: no address, no path, no trace."""

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from hubmirror.protocol.errors import ConnectTimedOut
from hubmirror.transport.failures import describeFailure

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
]


class TextTests(SynchronousTestCase):
    def test_table(self) -> None:
        for value, expected in TABLE:
            text = describeFailure(Failure(value))
            self.assertEqual(text, expected)
            self.assertNotIn(PLACE, text)
