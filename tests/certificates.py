"""Certificates as private authorities make them, with nothing in them that Vault's own tools do not ask for."""

import datetime as dt
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
LOOPBACK = x509.IPAddress(ip_address("127.0.0.1"))


@dataclass(frozen=True)
class Signed:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Files of both."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(certificate), str(key)


def signed(
    name: str,
    issuer: Signed | None = None,
    *,
    extensions: list[tuple[x509.ExtensionType, bool]],
    start: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + DAY,
) -> Signed:
    """A certificate with just these extensions, signed by the issuer or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject if issuer else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=end,
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Signed(builder.sign(issuer.key if issuer else key, SHA256()), key)


def plain_authority(name: str = "ca") -> Signed:
    """As ``openssl`` and home-grown scripts make them: no key identifiers, and basicConstraints not critical."""
    return signed(name, extensions=[(x509.BasicConstraints(ca=True, path_length=None), False)])


def leaf(issuer: Signed, common_name: str = "vault", name: x509.GeneralName = LOOPBACK, **more: dt.datetime) -> Signed:
    """A certificate for this name, without any key identifier."""
    return signed(common_name, issuer, extensions=[(x509.SubjectAlternativeName([name]), False)], **more)
