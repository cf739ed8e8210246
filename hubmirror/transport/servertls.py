"""
TLS connections of clients: versions, cipher suites, application protocols, and the selection of a
certificate by the name that the client requests.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path
from stat import S_ISREG
from time import monotonic
from typing import Any, NamedTuple, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.endpoints import TCP6ServerEndpoint, wrapServerTLS
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    IProtocolNegotiationFactory,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

_TLS12_SUITES = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    b"DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
)
"""
The cipher suites of TLS 1.2: only AEAD with forward secrecy, in the order of Mozilla's
"intermediate" configuration (U{https://wiki.mozilla.org/Security/Server_Side_TLS}, 5.7).  The last
three are effective only if an endpoint has C{dhParameters}.
"""

_TLS13_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

_ENABLE_PARTIAL_WRITE = 1
_PRIORITIZE_CHACHA = 1 << 21
"""
C{SSL_MODE_ENABLE_PARTIAL_WRITE} and C{SSL_OP_PRIORITIZE_CHACHA} of OpenSSL, for which pyOpenSSL has
no names.
"""

# All contexts have the same session ID context, so that they accept each other's sessions.
_SESSION_CONTEXT = b"hubmirror"

# The shortest time, in seconds, between two looks at a folder because of unknown names.  Anyone may
# send such names, and nothing else is done meanwhile.
_LOOK_EVERY = 1.0

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class NoApplicationProtocol(SSL.Error):
    """
    The client offers application protocols (ALPN), but none that the mirror supports.
    """


def makeContext(options: CertificateOptions) -> SSL.Context:
    """
    Create the context of a server.

    A session can be resumed by a ticket if both connections began with the same context, which has
    the keys of the tickets.  They may go on with any contexts that this function has created.

    @param options: the key, the certificates, C{dhParameters} and C{method} are taken from it.
    """
    # A file with the whole chain begins with the server's own certificate, which must not be sent
    # twice.
    own = options.certificate and options.certificate.digest("sha256")
    again = CertificateOptions(
        privateKey=options.privateKey,
        certificate=options.certificate,
        extraCertChain=[each for each in options.extraCertChain if each.digest("sha256") != own],
        dhParameters=options.dhParameters,
        # For CertificateOptions, None means TLS 1.2 and later; its attribute is then TLS_METHOD.
        method=None if options.method == SSL.TLS_METHOD else options.method,
        enableSessionTickets=True,
    )
    # Twisted sets OP_CIPHER_SERVER_PREFERENCE.  Clients without AES in hardware, which prefer
    # ChaCha20, are excepted.
    context = again.getContext()
    context.set_options(_PRIORITIZE_CHACHA)
    context.set_cipher_list(_TLS12_SUITES)
    context.set_tls13_ciphersuites(_TLS13_SUITES)
    context.set_session_id(_SESSION_CONTEXT)
    context.set_alpn_select_callback(_selectProtocol)
    # Without this mode, one call encrypts a whole batch.
    context.clear_mode(_ENABLE_PARTIAL_WRITE)
    return context


def _selectProtocol(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
    """
    Choose the first protocol of the listening factory that the client offers.  OpenSSL does not
    call this for a client that offers none; such a client uses HTTP/1.1.

    @raise NoApplicationProtocol: when there is no common protocol.  pyOpenSSL then sends the alert
        C{no_application_protocol} (RFC 7301 section 3.2), and raises this exception from
        C{do_handshake}.
    """
    factory = connection.get_app_data().factory.wrappedFactory
    negotiating: Any = IProtocolNegotiationFactory(factory, None)
    if negotiating is None:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    for protocol in negotiating.acceptableProtocols():
        if protocol in offered:
            return protocol
    raise NoApplicationProtocol([("", "", "no application protocol in common")])


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    Creates the TLS connections of one listening port.

    Every connection begins with the same context, which has the keys of the session tickets.  It
    changes to the context of its certificate when the client has sent the server name.  Therefore
    L{replace} takes effect with the next handshake, and earlier sessions can still be resumed.
    """

    def __init__(self, certificates: Mapping[str, CertificateOptions]) -> None:
        """
        @param certificates: see L{replace}.
        """
        self.replace(certificates)
        self._first = self._default
        self._first.set_tlsext_servername_callback(self._choose)

    def replace(self, certificates: Mapping[str, CertificateOptions]) -> None:
        """
        Use other certificates for new connections.

        @param certificates: keys and certificates, by host name in lower case.  A name may begin
            with C{*.}.  The first certificate is for clients that request no name or an unknown
            one.
        @raise ValueError: when there is no certificate.
        """
        if not certificates:
            raise ValueError("no certificate with its key")
        # Several names may have the same certificate.
        made = {id(each): makeContext(each) for each in certificates.values()}
        self._contexts = {name: made[id(each)] for name, each in certificates.items()}
        self._default = next(iter(self._contexts.values()))

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._first)

    def _choose(self, connection: SSL.Connection) -> None:
        # OpenSSL calls this also for clients that send no server name.
        context = self.contextFor(connection.get_servername() or b"")
        if context is not self._first:
            connection.set_context(context)

    def contextFor(self, name: bytes) -> SSL.Context:
        """
        Find the context for a host name, or the default context.

        @param name: the server name from the client (RFC 6066 section 3), or empty.
        """
        return self._find(name) or self._default

    def _find(self, name: bytes) -> SSL.Context | None:
        host = name.decode("ascii", "replace").lower()
        wildcard = "*." + host.partition(".")[2]
        return self._contexts.get(host) or self._contexts.get(wildcard)


class FolderTLS(ServerTLS):
    """
    Takes certificates from a folder: all that are found, with their keys, in files C{*.pem} in it
    or below it.

    @ivar expires: when the first of them expires, as a POSIX timestamp.
    """

    _log = Logger()

    def __init__(self, path: str, seconds: Callable[[], float] = monotonic) -> None:
        """
        @param path: the path of the folder.
        @param seconds: returns the time in seconds.
        @raise OSError: when the folder or a file can't be read.
        @raise ValueError: when a file is malformed, or there is no certificate with its key.
        """
        self._path = path
        self._seconds = seconds
        self._lookNext = seconds()
        self._seen = _stateOf(path)
        super().__init__(readFolder(path))

    def replace(self, certificates: Mapping[str, CertificateOptions]) -> None:
        super().replace(certificates)
        self.expires = min(expiryOf(each) for each in certificates.values())

    def look(self) -> None:
        """
        Read the folder again if its files have changed.  If that fails, which is logged, the
        certificates do not change.
        """
        state = _stateOf(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self.replace(readFolder(self._path, self._contexts))
        except Exception as error:
            # Whatever a file can cause must not end the checks of all ports.
            self._log.error(
                "the certificates of {path} stay as they were: {error}",
                path=self._path,
                error=str(error),
            )
        else:
            self._log.info("new certificates in {path}", path=self._path)

    def contextFor(self, name: bytes) -> SSL.Context:
        if name and self._find(name) is None and self._seconds() >= self._lookNext:
            self._lookNext = self._seconds() + _LOOK_EVERY
            self.look()
        return super().contextFor(name)


def expiryOf(options: CertificateOptions) -> float:
    """
    When a certificate expires, as a POSIX timestamp.
    """
    certificate: Any = options.certificate
    return float(certificate.to_cryptography().not_valid_after_utc.timestamp())


def _pemFiles(path: str) -> list[tuple[str, os.stat_result]]:
    """
    The files C{*.pem} in a folder or below it, by name, each with its status.  A handshake may have
    to wait for this.

    @raise OSError: when a folder or a file can't be read.
    """

    def fail(error: OSError) -> NoReturn:
        raise error

    found: list[tuple[str, os.stat_result]] = []
    visited: set[str] = set()
    for folder, below, names in os.walk(path, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            # A symbolic link leads back here.
            below.clear()
            continue
        visited.add(real)
        files = (os.path.join(folder, name) for name in names if name.endswith(".pem"))
        found += ((file, os.stat(file)) for file in files)
    return sorted((file, status) for file, status in found if S_ISREG(status.st_mode))


def _stateOf(path: str) -> list[tuple[str, int, int]] | None:
    """
    A value that changes when a file in a folder is added, removed or changed; C{None} when the
    folder can't be read.
    """
    try:
        files = _pemFiles(path)
    except OSError:
        return None
    return [(name, status.st_ctime_ns, status.st_ino) for name, status in files]


def readFolder(path: str, served: Container[str] = ()) -> dict[str, CertificateOptions]:
    """
    Read the certificates in a folder whose keys are there, too.

    @param served: the host names that must not lose their key while a certificate is there.
    @return: keys and certificates with their chains, by host name in lower case.
    @raise OSError: when the folder or a file can't be read.
    @raise ValueError: when a file is malformed, a key is encrypted, or one of C{served} has a
        certificate but no key: it is probably being renewed.
    """
    keys: dict[bytes, Any] = {}
    certificates: list[x509.Certificate] = []
    for file, _status in _pemFiles(path):
        content = Path(file).read_bytes()
        try:
            for block in _PEM.finditer(content):
                if block[1] == b"CERTIFICATE":
                    certificates.append(x509.load_pem_x509_certificate(block[0]))
                elif block[1].endswith(b"PRIVATE KEY"):
                    private = load_pem_private_key(block[0], None)
                    keys[_identity(private.public_key())] = private
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            # The TypeError is that of an encrypted key.
            raise ValueError(f"{file}: {error}") from None
    authorities = {each.subject: each for each in certificates}
    found: dict[str, tuple[x509.Certificate, CertificateOptions]] = {}
    for certificate in certificates:
        key = keys.get(_identity(certificate.public_key()))
        if key is None:
            continue
        chain = _chain(certificate, authorities)
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(key),
            certificate=X509.from_cryptography(certificate),
            extraCertChain=[X509.from_cryptography(each) for each in chain],
        )
        for name in _names(certificate) or [""]:
            other, _ = found.get(name.lower(), (certificate, None))
            # Of two certificates for the same name, use the one that is valid for longer.
            if other.not_valid_after_utc <= certificate.not_valid_after_utc:
                found[name.lower()] = certificate, options
    for certificate in certificates:
        for name in map(str.lower, _names(certificate)):
            if name in served and name not in found:
                raise ValueError(f"the key of {name} does not belong to its certificate")
    return {name: options for name, (_, options) in found.items()}


def _identity(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.DNSName)


def _chain(
    certificate: x509.Certificate, authorities: Mapping[x509.Name, x509.Certificate]
) -> list[x509.Certificate]:
    """
    The issuers of a certificate, towards a self-signed authority, as far as they are known.
    """
    chain = [certificate]
    while (issuer := authorities.get(chain[-1].issuer)) is not None and issuer not in chain:
        chain.append(issuer)
    return chain[1:]


class FolderEndpoint(NamedTuple):
    """
    A port, what takes its certificates from a folder, and the endpoint that listens with them.
    """

    port: str
    server: FolderTLS
    endpoint: IStreamServerEndpoint


def folderEndpoint(reactor: Any, description: str) -> FolderEndpoint:
    """
    Create an endpoint from a description that begins with C{tls:}, which has Twisted's syntax:
    C{tls:FOLDER:PORT:backlog=50:interface=\\:\\:}.

    @raise OSError: when the folder can't be read.
    @raise ValueError: when there is no certificate, or the description is malformed.
    """
    positional, named = [], {}
    for part in re.split(r"(?<!\\):", description)[1:]:
        name, equals, value = part.partition("=")
        if equals and name in ("path", "port", "backlog", "interface"):
            named[name] = _unquoted(value)
        else:
            positional.append(_unquoted(part))
    try:
        return _makeFolderEndpoint(reactor, *positional, **named)
    except TypeError:
        raise ValueError("write it as tls:FOLDER:PORT") from None


_unquoted = partial(re.sub, r"\\(.)", r"\1")


def _makeFolderEndpoint(
    reactor: Any, path: str, port: str = "443", backlog: str = "50", interface: str = "::"
) -> FolderEndpoint:
    server = FolderTLS(path)
    endpoint: IStreamServerEndpoint = wrapServerTLS(
        server, TCP6ServerEndpoint(reactor, int(port), int(backlog), interface)
    )
    return FolderEndpoint(port, server, endpoint)
