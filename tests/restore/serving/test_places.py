"""Addresses as people write them, and as clients are told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headstart import errors
from headstart.restore.serving.places import Certificates, SharedKeys, Tcp, Unix


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 10809),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("localhost:65535", "localhost", 65535),
        ("::1", "::1", 10809),
        ("[::1]", "::1", 10809),
        ("[::1]:2000", "::1", 2000),
    ],
)
def test_hosts_and_ports(text: str, host: str, port: int) -> None:
    place = Tcp.parse(text)
    assert (place.host, place.port) == (host, port)
    place.prepare()


@pytest.mark.parametrize("text", ["", ":", ":1", "host:", "host:-1", "host:0", "host:65536", "host:\u0661", "[]:1"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(errors.Usage, match="HOST:PORT"):
        Tcp.parse(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_others_may_connect_with_tls_alone(host: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Usage, match="could read the disks"):
        Tcp(host).prepare()
    keys = tmp_path / "keys"
    keys.write_text("alice:00\n")
    Tcp(host, tls=SharedKeys(keys)).prepare()


def test_clients_have_to_show_a_certificate(tmp_path: Path) -> None:
    assert "--tls-verify-peer" in Certificates(tmp_path).arguments()
    assert "--tls=require" in Tcp("127.0.0.1", tls=Certificates(tmp_path)).arguments()


def test_clients_are_told_a_uri_that_is_quoted() -> None:
    assert Tcp("127.0.0.1", 1).uri("a b/c") == "nbd://127.0.0.1:1/a%20b%2Fc"
    assert Tcp("::1", 1).uri("a") == "nbd://[::1]:1/a"
    assert Tcp("0.0.0.0", 1, SharedKeys(Path("/keys"))).uri("a") == f"nbds://{socket.gethostname()}:1/a"
    assert Unix(Path("/run/a b?c")).uri("a&b") == "nbd+unix:///a%26b?socket=/run/a%20b%3Fc"
