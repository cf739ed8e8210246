"""
A certificate authority that exists only during a test.
"""

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFETIME = timedelta(days=2)


class Authority:
    """
    Issues certificates for servers.  Its own key (ECDSA, P-256) is only in memory.

    @ivar pem: its certificate in PEM, for clients that trust it.
    """

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("hubmirror.testing CA")
        certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(keyCertSign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def serverPEM(self, hostnames: list[str]) -> bytes:
        """
        Create a private key and a certificate for it.

        @param hostnames: the names and addresses of the server.  Without any, the certificate has
            no C{subjectAltName}, and is not valid for any host.
        @return: the key, the certificate, and the authority's certificate, in PEM.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name("".join(hostnames[:1]) or "nobody"), self._name, key.public_key())
        if hostnames:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in hostnames]), critical=False
            )
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(keyCertSign=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        privatePEM = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return privatePEM + certificate.public_bytes(serialization.Encoding.PEM) + self.pem


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(commonName: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, commonName)])


def _usage(*, keyCertSign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not keyCertSign,
        key_cert_sign=keyCertSign,
        crl_sign=keyCertSign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(hostname: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(hostname))
    except ValueError:
        return x509.DNSName(hostname)
