"""``headstart serve`` as users start and end it, with the clients that they have."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbd
import pytest

from headstart.repository import layout
from tests.cli import console
from tests.cli.shelf import DATA, SYSTEM, Shelf
from tests.kit import certificates
from tests.kit.cli import ROOT, Cli, Outcome
from tests.kit.ports import free_port
from tests.restore import stored

SECONDS = 30


@contextlib.contextmanager
def serving(cli: Cli, *arguments: str | Path, end: int = signal.SIGTERM) -> Iterator[dict[str, Any]]:
    """What it prints once it serves; afterwards it has to end well."""
    with cli.start("serve", *arguments) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            if not line:
                raise AssertionError(process.stderr.read())
            yield json.loads(line)
            process.send_signal(end)
            assert process.wait(SECONDS) == 0, process.stderr.read()
        finally:
            process.kill()


def uris(told: dict[str, Any]) -> dict[str, str]:
    return {disk["name"]: disk["uri"] for disk in told["disks"]}


def content(uri: str) -> bytes:
    handle = nbd.NBD()
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(uri)
    size = handle.get_size()
    data = handle.pread(size, 0)
    handle.shutdown()
    return bytes(data)


def refused(cli: Cli, *arguments: str | Path, status: int) -> str:
    found = console.inside(cli, "serve", *arguments)
    assert found.status == status, found
    assert not found.stdout
    return found.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end_and_leaves_nothing(shelf: Shelf, end: int) -> None:
    found = shelf.add()
    leases = shelf.cli.repository / layout.LEASES
    with serving(shelf.cli, "web@latest", end=end) as told:
        assert told["snapshot"] == found.id
        assert told["vm"] == "web"
        assert not told["writable"]
        assert [(disk["name"], disk["size"]) for disk in told["disks"]] == [
            ("system", len(SYSTEM)),
            ("data", len(DATA)),
        ]
        assert {name: content(uri) for name, uri in uris(told).items()} == {"system": SYSTEM, "data": DATA}
        assert any(leases.rglob("*"))
        place = Path(uris(told)["system"].partition("socket=")[2])
        assert place.is_socket()
        assert place.parent.stat().st_mode & 0o077 == 0
    assert not place.parent.exists()
    assert not any(path.is_file() for path in leases.rglob("*"))


def test_one_disk_at_a_socket_of_ones_own(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    with serving(shelf.cli, "web@latest", "--disk", "data", "--socket", tmp_path / "my socket") as told:
        assert uris(told) == {"data": f"nbd+unix:///data?socket={tmp_path}/my%20socket"}
        assert content(uris(told)["data"]) == DATA
    assert not (tmp_path / "my socket").exists()


def test_what_a_person_sees(shelf: Shelf) -> None:
    """On a terminal, until Ctrl-C."""
    found = shelf.add(disks={"system": SYSTEM})
    environment = shelf.cli.environment | {"TERM": "xterm"}
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-m", "headstart", "serve", found.id, "--writable"], environment)
    shown = ""
    while "copy away what you want to keep" not in shown:
        shown += os.read(terminal, 65536).decode()
    assert "nbd+unix:///system?socket=" in shown
    assert f"Serving snapshot {found.id} of web until this is interrupted (Ctrl-C)." in shown
    assert "what clients write is gone when this ends" in shown
    os.write(terminal, b"\x03")
    with contextlib.suppress(OSError):  # EIO: the other end is gone
        while True:
            shown += os.read(terminal, 65536).decode()
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown


def test_each_writable_disk_gets_its_own_writes(shelf: Shelf) -> None:
    shelf.add()
    with serving(shelf.cli, "web@latest", "--writable") as told:
        assert told["writable"]
        for number, (name, uri) in enumerate(uris(told).items()):
            handle = nbd.NBD()
            handle.connect_uri(uri)
            handle.pwrite(bytes([number + 1]) * 512, 0)
            handle.shutdown()
            original = {"system": SYSTEM, "data": DATA}[name]
            assert content(uri) == bytes([number + 1]) * 512 + original[512:]
        assert not list(shelf.cli.scratch.iterdir()), "what is written has no name"
    with serving(shelf.cli, "web@latest") as told:
        assert content(uris(told)["system"]) == SYSTEM


def test_what_is_served_outlives_forgetting_and_collecting(shelf: Shelf) -> None:
    found = shelf.add()
    shelf.add("other", {"system": stored.content(70)})
    with serving(shelf.cli, found.id) as told:
        shelf.cli.run("forget", found.id)
        for _ in range(2):
            shelf.cli.run("gc", "--quarantine", "0s")
        assert content(uris(told)["system"]) == SYSTEM
    for _ in range(2):
        shelf.cli.run("gc", "--quarantine", "0s")
    assert len(list((shelf.cli.repository / "packs").iterdir())) < 4, "it was the lease that kept it"


def test_several_servers_of_one_snapshot(shelf: Shelf) -> None:
    shelf.add()
    with serving(shelf.cli, "web@latest") as one, serving(shelf.cli, "web@latest") as other:
        assert content(uris(one)["data"]) == content(uris(other)["data"]) == DATA


def test_over_tcp_on_loopback(shelf: Shelf) -> None:
    shelf.add()
    port = free_port()
    with serving(shelf.cli, "web@latest", "--listen", f"127.0.0.1:{port}") as told:
        assert uris(told)["system"] == f"nbd://127.0.0.1:{port}/system"
        assert content(uris(told)["system"]) == SYSTEM
        message = run_refused(shelf.cli, "web@latest", "--listen", f"127.0.0.1:{port}")
        assert "in use" in message["message"]
        assert message["exit_code"] == 24


def run_refused(cli: Cli, *arguments: str) -> Any:
    return cli.run("serve", *arguments, expect=None).error["error"]


def test_with_certificates_only_those_who_have_one_read(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    certificates.make(tmp_path / "server", tmp_path / "client")
    port = free_port()
    words = ("--listen", f"127.0.0.1:{port}", "--tls-certificates", tmp_path / "server")
    with serving(shelf.cli, "web@latest", "--disk", "system", *words) as told:
        uri = uris(told)["system"]
        assert uri == f"nbds://127.0.0.1:{port}/system"
        assert content(f"{uri}?tls-certificates={tmp_path}/client") == SYSTEM
        assert qemu_img_info(f"tls-creds-x509,id=tls,dir={tmp_path}/client,endpoint=client", port, "system") == len(
            SYSTEM
        )
        certificates.make(tmp_path / "others", tmp_path / "stranger")
        (tmp_path / "stranger" / "ca-cert.pem").write_bytes((tmp_path / "client" / "ca-cert.pem").read_bytes())
        for stranger in (f"{uri}?tls-certificates={tmp_path}/stranger", f"nbd://127.0.0.1:{port}/system"):
            with pytest.raises(nbd.Error):
                content(stranger)
        assert content(f"{uri}?tls-certificates={tmp_path}/client") == SYSTEM


def test_with_shared_keys_only_those_who_have_one_read(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    for name in ("server", "client", "stranger"):
        (tmp_path / name).mkdir()
    keys = tmp_path / "client" / "keys.psk"
    keys.write_text(f"alice:{secrets.token_hex(32)}\n")
    (tmp_path / "stranger" / "keys.psk").write_text(f"alice:{secrets.token_hex(32)}\n")
    (tmp_path / "server" / "keys.psk").write_text(f"bob:{secrets.token_hex(32)}\n{keys.read_text()}")
    port = free_port()
    words = ("--listen", f"127.0.0.1:{port}", "--tls-psk", tmp_path / "server" / "keys.psk")
    with serving(shelf.cli, "web@latest", "--disk", "data", *words):
        uri = f"nbds://alice@127.0.0.1:{port}/data?tls-psk-file="
        assert content(f"{uri}{keys}") == DATA
        credentials = f"tls-creds-psk,id=tls,dir={tmp_path}/client,username=alice,endpoint=client"
        assert qemu_img_info(credentials, port, "data") == len(DATA)
        for stranger in (f"{uri}{tmp_path}/stranger/keys.psk", f"nbd://127.0.0.1:{port}/data"):
            with pytest.raises(nbd.Error):
                content(stranger)


def qemu_img_info(credentials: str, port: int, export: str) -> int:
    """The disk's size as QEMU sees it."""
    place = f"driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port={port},file.export={export},file.tls-creds=tls"
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", "--object", credentials, "--image-opts", place],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    size: int = json.loads(done.stdout)["virtual-size"]
    return size


def test_what_is_not_there(shelf: Shelf) -> None:
    found = shelf.add()
    assert "no snapshot" in refused(shelf.cli, "00000000", status=15)
    assert "system, data" in refused(shelf.cli, found.id, "--disk", "sda", status=15)


def test_sockets_that_cannot_be_made(shelf: Shelf, tmp_path: Path) -> None:
    shelf.add()
    taken = tmp_path / "taken"
    taken.write_text("somebody's")
    assert "exists" in refused(shelf.cli, "web@latest", "--socket", taken, status=24)
    assert taken.read_text() == "somebody's"
    assert "is no directory" in refused(shelf.cli, "web@latest", "--socket", tmp_path / "no" / "socket", status=24)
    assert "too long" in refused(shelf.cli, "web@latest", "--socket", tmp_path / ("s" * 200), status=2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "0.0.0.0:10809"], "give --tls-certificates or --tls-psk"),
        (["--listen", "[::]"], "give --tls-certificates or --tls-psk"),
        (["--listen", "127.0.0.1:0"], "is no HOST:PORT"),
        (["--listen", "127.0.0.1:http"], "is no HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "is no HOST:PORT"),
        (["--listen", ":10809"], "is no HOST:PORT"),
        (["--listen", "no.such.host.invalid:1"], "no address of this machine"),
        (["--tls-psk", "keys"], "say with --listen where"),
        (["--listen", "127.0.0.1", "--tls-psk", "/no/keys"], "/no/keys cannot be read"),
        (["--listen", "127.0.0.1", "--tls-certificates", "/no"], "/no/ca-cert.pem cannot be read"),
        (["--listen", "127.0.0.1", "--socket", "/tmp/socket"], "not allowed with"),
        (["--writable", "--socket", "/tmp/socket"], "name it with --disk, of system, data"),
    ],
)
def test_commands_that_cannot_mean_anything(shelf: Shelf, arguments: list[str], told: str) -> None:
    shelf.add()
    assert told in refused(shelf.cli, "web@latest", *arguments, status=2)


def test_a_server_that_dies_is_an_error(shelf: Shelf) -> None:
    shelf.add()
    with shelf.cli.start("serve", "web@latest") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        outcome = Outcome(process.wait(SECONDS), "", process.stderr.read())
    assert outcome.status == 20
    assert "ended by itself" in outcome.error["error"]["message"]


def test_damage_is_named_while_it_goes_on(shelf: Shelf) -> None:
    shelf.add(disks={"system": SYSTEM})
    stored.damage_packs(shelf.cli.repository)
    with shelf.cli.start("serve", "web@latest") as process:
        assert process.stdout is not None and process.stderr is not None
        [uri] = uris(json.loads(process.stdout.readline())).values()
        handle = nbd.NBD()
        handle.connect_uri(uri)
        with pytest.raises(nbd.Error):
            handle.pread(512, 0)
        assert handle.pread(512, stored.BLOCK * 2) == SYSTEM[stored.BLOCK * 2 :][:512]
        told = json.loads(process.stderr.readline())["log"]["message"]
        process.terminate()
        assert process.wait(SECONDS) == 0
    assert f"Disk system, bytes 0 to {stored.BLOCK - 1}" in told
