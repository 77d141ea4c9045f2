"""Relays of real NBD servers: one export, read-only, and nothing waits for whoever is at the other end."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbd as libnbd
import pytest

from headstart.extents import Extent
from headstart.units import KIB, MIB
from headstart.wire import children, nbd
from tests.hypervisor.qemu import bare
from tests.kit import appliance
from tests.kit.appliance import Relayed
from tests.kit.nbd import SIZE, WRITTEN, qemu_nbd, sparse
from tests.kit.waiting import wait_until

WAIT_SECONDS = 10.0


@contextlib.contextmanager
def storage_daemon(folder: Path) -> Iterator[Path]:
    """QEMU's own server, which offers ``ours`` and, writable, ``theirs``. Its socket."""
    with tempfile.TemporaryDirectory(prefix="headstart-") as short:
        path, pid = Path(short, "nbd"), Path(short, "pid")
        words = [
            "qemu-storage-daemon",
            "--daemonize",
            "--pidfile",
            str(pid),
            "--nbd-server",
            f"addr.type=unix,addr.path={path}",
        ]
        for name in ("ours", "theirs"):
            sparse(folder / name, SIZE, WRITTEN)
            words += ["--blockdev", f"driver=file,node-name={name},filename={folder / name}"]
            words += ["--export", f"type=nbd,id={name},node-name={name},name={name},writable=on"]
        subprocess.run(words, check=True)
        try:
            yield path
        finally:
            os.kill(int(pid.read_text()), 9)


@pytest.fixture
def relayed(tmp_path: Path) -> Iterator[Relayed]:
    with (
        storage_daemon(tmp_path) as path,
        appliance.relayed(tmp_path / "keys", nbd.Export(path, "ours").uri) as found,
    ):
        for each, number in itertools.product((found.host, found.appliance), children.FOR_ALL):
            os.kill(each.process_id, number)
        yield found


def handle(found: Relayed) -> Any:
    made = libnbd.NBD()
    made.set_strict_mode(0)
    made.connect_socket(found.near.detach())
    return made


def test_what_is_writable_is_not(relayed: Relayed, tmp_path: Path) -> None:
    """By the relay alone: this server would write. It says so, and ends."""
    found = handle(relayed)
    assert not found.is_read_only() and found.pread(512, 0) == (tmp_path / "ours").read_bytes()[:512]
    with pytest.raises(libnbd.Error):
        found.pwrite(bytes(512), 0)
    wait_until(lambda: "kind 1" in relayed.host.last_words())
    assert (tmp_path / "ours").read_bytes()[:512] != bytes(512)


def test_what_qemu_offers_of_a_running_disk_is_read_only(tmp_path: Path) -> None:
    """Without any relay: so neither of the two has to be right alone."""
    image = bare.image(tmp_path / "data.qcow2", "8M")
    with (
        bare.running(*bare.disk("data", image, "qcow2")) as qemu,
        qemu.machine() as machine,
        machine.live(["dev-data"]) as live,
    ):
        found = libnbd.NBD()
        found.set_strict_mode(0)
        found.connect_uri(live["dev-data"].uri)
        assert found.is_read_only()
        with pytest.raises(libnbd.Error, match="write: command failed"):
            found.pwrite(b"x" * 512, 0)
        assert found.pread(512, 0) == bytes(512)


def test_other_exports_are_neither_listed_nor_opened(relayed: Relayed, tmp_path: Path) -> None:
    found = libnbd.NBD()
    found.set_opt_mode(True)
    found.set_export_name("theirs")
    found.connect_socket(relayed.near.detach())
    listed: list[str] = []

    def note(name: str, text: str) -> int:
        listed.append(name)
        return 0

    with pytest.raises(libnbd.Error):
        found.opt_list(note)
    assert not listed
    (tmp_path / "theirs").write_bytes(b"x" * SIZE)
    found.opt_go()
    assert found.pread(512, 0) == (tmp_path / "ours").read_bytes()[:512]


def test_whoever_does_not_know_the_secret_gets_nothing(tmp_path: Path) -> None:
    sparse(tmp_path / "image", SIZE, WRITTEN)
    with (
        qemu_nbd(tmp_path / "image") as export,
        appliance.relayed(tmp_path / "keys", export.uri, secret="0" * 64) as found,
    ):
        found.near.settimeout(WAIT_SECONDS)
        assert found.near.recv(1) == b""
        wait_until(lambda: "secret" in found.appliance.last_words())


def test_one_that_stalls_holds_nothing_up(tmp_path: Path) -> None:
    """It asks for more than it takes: others are served, what is kept of it is bounded, and it ends at once."""
    content = sparse(tmp_path / "image", SIZE, WRITTEN)
    with qemu_nbd(tmp_path / "image") as export, nbd.Client(export) as other:
        with appliance.relayed(tmp_path / "keys", export.uri) as found:
            near = found.near
            near.sendall(struct.pack("!I", 3) + b"IHAVEOPT" + struct.pack("!III", 7, 6, 0) + b"\0\0")
            assert near.recv(18, socket.MSG_WAITALL).startswith(b"NBDMAGIC")
            before = resident(found.host.process_id)
            for _ in range(2000):
                with contextlib.suppress(BlockingIOError):
                    near.send(struct.pack("!IHHQQI", 0x25609513, 0, 0, 1, 0, MIB), socket.MSG_DONTWAIT)
            time.sleep(0.5)
            assert resident(found.host.process_id) < before + 4 * MIB
            for piece in other.read([Extent(0, 64 * KIB)]):
                assert bytes(piece.data or b"") == content[: 64 * KIB]
                piece.release()
            began = time.monotonic()
        assert time.monotonic() < began + 1.0


def test_it_ends_with_whoever_started_it(relayed: Relayed) -> None:
    for each in (relayed.host, relayed.appliance):
        assert each._process.stdin is not None
        each._process.stdin.close()
        assert each._process.wait(WAIT_SECONDS) == 0


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
