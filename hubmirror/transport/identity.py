"""
TLS connections to upstreams: the name in SNI, and the check that the certificate is for that name.

Twisted's C{optionsForClientTLS} encodes names by IDNA 2008.  This refuses underscores, and hyphens
in some places, although there are hosts and certificates with such names.  It also accepts a
certificate that names no host at all, because it does not handle the C{CertificateError} that
L{service_identity} then raises.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from zope.interface import implementer


def upstreamOptions(trust: Any) -> CertificateOptions:
    """
    Create the options that the TLS connections to all hosts have in common, with their context.
    The context takes some milliseconds, and a file descriptor to read the certificates.  It keeps
    no sessions, so none of one host can be resumed with another.

    @param trust: the C{trustRoot} of L{CertificateOptions}.
    """
    options = CertificateOptions(trustRoot=trust, acceptableProtocols=[b"http/1.1"])
    options.getContext()
    return options


@implementer(IOpenSSLClientConnectionCreator)
class UpstreamTLS:
    """
    Creates the TLS connections to one host.
    """

    def __init__(self, host: str, options: CertificateOptions) -> None:
        """
        @param host: an IP address, or a name in ASCII.
        @param options: from L{upstreamOptions}.
        @raise ValueError: when no certificate can be valid for such a name.
        """
        self._options = options
        self._serverName: bytes | None = None
        try:
            ip_address(host)
        except ValueError:
            # Names in certificates and in SNI have no trailing dot (RFC 6066 section 3).
            name = host.rstrip(".")
            self._identity: DNS_ID | IPAddress_ID = DNS_ID(name)
            self._serverName = name.encode("ascii")
        else:
            self._identity = IPAddress_ID(host)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        """
        @see: L{IOpenSSLClientConnectionCreator.clientConnectionForTLS}
        """
        connection: Connection = self._options.clientConnectionForTLS(tlsProtocol)
        if self._serverName is not None:
            connection.set_tlsext_host_name(self._serverName)
        connection.set_verify(
            VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, _verifier(self._identity, tlsProtocol)
        )
        return connection


def _verifier(
    identity: DNS_ID | IPAddress_ID, tlsProtocol: Any
) -> Callable[[Connection, X509, int, int, int], bool]:
    """
    Create the callback of C{Connection.set_verify}, which OpenSSL calls for each certificate of the
    chain.
    """
    # A strong reference would be a cycle: the protocol refers to the connection, and the connection
    # to this callback.
    protocol: Any = weakref.proxy(tlsProtocol)

    def verify(
        connection: Connection, certificate: X509, number: int, depth: int, isRight: int
    ) -> bool:
        if not isRight or depth:
            return bool(isRight)
        try:
            verify_service_identity(extract_patterns(certificate), [identity], [])
        except VerificationError as error:
            problem: Exception = error
        except Exception:
            problem = CertificateError("names no host as it should")
        else:
            return True
        protocol.failVerification(Failure(problem))
        return False

    return verify
