"""
TLS towards an upstream: the name that it is asked for by, and whether its certificate is for that
name.

Twisted's L{optionsForClientTLS} encodes names by IDNA 2008, which refuses underscores, and hyphens
in some places, although hosts and their certificates have such names.  It also takes a certificate
that L{service_identity} can't judge, since it names no host at all.
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
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

_NOBODY = "upstream.invalid"
"""
The name that Twisted is given in place of the real one.  No certificate is for it.
"""


@implementer(IOpenSSLClientConnectionCreator)
class UpstreamTLS:
    """
    Makes the TLS of connections to one host.
    """

    def __init__(self, host: str, trust: Any) -> None:
        """
        @param host: an address, or a name in ASCII.
        @param trust: what certificates are verified with, as L{optionsForClientTLS} takes it.
        @raise ValueError: when no certificate can be for such a name.
        """
        self._serverName: bytes | None = None
        try:
            ip_address(host)
        except ValueError:
            # A name's root is no part of what certificates and SNI call it (RFC 6066 3).
            name = host.rstrip(".")
            self._identity: DNS_ID | IPAddress_ID = DNS_ID(name)
            self._serverName = name.encode("ascii")
        else:
            self._identity = IPAddress_ID(host)
        self._creator = optionsForClientTLS(
            _NOBODY, trust, acceptableProtocols=[b"http/1.1"], sendServerName=False
        )

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        """
        @see: L{IOpenSSLClientConnectionCreator.clientConnectionForTLS}
        """
        connection: Connection = self._creator.clientConnectionForTLS(tlsProtocol)
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
    A callback for OpenSSL, which calls it for each certificate of the chain that it has verified.
    """
    # The protocol holds the connection, which holds this.
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
