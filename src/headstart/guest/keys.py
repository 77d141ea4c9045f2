"""Keys for an agent that is reached over a network: its certificate, which the host pins, and a shared secret.

::

    DIR/agent.pem   key and certificate       into the guest
    DIR/secret      of both                   into the guest, and kept
    DIR/host.pem    the certificate           kept
"""

from __future__ import annotations

import datetime
import os
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headstart import errors
from headstart.guest.links import AGENT_FILE, HOST_FILE, SECRET_FILE

#: What is inside the guest's folder; the host needs the others.
FOR_GUEST = (AGENT_FILE, SECRET_FILE)
_NAME = "headstart-agentd"
_DAY = datetime.timedelta(days=1)
#: The certificate is pinned, so that nothing would be won by its end; clocks in guests are often wrong.
_LIFETIME = 36500 * _DAY


def make(folder: Path) -> None:
    """Into a folder that has none. Raises ``TargetRefused``."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        taken = [name for name in (AGENT_FILE, HOST_FILE, SECRET_FILE) if os.path.lexists(folder / name)]
        if taken:
            raise errors.TargetRefused(
                f"{folder} holds {taken[0]} already: keys are not overwritten. Name another folder.", target=str(folder)
            )
        private, certificate = pair(_NAME)
        write(folder / AGENT_FILE, private + certificate)
        write(folder / HOST_FILE, certificate)
        write(folder / SECRET_FILE, f"{secrets.token_hex(32)}\n".encode())
    except OSError as error:
        raise errors.TargetRefused(
            f"Keys cannot be written to {folder}: {error.strerror}. Name another folder.", target=str(folder)
        ) from error


def pair(common_name: str) -> tuple[bytes, bytes]:
    """A private key and a certificate that it has signed itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def write(path: Path, content: bytes) -> None:
    """A new file, durable, for its owner alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
