"""
A network of embedded registries, which share a certificate authority, a clock, and a record of all
requests.
"""

import tempfile
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorSSL, IReactorTime
from twisted.internet.ssl import PrivateCertificate
from twisted.web.client import HTTPConnectionPool

from hubmirror.testing.ca import Authority
from hubmirror.testing.credentials import Credential
from hubmirror.testing.faults import Seen
from hubmirror.testing.memory import MemoryAgent
from hubmirror.testing.origin import Origin

#: Whether a credential belongs to the service that has received it.
Owns = Callable[[Seen, Credential], bool]


class Network:
    """
    The origins of several registries.

    @param reactor: the reactor to listen with; a L{Clock} is enough for C{agent}.
    @param address: the loopback address to listen on.
    @ivar authority: the certificate authority.
    @ivar owners: by the name of each registry, a function that decides whether a credential belongs
        to it.
    @ivar seen: all requests to the registries, in the order in which they were received.
    @ivar caFile: the file with the CA's certificate, which exists between C{start} and C{stop}.
    """

    def __init__(self, reactor: IReactorTime, address: str) -> None:
        self.reactor = reactor
        self.authority = Authority()
        self.owners: dict[str, Owns] = {}
        self.seen: list[Seen] = []
        self.caFile = ""
        self._origins: list[Origin] = []
        self._address = address
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, origins: Iterable[Origin]) -> None:
        """
        Add the origins of a registry.

        @raise ValueError: when two origins would have the same host.  Then none is added.
        """
        added = [*self._origins]
        for origin in origins:
            if origin.host in [other.host for other in added]:
                raise ValueError(f"there is an embedded registry at {origin.host} already")
            added.append(origin)
        self._origins[:] = added

    @inlineCallbacks
    def start(self) -> Generator[Deferred[Any], Any, None]:
        """
        Make all origins listen, on ports that the kernel chooses.  Those that already listen are
        left alone.

        @raise TypeError: when the reactor can't listen, as a L{Clock}.
        """
        reactor = IReactorSSL(self.reactor)
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="hubmirror-testing-")
        path = Path(self._folder.name, "ca.pem")
        path.write_bytes(self.authority.pem)
        self.caFile = str(path)
        hostnames = list(dict.fromkeys([self._address, "127.0.0.1", "localhost"]))
        tls = PrivateCertificate.loadPEM(self.authority.serverPEM(hostnames)).options()
        for origin in self._origins:
            origin.listenWith(reactor, self._address, tls)
            yield origin.startListening()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """
        Close all connections and ports, and remove the files.
        """
        for origin in self._origins:
            yield origin.stopListening()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def misdirected(self) -> list[Seen]:
        """
        The requests with a credential that does not belong to the service that received it.
        """
        return [
            seen
            for seen in self.seen
            if not all(self.owners[seen.registry](seen, each) for each in seen.credentials)
        ]

    def agent(self, pool: HTTPConnectionPool | None) -> MemoryAgent:
        """
        Create an agent that reaches all origins in memory.
        """
        return MemoryAgent(self.reactor, self._origins, pool)
