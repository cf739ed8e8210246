"""
A private certificate authority, which is created for each run of the tests.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hubmirror.testing.ca import Authority


class CertificateAuthority:
    """
    Creates certificates for servers.  Only clients that are given C{bundle} trust them.

    @ivar bundle: the file with the CA's certificate, in PEM.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = Authority()
        self.bundle = folder / "ca.crt"
        self.bundle.write_bytes(self._authority.pem)

    def server(self, *names: str) -> Path:
        """
        Create a key and certificate for these names and IP addresses, in one PEM file, which both
        Twisted's C{ssl:} endpoint and nginx can use.
        """
        path = self._folder / f"{names[0]}.pem"
        path.write_bytes(self._authority.serverPEM(list(names)))
        return path


def selfSigned(commonName: str) -> tuple[bytes, bytes]:
    """Create a key without a passphrase and a self-signed certificate, both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, commonName)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )
