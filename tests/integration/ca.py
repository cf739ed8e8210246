"""
A private certificate authority, which is created for each run of the tests.
"""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class CertificateAuthority:
    """
    Creates certificates for servers.  Only clients that are given C{bundle} trust them.

    @ivar bundle: the file with the CA's certificate, in PEM.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("hubmirror test CA")
        certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.bundle = folder / "ca.crt"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str) -> Path:
        """
        Create a key and certificate for these names and IP addresses, in one PEM file, which both
        Twisted's C{ssl:} endpoint and nginx can use.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_name(names[0]), self._name, key)
            .add_extension(x509.SubjectAlternativeName([_alternative(n) for n in names]), False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{names[0]}.pem"
        path.write_bytes(
            privatePem(key) + certificate.public_bytes(serialization.Encoding.PEM),
        )
        return path


def selfSigned(commonName: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Create a key and a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(commonName)
    return key, _builder(name, name, key).sign(key, hashes.SHA256())


def privatePem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Encode a private key in PEM, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _name(commonName: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, commonName)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
    )
