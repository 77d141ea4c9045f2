"""X.509 certificates as nbdkit, libnbd and QEMU look for them in a directory: an authority, a server and a client."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey


def make(server: Path, client: Path) -> None:
    """Two new directories; the server is ``localhost`` and 127.0.0.1."""
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _name("authority")
    root = _certificate(name, authority.public_key(), name, authority, is_authority=True)
    for folder, role in ((server, "server"), (client, "client")):
        folder.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / "ca-cert.pem").write_bytes(_pem(root))
        (folder / f"{role}-cert.pem").write_bytes(_pem(_certificate(_name(role), key.public_key(), name, authority)))
        (folder / f"{role}-key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, signer: Key, *, is_authority: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )
