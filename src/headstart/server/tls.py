"""The server's certificate: the owner's, or one of its own that hosts pin by its fingerprint."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headstart import durable, errors

#: Whoever pins it does not look at its time; browsers are told once anyway.
_LIFE = datetime.timedelta(days=3650)


def ensure(folder: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Certificate and key of this server's own, made where there is none."""
    certificate, key = folder / "server.crt", folder / "server.pem"
    if certificate.exists() and key.exists():
        return certificate, key
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = ec.generate_private_key(ec.SECP256R1())
    durable.replace(
        key,
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
    durable.replace(certificate, _make(private, names).public_bytes(serialization.Encoding.PEM))
    return certificate, key


def _make(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headstart server")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    return builder.sign(key, hashes.SHA256())


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the first certificate of a PEM file, in hex. Raises ``Usage``."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except OSError as error:
        raise errors.Usage(f"{certificate} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise errors.Usage(f"{certificate} is no certificate in PEM.") from error
    return hashlib.sha256(found.public_bytes(serialization.Encoding.DER)).hexdigest()


def renew(context: ssl.SSLContext, certificate: Path, key: Path) -> str:
    """From now on connections that begin get what is in the files now; those that are there go on. Its fingerprint.
    Raises ``Usage`` for files that are no certificate and its key: then nothing has changed."""
    told = fingerprint(certificate)
    try:
        with _held(certificate) as first, _held(key) as second:
            # A context takes the one and then the other: what does not fit would leave half of it.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(first, second, password="")
            context.load_cert_chain(first, second, password="")
    except (OSError, ssl.SSLError) as error:
        raise errors.Usage(f"{certificate} and {key} are no certificate and its key: {error}.") from error
    return told


@contextlib.contextmanager
def _held(path: Path) -> Iterator[str]:
    """What a file holds now, whatever becomes of it: a name by which it can be read twice, in memory alone."""
    held = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(held, path.read_bytes())
        yield f"/proc/self/fd/{held}"
    finally:
        os.close(held)
