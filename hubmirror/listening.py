"""
Creates the endpoints that the mirror listens on from their descriptions, and reloads their
certificates when the files change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hubmirror.config import ConfigError
from hubmirror.transport.servertls import FolderEndpoint, ServerTLS, expiryOf, folderEndpoint
from hubmirror.transport.tlsendpoints import TLSReactor

_BEHIND_BALANCER = "haproxy:"
"""
The prefix of a description whose connections begin with a header of the PROXY protocol.  Twisted's
own C{haproxy:} is not used, because it expects the header inside of TLS.
"""

_BALANCED = ("tcp", "tcp6", "ssl", "tls")
"""
The endpoints that can have this prefix: those that call C{listenTCP} of a L{TLSReactor}.
"""

_PARAMETERS = (
    "port",
    "privateKey",
    "certKey",
    "sslmethod",
    "interface",
    "backlog",
    "extraCertChain",
    "dhParameters",
)
"""
The parameters of Twisted's C{ssl:}, in the order in which they may stand without their names.
"""

_LOOK_EVERY = 30.0
"""
Seconds between two checks of the certificate files.
"""


def makeEndpoint(reactor: Any, description: str, option: str = "port") -> IStreamServerEndpoint:
    """
    Create the endpoint of a description.

    @param reactor: the reactor to listen with; a L{TLSReactor} for the mirror's own TLS.
    @param option: the name of the option that has the description, for error messages.
    @raise ConfigError: when the description is invalid, or a file that it names is missing.
    """
    own = description.removeprefix(_BEHIND_BALANCER)
    if own != description:
        if own.partition(":")[0] not in _BALANCED or option != "port":
            raise ConfigError(
                f"--{option} {description}: haproxy: can only precede"
                f" {', '.join(_BALANCED)}, and only in --port"
            )
        reactor = reactor.behindBalancer()
    try:
        if own.startswith("tls:"):
            folder = folderEndpoint(reactor, own)
            if isinstance(reactor, TLSReactor):
                reactor.folders.append(folder)
            return folder.endpoint
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
    Make an C{ssl:} description send the whole certificate chain of its file.  By itself, C{ssl:}
    sends only the first certificate, without the intermediate ones that clients need to verify it.
    """
    parts, named = _split(description)
    if parts[0] != "ssl" or "extraCertChain" in named:
        return description
    file = named.get("certKey") or named.get("privateKey", "server.pem")
    try:
        text = Path(file.replace("\\:", ":")).read_bytes()
    except OSError:
        # Creating the endpoint fails for the same reason, with a better message.
        return description
    isChain = text.count(b"-----BEGIN CERTIFICATE-----") > 1
    return f"{description}:extraCertChain={file}" if isChain else description


def _split(description: str) -> tuple[list[str], dict[str, str]]:
    """
    Split a description that begins with C{ssl:}.

    @return: its parts, and its parameters by their names, whether it has these or not.
    """
    parts = re.split(r"(?<!\\):", description)
    positional = [part for part in parts[1:] if "=" not in part]
    named = dict(part.split("=", 1) for part in parts if "=" in part)
    return parts, {**dict(zip(_PARAMETERS, positional, strict=False)), **named}


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


class _Capturing:
    """
    A reactor that does not listen, but keeps the C{CertificateOptions} of the endpoint.
    """

    options: CertificateOptions

    def listenSSL(self, *_: Any, contextFactory: CertificateOptions, **__: Any) -> None:
        """
        Keep the key and the certificates.
        """
        self.options = contextFactory


def _loadOptions(description: str) -> CertificateOptions:
    """
    Load the key and the certificates of a description from its files.

    @raise ConfigError: when they can't be read.
    @raise ValueError: when the key does not belong to the certificate.
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
    Checks the certificate files periodically, and uses renewed certificates for new handshakes.  A
    key and a certificate that do not belong together are ignored, because the files may be changed
    one after the other.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        descriptions: Sequence[str],
        servers: Sequence[ServerTLS],
        folders: Sequence[FolderEndpoint] = (),
    ) -> None:
        """
        @param descriptions: the descriptions of all ports.
        @param servers: the TLS factories of the descriptions that begin with C{ssl:}, in the same
            order.
        @param folders: the endpoints whose descriptions begin with C{tls:}.
        """
        self._servers = servers
        self._folders = folders
        own = [each.removeprefix(_BEHIND_BALANCER) for each in descriptions]
        self._descriptions = [each for each in own if each.startswith("ssl:")]
        self._seen = [self._state(each) for each in self._descriptions]
        self._expiries: dict[str, float] = {}
        for number, description in enumerate(self._descriptions):
            try:
                self._note(description, _loadOptions(description))
            except (ValueError, OSError):
                # The endpoint has been created from these files.  The next check reports the error.
                self._seen[number] = []
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def start(self) -> None:
        """
        Begin to check the files.
        """
        if self._servers or self._folders:
            self._looking.start(_LOOK_EVERY, now=False)

    def stop(self) -> None:
        """
        Stop checking the files.
        """
        if self._looking.running:
            self._looking.stop()

    def look(self) -> None:
        """
        Load the certificates whose files have changed.
        """
        for folder in self._folders:
            folder.server.look()
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
            except Exception as error:
                # Whatever a file can cause must not end the checks of all ports.
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
        self._expiries[_portOf(description)] = expiryOf(options)

    def expiries(self) -> Mapping[str, float]:
        """
        The expiry of each port's certificate, as a POSIX timestamp.
        """
        folders = {each.port: each.server.expires for each in self._folders}
        return {**folders, **self._expiries}

    def _state(self, description: str) -> list[tuple[int, int] | None]:
        states: list[tuple[int, int] | None] = []
        for file in _filesOf(description):
            try:
                found = os.stat(file)
            except OSError:
                states.append(None)
            else:
                states.append((found.st_ctime_ns, found.st_ino))
        return states
