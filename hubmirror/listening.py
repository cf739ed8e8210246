"""
What the mirror listens on: endpoint descriptions with their certificates, which may be replaced
while it runs.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hubmirror.config import ConfigError
from hubmirror.transport.servertls import ServerTLS, folderEndpoint
from hubmirror.transport.tlsendpoints import TLSReactor

_BEHIND_BALANCER = "haproxy:"
"""
How a description begins of a port whose connections begin with the PROXY protocol.  Twisted's own
C{haproxy:} would expect that within TLS.
"""

_LOOK_EVERY = 30.0
"""
Seconds between two looks at the files of certificates.
"""


def makeEndpoint(reactor: Any, description: str, option: str = "port") -> IStreamServerEndpoint:
    """
    The endpoint of a description.

    @param option: the option that names it.

    @raise ConfigError: when it can't be made.
    """
    own = description.removeprefix(_BEHIND_BALANCER)
    if own != description and isinstance(reactor, TLSReactor):
        reactor = reactor.behindBalancer()
    try:
        if own.startswith("tls:"):
            return folderEndpoint(reactor, own)
        endpoint: IStreamServerEndpoint = serverFromString(reactor, _withChain(own))
    except FileNotFoundError as error:
        raise ConfigError(
            f"--{option} {description}: there is no {error.filename} here; put certificate and key"
            " into it, or name them: ssl:443:privateKey=key.pem:certKey=cert.pem"
        ) from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        if description.startswith("systemd:") and isinstance(error, LookupError):
            reason = "systemd has given this process no such socket"
        raise ConfigError(f"--{option} {description}: {reason}") from None
    return endpoint


def _withChain(description: str) -> str:
    """
    An endpoint description that has TLS send all certificates of its file.  Of itself C{ssl:} sends
    the first, and clients then don't find the way to the authority that they trust.
    """
    parts, named = _split(description)
    if parts[0] != "ssl" or "extraCertChain" in named:
        return description
    file = named.get("certKey") or named.get("privateKey", "server.pem")
    try:
        text = Path(file.replace("\\:", ":")).read_bytes()
    except OSError:
        # Whoever makes the endpoint says so better.
        return description
    isChain = text.count(b"-----BEGIN CERTIFICATE-----") > 1
    return f"{description}:extraCertChain={file}" if isChain else description


def _split(description: str) -> tuple[list[str], dict[str, str]]:
    parts = re.split(r"(?<!\\):", description)
    return parts, dict(part.split("=", 1) for part in parts if "=" in part)


def _portOf(description: str) -> str:
    """
    The port of a description that begins with C{ssl:}.
    """
    parts, named = _split(description)
    return named.get("port", parts[1])


def _filesOf(description: str) -> list[str]:
    """
    The files of a description that begins with C{ssl:}.
    """
    _parts, named = _split(description)
    key = named.get("privateKey", "server.pem")
    files = [key, named.get("certKey", key), named.get("extraCertChain", "")]
    return [file.replace("\\:", ":") for file in files if file]


class SharingReactor:
    """
    A reactor on whose ports other processes of the same account may listen too, if they are bound
    in the same way.  The kernel distributes the connections among them (C{SO_REUSEPORT},
    socket(7)).
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """
        @raise CannotListenError: when the port is taken, or may not be bound.
        """
        family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as made:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                made.setsockopt(socket.SOL_SOCKET, option, 1)
            try:
                made.bind((interface, port))
                made.listen(backlog)
            except OSError as error:
                raise CannotListenError(interface, port, error) from None
            made.setblocking(False)
            # The port has a descriptor of its own.
            return self._reactor.adoptStreamPort(made.fileno(), family, factory)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class _Capturing:
    """
    A reactor that only takes what an endpoint would listen with.
    """

    options: CertificateOptions

    def listenSSL(self, *_: Any, contextFactory: CertificateOptions, **__: Any) -> None:
        """
        Take the key and the certificates.
        """
        self.options = contextFactory


def _loadOptions(description: str) -> CertificateOptions:
    """
    The key and certificates of a description, as they are in its files now.

    @raise ConfigError: when they can't be read.
    @raise ValueError: when the key is another certificate's.
    """
    capturing = _Capturing()
    makeEndpoint(capturing, description).listen(None)  # type: ignore[arg-type]
    try:
        capturing.options.getContext()
    except (SSL.Error, crypto.Error):
        raise ValueError("the key does not belong to the certificate") from None
    return capturing.options


class Certificates:
    """
    Takes up renewed certificates: looks at their files now and then, and replaces what new
    handshakes get.  A pair that does not belong together, as while it is being written, changes
    nothing.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, descriptions: Sequence[str], servers: Sequence[ServerTLS]
    ) -> None:
        """
        @param servers: what makes the connections of those descriptions that begin with C{ssl:},
            in their order.
        """
        self._servers = servers
        own = [each.removeprefix(_BEHIND_BALANCER) for each in descriptions]
        self._descriptions = [each for each in own if each.startswith("ssl:")]
        self._seen = [self._state(each) for each in self._descriptions]
        self._expiries: dict[str, float] = {}
        for description in self._descriptions:
            try:
                self._note(description, _loadOptions(description))
            except (ValueError, OSError):
                # The endpoint was made of it; what is wrong with it is found by the next look.
                self._seen[self._descriptions.index(description)] = []
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Begin to look at the files.
        """
        if self._servers:
            self._looking.start(_LOOK_EVERY, now=False)

    def stop(self) -> None:
        """
        Look no more.
        """
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """
        Take up what has changed.
        """
        for number, (description, server) in enumerate(
            zip(self._descriptions, self._servers, strict=False)
        ):
            state = self._state(description)
            if state == self._seen[number]:
                continue
            self._seen[number] = state
            try:
                options = _loadOptions(description)
                server.replace({"": options})
                self._note(description, options)
            except (ValueError, OSError) as error:
                self._log.error(
                    "the certificate of port {port} stays as it was: {error}",
                    port=_portOf(description),
                    error=str(error),
                )
            else:
                self._log.info(
                    "a new certificate for port {port}",
                    port=_portOf(description),
                )

    def _note(self, description: str, options: CertificateOptions) -> None:
        certificate: Any = options.certificate
        until = datetime.strptime(certificate.get_notAfter().decode("ascii"), "%Y%m%d%H%M%S%z")
        self._expiries[_portOf(description)] = until.timestamp()

    def expiries(self) -> Mapping[str, float]:
        """
        Until when the certificate of each port is valid, as a POSIX timestamp.
        """
        return self._expiries

    def _state(self, description: str) -> list[tuple[int, int] | None]:
        states: list[tuple[int, int] | None] = []
        for file in _filesOf(description):
            try:
                found = os.stat(file)
            except OSError:
                states.append(None)
            else:
                states.append((found.st_mtime_ns, found.st_ino))
        return states
