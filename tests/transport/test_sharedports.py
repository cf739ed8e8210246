"""
Tests of ports on which several sockets listen.
"""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from hubmirror.transport.sharedports import SharingReactor


def hasIPv6() -> bool:
    """
    Whether this machine has the loopback address of IPv6.
    """
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class SharingTests(TestCase):
    """
    Two mirrors on one port, as while one takes over from another.
    """

    def listen(self, number: int, interface: str) -> IListeningPort:
        port: IListeningPort = SharingReactor(reactor).listenTCP(
            number, Factory(), interface=interface
        )
        self.addCleanup(port.stopListening)
        return port

    def test_twice(self) -> None:
        for interface in ("127.0.0.1", *(["::1"] if hasIPv6() else [])):
            first = self.listen(0, interface)
            second = self.listen(first.getHost().port, interface)  # type: ignore[attr-defined]
            self.assertEqual(first.getHost(), second.getHost())

    def test_taken(self) -> None:
        """
        What is bound in another way is not shared.
        """
        with socket.create_server(("127.0.0.1", 0)) as other:
            number = other.getsockname()[1]
            self.assertRaises(CannotListenError, self.listen, number, "127.0.0.1")
