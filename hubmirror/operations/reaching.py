"""
The checks of the doctor that come before any request: whether a server's name resolves, and whether
a connection can be established.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.threads import deferToThreadPool

from hubmirror.operations.findings import Wrong
from hubmirror.protocol.errors import ConnectFailed
from hubmirror.protocol.url import Origin
from hubmirror.transport.connecting import Connector


class Reaching:
    """
    The checks.  Each is a method that returns one line about its success, or raises L{Wrong}, as
    those of L{hubmirror.operations.examination.Examination} do.
    """

    def __init__(self, reactor: Any, origin: Origin, trust: Any) -> None:
        """
        @param origin: the origin of the registry or mirror that is checked.
        @param trust: the certificate authorities with which certificates are verified.
        """
        self._reactor = reactor
        self._origin = origin
        self._trust = trust

    async def name(self) -> str:
        """
        Check that the name resolves.
        """
        host = self._origin.host.decode("ascii")
        try:
            found = await deferToThreadPool(
                self._reactor,
                self._reactor.getThreadPool(),
                socket.getaddrinfo,
                host,
                self._origin.port,
                type=socket.SOCK_STREAM,
            )
        except OSError:
            raise Wrong(
                f"{host} does not resolve",
                "check the name and the DNS server; a mirror uses another one with --resolver",
            ) from None
        return f"{host} is {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}"

    async def connection(self) -> str:
        """
        Check that a connection can be established, and that its certificate is valid.
        """
        connector = Connector(
            self._reactor, trust=self._trust, permits=lambda _origin, _address: True, timeout=5
        )
        try:
            connection = await connector.connect(self._origin, lambda _: None)
        except ConnectFailed as error:
            remedy = (
                "check whether the server listens on this port, whether with TLS or without, and"
                " whether a firewall is in between"
            )
            if "certificate" in error.message:
                remedy = "use a name that the certificate has; --ca-file names a CA of your own"
            raise Wrong(error.message, remedy) from None
        transport: Any = connection.transport
        secure = self._origin.scheme == b"https"
        version = transport.getHandle().get_protocol_version_name() if secure else "without TLS"
        connection.abort()
        await connection.closed
        return f"connected to port {self._origin.port}, {version}"
