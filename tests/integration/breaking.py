"""
A network that breaks, in one process: C{python -m tests.integration.breaking FOLDER}.

It is a proxy for the servers of the stand-in Hub, on another loopback address but the same ports,
so that C{/etc/hosts} decides which clients use it.  It terminates TLS and forwards everything,
except that it cuts the connection when a response gets too long, and responds with 503 to some
requests itself.

C{breaking.log} has a line of JSON for each request and each cut.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString, wrapClientTLS
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.integration.nginx import Log
from tests.integration.programs import Server

HERE, THERE = "127.0.0.2", "127.0.0.1"

_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Line:
    """
    What happens to the connections to a server.

    @ivar host: the name of the server.
    @ivar cutAfter: bytes of a response after which the connection is cut; 0 for never.
    @ivar refuseEach: every how many requests the response is 503; 0 for never.
    """

    host: str
    port: int
    cutAfter: int = 0
    refuseEach: int = 0


class Breaking:
    """
    The process of the network.

    @ivar server: the process.
    @ivar log: the log of requests and cuts.
    """

    def __init__(
        self, folder: Path, certificate: Path, bundle: Path, lines: Iterable[Line], ready: Any
    ) -> None:
        folder.mkdir()
        settings = {
            "certificate": str(certificate),
            "bundle": str(bundle),
            "lines": [asdict(line) for line in lines],
        }
        (folder / "breaking.json").write_text(json.dumps(settings))
        self.log = Log(folder / "breaking.log")
        command = [sys.executable, "-m", "tests.integration.breaking", str(folder)]
        self.server = Server("breaking", command, folder, ready=ready)


class _Upstream(Protocol):
    """
    The connection to the server.
    """

    transport: Any

    def __init__(self, client: _Client) -> None:
        self._client = client

    def connectionMade(self) -> None:
        self.transport.registerProducer(self._client.transport, True)
        self._client.opened(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._client.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._client.close()


class _Client(Protocol):
    """
    A connection from the mirror, which sends one request after another, without bodies.
    """

    factory: _Door
    transport: Any

    def connectionMade(self) -> None:
        self._buffer = b""
        self._answered = 0
        self._upstream: Any = None
        self.transport.pauseProducing()
        upstream = Factory.forProtocol(lambda: _Upstream(self))
        upstream.noisy = False
        self.factory.endpoint.connect(upstream).addErrback(lambda _: self.close())

    def opened(self, upstream: Any) -> None:
        self._upstream = upstream
        self.transport.registerProducer(upstream, True)
        self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(b"\r\n\r\n"):
            return
        request, self._buffer = self._buffer, b""
        self._answered = 0
        if self.factory.refuses(request):
            self.transport.write(_REFUSAL)
        else:
            self._upstream.write(request)

    def answered(self, data: bytes) -> None:
        limit = self.factory.line.cutAfter
        if limit and self._answered + len(data) > limit:
            data = data[: limit - self._answered]
            self.factory.tell(what="cut", host=self.factory.line.host)
            self._upstream.abortConnection()
        self._answered += len(data)
        self.transport.write(data)

    def close(self) -> None:
        """Close the connection when everything that was written has been sent."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._upstream is not None:
            self._upstream.abortConnection()


@implementer(IProtocolNegotiationFactory)
class _Door(Factory):
    protocol = _Client
    noisy = False

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def __init__(self, line: Line, trust: Certificate, log: Path) -> None:
        self.line = line
        options = optionsForClientTLS(line.host, trustRoot=trust)
        self.endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, THERE, line.port))
        self._log = log
        self._requests = 0

    def tell(self, **fields: str) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps(fields) + "\n")

    def refuses(self, request: bytes) -> bool:
        self._requests += 1
        each = self.line.refuseEach
        refused = each > 0 and self._requests % each == 0
        method, uri, _ = request.partition(b"\r\n")[0].decode("latin-1").split(" ")
        what = "refused" if refused else "passed"
        self.tell(what=what, host=self.line.host, method=method, uri=uri)
        return refused


def main(folder: Path) -> None:
    settings = json.loads((folder / "breaking.json").read_text())
    trust = Certificate.loadPEM(Path(settings["bundle"]).read_bytes())
    certificate = settings["certificate"]
    for line in settings["lines"]:
        door = _Door(Line(**line), trust, folder / "breaking.log")
        description = f"ssl:{line['port']}:interface={HERE}:privateKey={certificate}"
        serverFromString(reactor, f"{description}:certKey={certificate}").listen(door).addErrback(
            lambda failure: failure.printTraceback()
        )
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
