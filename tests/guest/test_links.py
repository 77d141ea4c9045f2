"""Addresses of agents, and the keys for those on a network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from headstart import errors
from headstart.agentd import messages
from headstart.guest import keys, links
from tests.wire import scripted


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "tcp:host",
            "tcp:host:1",
            "tcp:host:0,keys=x",
            "tcp:host:65536,keys=x",
            "tcp::1,keys=x",
            "tcp:::1:5,keys=x",
        ),
        *("vsock:", "vsock:2", "vsock:0", "vsock:4294967295", "vsock:x", "vsock:3:", "vsock:-3"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(errors.Usage, match=r"vsock:CID\[:PORT\]"):
        links.parse(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/run/agent", "_Unix(path=PosixPath('/run/agent'))"),
        ("unix:/run/agent", "_Unix(path=PosixPath('/run/agent'))"),
        ("vsock:3", f"_Vsock(cid=3, port={messages.VSOCK_PORT})"),
        ("vsock:42:7", "_Vsock(cid=42, port=7)"),
        ("tcp:host:7,keys=a,b", "_Tcp(host='host', port=7, keys=PosixPath('a,b'))"),
        ("tcp:[::1]:7,keys=/k", "_Tcp(host='::1', port=7, keys=PosixPath('/k'))"),
    ],
)
def test_addresses(text: str, found: str) -> None:
    assert repr(links.parse(text)) == found


def test_a_unix_socket() -> None:
    with scripted.listening(lambda client: client.sendall(b"hello")) as path, links.connect(str(path)) as link:
        assert link.recv(5) == b"hello"
        assert links.parse(str(path)).secret == ""


def test_nobody_there(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for address in (str(tmp_path / "missing"), f"tcp:127.0.0.1:{port},keys={tmp_path / 'keys'}"):
            with pytest.raises(errors.Unreachable, match=r"cannot be reached: .*\?"):
                links.connect(address)


def test_a_server_without_tls(tmp_path: Path) -> None:
    keys.make(tmp_path / "keys")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with pytest.raises(errors.Unreachable, match="cannot be reached"):
            links.connect(f"tcp:127.0.0.1:{server.getsockname()[1]},keys={tmp_path / 'keys'}")


def test_keys_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(errors.Usage, match="headstart agent keys"):
        links.connect(f"tcp:127.0.0.1:1,keys={tmp_path}")
    with pytest.raises(errors.Usage, match="headstart agent keys"):
        _ = links.parse(f"tcp:127.0.0.1:1,keys={tmp_path}").secret
    (tmp_path / links.HOST_FILE).write_text("nonsense")
    with pytest.raises(errors.Usage, match="cannot be read"):
        links.connect(f"tcp:127.0.0.1:1,keys={tmp_path}")


def test_keys_are_for_their_owner_and_are_not_overwritten(tmp_path: Path) -> None:
    keys.make(tmp_path / "a" / "keys")
    found = sorted((tmp_path / "a" / "keys").iterdir())
    assert [path.name for path in found] == [links.AGENT_FILE, links.HOST_FILE, links.SECRET_FILE]
    assert {path.stat().st_mode & 0o777 for path in found} == {0o600}
    assert (tmp_path / "a" / "keys").stat().st_mode & 0o777 == 0o700
    before = [path.read_bytes() for path in found]
    assert b"PRIVATE" in before[0] and b"PRIVATE" not in before[1]
    with pytest.raises(errors.TargetRefused, match="not overwritten"):
        keys.make(tmp_path / "a" / "keys")
    assert [path.read_bytes() for path in found] == before


def test_keys_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        keys.make(tmp_path / name)
    for name in (links.AGENT_FILE, links.HOST_FILE, links.SECRET_FILE):
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "b" / name).read_bytes()


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(errors.TargetRefused, match="cannot be written"):
        keys.make(Path("/proc/keys"))
