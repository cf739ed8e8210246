"""
Where embedded registries are together: one certificate authority, one clock, one record of all
that was asked.
"""

import tempfile
from collections.abc import Callable, Generator
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

#: Whether a credential of a request is for the service that got it to know.
Owns = Callable[[Seen, Credential], bool]


class Network:
    """
    The origins of all registries that are beside each other.

    @param reactor: the reactor to listen with; a L{Clock} will do for C{agent} alone.
    @param address: the loopback address to listen on.
    @ivar owners: what each registry, by its name, says of credentials.
    @ivar seen: every request to any of them, in the order they came in.
    @ivar caFile: path of the CA's certificate, while they listen.
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

    def add(self, origin: Origin) -> None:
        """
        Take in an origin.

        @raise ValueError: another one has its name.
        """
        if origin.host in [other.host for other in self._origins]:
            raise ValueError(f"there is an embedded registry at {origin.host} already")
        self._origins.append(origin)

    @inlineCallbacks
    def start(self) -> Generator[Deferred[Any], Any, None]:
        """
        Listen, on ports that the kernel chooses; with those that listen already, do nothing.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="hubmirror-testing-")
        path = Path(self._folder.name, "ca.pem")
        path.write_bytes(self.authority.pem)
        self.caFile = str(path)
        hostnames = list(dict.fromkeys([self._address, "127.0.0.1", "localhost"]))
        tls = PrivateCertificate.loadPEM(self.authority.serverPEM(hostnames)).options()
        for origin in self._origins:
            origin.listenWith(IReactorSSL(self.reactor), self._address, tls)
            yield origin.startListening()

    @inlineCallbacks
    def stop(self) -> Generator[Deferred[Any], Any, None]:
        """
        Close everything; nothing is left in the reactor, and no file.
        """
        for origin in self._origins:
            yield origin.stopListening()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def misdirected(self) -> list[Seen]:
        """
        The requests with a credential that was not for the service that got it.
        """
        return [
            seen
            for seen in self.seen
            if not all(self.owners[seen.registry](seen, each) for each in seen.credentials)
        ]

    def agent(self, pool: HTTPConnectionPool | None) -> MemoryAgent:
        """
        An agent that reaches all of them in memory.
        """
        return MemoryAgent(self.reactor, self._origins, pool)
