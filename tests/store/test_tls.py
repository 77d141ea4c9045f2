"""A server whose certificate is of an issuer of its owner's own."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headstart.store.contract import Refused
from headstart.store.locking import LockingStore
from headstart.store.s3 import Account
from tests.kit import weed as weeds
from tests.kit.gateway import Gateway
from tests.kit.weed import Weed

DAY = datetime.timedelta(days=1)


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=key is signer, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(signer, hashes.SHA256())
    )


@pytest.fixture
def issuer(tmp_path: Path) -> Path:
    """Of a certificate and a key, which are beside it in ``server.pem``."""
    ours, servers = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    secret = servers.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(secret + certificate("server", servers, "us", ours).public_bytes(pem))
    (tmp_path / "ca.pem").write_bytes(certificate("us", ours, "us", ours).public_bytes(pem))
    return tmp_path / "ca.pem"


@pytest.fixture
def store(
    weed: Weed, issuer: Path, locking_bucket: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LockingStore]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(issuer.with_name("server.pem"))
    with Gateway(weed.url, tls) as gateway:
        for name, value in weeds.environment(gateway.url).items():
            monkeypatch.setenv(name, value)
        yield LockingStore(f"s3://{locking_bucket}/{place}", locking_bucket, f"{place}/", Account)


def test_that_is_named(store: LockingStore, issuer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(issuer))
    store.create("config", b"x")
    assert store.read("config") == b"x"
    assert dict(store.list("")) == {"config": 1}
    assert store.locked_until("config") == 0.0
    assert store.clock() > 0


def test_that_nobody_named(store: LockingStore) -> None:
    for request in (
        lambda: store.create("config", b"x"),
        lambda: store.read("config"),
        lambda: list(store.list("")),
        lambda: store.locked_until("config"),
        lambda: store.clock(),
    ):
        with pytest.raises(Refused, match="AWS_CA_BUNDLE"):
            request()
