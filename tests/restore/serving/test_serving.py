"""Snapshots over NBD, to the programs that people use: libnbd's and QEMU's."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbd
import pytest

from headstart import errors
from headstart.repository import Repository, lease
from headstart.repository.manifest import Manifest
from headstart.restore.serving import offer, serving
from headstart.restore.serving.places import Unix
from headstart.restore.serving.serving import Serving, Source
from headstart.store import open_store
from headstart.store.local import LocalStore
from tests.kit import gateway as gateways
from tests.kit import stores
from tests.kit.cli import ROOT
from tests.kit.gateway import Gateway
from tests.kit.weed import Weed
from tests.restore import stored

BLOCK = stored.BLOCK
#: Holes, what repeats, more than is read in one go, and an end within a sector.
SYSTEM = stored.content(1, 0, 0, 2, 3, 3, 0, 4, *range(10, 120), *[0] * 40, 7, tail=1000)
DATA = stored.content(*range(200, 240))
DISKS = {"system": SYSTEM, "data disk/2": DATA}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    with stores.new_repository(LocalStore(tmp_path_factory.mktemp("repository"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(repo: Repository) -> Manifest:
    return stored.store_snapshot(repo, DISKS)


def source_of(repo: Repository, found: Manifest, **options: Any) -> Source:
    assert isinstance(repo.store, LocalStore)
    return Source(repo, str(repo.store.root), found, **options)


@pytest.fixture(scope="module")
def served(repo: Repository, found: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    place = Unix(tmp_path_factory.mktemp("sockets") / "nbd")
    with Serving(source_of(repo, found), list(DISKS), place) as running:
        yield running


@pytest.fixture
def writable(repo: Repository, found: Manifest, tmp_path: Path) -> Iterator[Serving]:
    (tmp_path / "scratch").mkdir()
    with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd"), scratch=tmp_path / "scratch") as running:
        yield running


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def qemu_io(uri: str, *commands: str, writing: bool = False) -> str:
    return run("qemu-io", "-f", "raw", *(() if writing else ("-r",)), *(f"-c{each}" for each in commands), uri)


def connected(uri: str) -> nbd.NBD:
    handle = nbd.NBD()
    handle.connect_uri(uri)
    return handle


def information(uri: str) -> dict[str, Any]:
    [export] = json.loads(run("nbdinfo", "--json", uri))["exports"]
    assert isinstance(export, dict)
    return export


def test_nbdinfo_sees_disks_of_their_size_that_nobody_can_write(served: Serving) -> None:
    for name, content in DISKS.items():
        export = information(served.uris[name])
        assert export["export-size"] == len(content)
        assert export["is_read_only"] and export["can_multi_conn"]
        assert not any(export[f"can_{what}"] for what in ("trim", "zero", "flush", "fua"))
    listed = json.loads(run("nbdinfo", "--json", "--list", served.uris["system"]))["exports"]
    assert [export["export-name"] for export in listed] == list(DISKS)


def test_nbdcopy_gets_every_byte(served: Serving, tmp_path: Path) -> None:
    for name, content in DISKS.items():
        run("nbdcopy", served.uris[name], tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == content


def test_holes_are_told(served: Serving) -> None:
    told = json.loads(run("nbdinfo", "--json", "--map", served.uris["system"]))
    zeroes = bytearray(len(SYSTEM))
    for extent in told:
        assert (extent["type"] == 3) == (extent["description"] == "hole,zero")
        if extent["type"] == 3:
            assert not any(SYSTEM[extent["offset"] : extent["offset"] + extent["length"]])
            zeroes[extent["offset"] : extent["offset"] + extent["length"]] = b"\1" * extent["length"]
    assert sum(zeroes) == (3 + 40) * BLOCK
    assert sum(extent["length"] for extent in told) == len(SYSTEM)


def test_qemu_img_compares_and_converts(served: Serving, tmp_path: Path) -> None:
    original, converted = tmp_path / "original", tmp_path / "converted.qcow2"
    original.write_bytes(DATA)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "raw", original, served.uris["data disk/2"])
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", served.uris["data disk/2"], converted)
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", original, converted)
    original.write_bytes(DATA[:-1] + b"?")
    differs = subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "raw", original, served.uris["data disk/2"]], timeout=60
    )
    assert differs.returncode == 1


def test_qemu_img_skips_holes(served: Serving, tmp_path: Path) -> None:
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", "-S", "0", served.uris["system"], tmp_path / "full")
    mapped = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", served.uris["system"]))
    assert sum(extent["length"] for extent in mapped if not extent["data"]) >= 43 * BLOCK


def test_qemu_io_reads_patterns(served: Serving) -> None:
    name = served.uris["system"]
    assert "1000 bytes at offset" in qemu_io(name, f"read -P 0 {BLOCK} {2 * BLOCK}", f"read {BLOCK - 7} 1000")


def test_many_clients_read_at_once(served: Serving) -> None:
    def read(seed: int) -> None:
        chosen = random.Random(seed)
        name = chosen.choice(list(DISKS))
        handle = connected(served.uris[name])
        for _ in range(40):
            start = chosen.randrange(len(DISKS[name]))
            length = min(chosen.randrange(1, 8 * BLOCK), len(DISKS[name]) - start)
            assert handle.pread(length, start) == DISKS[name][start : start + length]
        handle.shutdown()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))


def test_one_disk_alone_is_the_one_that_nobody_names(writable: Serving) -> None:
    assert connected(f"nbd+unix:///?socket={writable.place.arguments()[1]}").get_size() == len(SYSTEM)


@pytest.mark.parametrize("name", ["", "nothing", "system/../data disk", "a" * 4000, "\x1b[2J"])
def test_names_of_no_disk_are_refused(served: Serving, name: str) -> None:
    handle = nbd.NBD()
    handle.set_export_name(name)
    with pytest.raises(nbd.Error):
        handle.connect_unix(served.place.arguments()[1])
    assert connected(served.uris["system"]).get_size() == len(SYSTEM)


def test_odd_requests_hurt_nobody_else(served: Serving) -> None:
    handle = connected(served.uris["system"])
    handle.set_strict_mode(0)
    size = len(SYSTEM)
    for start, length in ((size, 1), (size - 1, 2), (2**62, 512)):
        with pytest.raises(nbd.Error):
            handle.pread(length, start)
    with pytest.raises(nbd.Error):
        handle.pwrite(b"x", 0)
    for write in (handle.zero, handle.trim):
        with pytest.raises(nbd.Error):
            write(512, 0)
    assert handle.pread(1, size - 1) == SYSTEM[-1:]


def test_clients_that_talk_nonsense_or_go_away(served: Serving) -> None:
    path = served.place.arguments()[1]
    for words in (b"", b"GET / HTTP/1.0\r\n\r\n", os.urandom(4096), b"\0\0\0\1IHAVEOPT\0\0\0\7\xff\xff\xff\xff"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(words)
    for _ in range(3):
        gone = connected(served.uris["system"])
        for number in range(64):
            gone.aio_pread(nbd.Buffer(BLOCK), number * BLOCK)
        del gone
        run("nbdcopy", served.uris["system"], "null:")


def test_what_clients_write_is_read_back_by_others(writable: Serving) -> None:
    uri = writable.uris["system"]
    export = information(uri)
    assert not export["is_read_only"]
    assert export["can_flush"] and export["can_fua"] and export["can_multi_conn"]
    qemu_io(uri, "write -P 0xaa 100 1000", f"write -P 0xbb {5 * BLOCK} {4 * BLOCK}", "flush", writing=True)
    qemu_io(uri, f"write -z {20 * BLOCK} {BLOCK}", f"discard {30 * BLOCK} {BLOCK}", writing=True)
    expected = bytearray(SYSTEM)
    expected[100:1100] = b"\xaa" * 1000
    expected[5 * BLOCK : 9 * BLOCK] = b"\xbb" * (4 * BLOCK)
    for zeroed in (20, 30):
        expected[zeroed * BLOCK : (zeroed + 1) * BLOCK] = bytes(BLOCK)
    handle = connected(uri)
    assert b"".join(handle.pread(min(BLOCK, len(SYSTEM) - at), at) for at in range(0, len(SYSTEM), BLOCK)) == expected


def test_what_clients_wrote_is_gone_at_the_end(repo: Repository, found: Manifest, tmp_path: Path) -> None:
    for _ in range(2):
        with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd"), scratch=tmp_path) as running:
            assert connected(running.uris["system"]).pread(BLOCK, 0) == SYSTEM[:BLOCK]
            qemu_io(running.uris["system"], f"write -P 0xaa 0 {BLOCK}", writing=True)
            [overlay] = [
                link
                for link in Path(f"/proc/{running.process_id}/fd").iterdir()
                if str(link.readlink()).startswith(str(tmp_path)) and "deleted" in str(link.readlink())
            ]
            assert overlay.stat().st_size >= BLOCK
        assert not list(tmp_path.iterdir())


def test_damage_costs_its_range_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    with stores.new_repository(LocalStore(tmp_path / "repository")) as repo:
        found = stored.store_snapshot(repo, {"system": SYSTEM})
        stored.damage_packs(tmp_path / "repository")
        with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
            handle = connected(running.uris["system"])
            damaged = []
            for block, start in enumerate(range(0, len(SYSTEM), BLOCK)):
                length = min(BLOCK, len(SYSTEM) - start)
                try:
                    assert handle.pread(length, start) == SYSTEM[start : start + length]
                except nbd.Error as error:
                    assert error.errno == "EIO"
                    damaged.append(block)
            for _ in range(3):
                with pytest.raises(nbd.Error):
                    handle.pread(1, damaged[0] * BLOCK)
    assert damaged == [0]
    [told] = caplog.messages
    assert f"Disk system, bytes 0 to {BLOCK - 1}:" in told
    assert "packs/" in told and "damaged" in told


def test_a_store_that_is_gone_is_an_error_and_back_again_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    packs = tmp_path / "repository" / "packs"
    with stores.new_repository(LocalStore(tmp_path / "repository")) as repo:
        found = stored.store_snapshot(repo, {"system": SYSTEM})
        with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
            handle = connected(running.uris["system"])
            packs.rename(packs.with_name("elsewhere"))
            with pytest.raises(nbd.Error):
                handle.pread(BLOCK, 0)
            packs.with_name("elsewhere").rename(packs)
            assert handle.pread(BLOCK, 0) == SYSTEM[:BLOCK]
    assert "Disk system" in caplog.messages[0]


def test_a_store_in_trouble_is_asked_again_and_then_given_up(
    gateway: Gateway, weed: Weed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    url = f"s3://{weed.new_bucket()}"
    with stores.new_repository(open_store(url)) as repo:
        found = stored.store_snapshot(repo, {"system": SYSTEM})
        source = Source(repo, url, found, patience=2.0)
        with Serving(source, ["system"], Unix(tmp_path / "nbd")) as running:
            handle = connected(running.uris["system"])
            gateway.plan("GET", "packs/", gateways.refuse(503, "SlowDown"))
            gateway.plan("GET", "packs/", gateways.lose_answer)
            assert handle.pread(BLOCK, 3 * BLOCK) == SYSTEM[3 * BLOCK :][:BLOCK]
            assert not caplog.messages
            gateway.plan("GET", "packs/", gateways.refuse(503, "SlowDown"), times=None)
            begun, asked = time.monotonic(), gateway.count("GET", "packs/")
            with pytest.raises(nbd.Error, match="EIO"):
                handle.pread(BLOCK, 60 * BLOCK)
            assert gateway.count("GET", "packs/") - asked >= 3
            assert time.monotonic() - begun < 10
            assert handle.pread(BLOCK, 3 * BLOCK) == SYSTEM[3 * BLOCK :][:BLOCK], "it is kept"
            gateway.forget()
            assert handle.pread(BLOCK, 60 * BLOCK) == SYSTEM[60 * BLOCK :][:BLOCK]
    [told] = caplog.messages
    assert f"Disk system, bytes {60 * BLOCK} to {61 * BLOCK - 1}: " in told


def test_secrets_are_seen_by_nobody(served: Serving, repo: Repository) -> None:
    process = Path(f"/proc/{served.process_id}")
    seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert b"nbdkit" in seen
    for secret in (repo.secrets.joined.hex().encode(), repo.secrets.joined, stores.PASSWORD):
        assert secret not in seen
    mode = Path(served.place.arguments()[1]).stat().st_mode
    assert stat.S_ISSOCK(mode) and not mode & 0o022, "others can connect: that takes the right to write"


def test_passwords_in_our_environment_are_not_handed_on(
    repo: Repository, found: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_PASSWORD", "correct horse")
    monkeypatch.setenv("HEADSTART_SERVER_FILE", "/where/we/joined")
    with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
        handed = Path(f"/proc/{running.process_id}/environ").read_bytes()
        assert b"correct horse" not in handed
        assert b"/where/we/joined" in handed, "without it nothing of a server's can be read"


def test_an_end_of_nbdkit_is_noticed(repo: Repository, found: Manifest, tmp_path: Path) -> None:
    with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
        running.wait(0.01)
        os.kill(running.process_id, signal.SIGKILL)
        with pytest.raises(errors.Unreachable, match="ended by itself"):
            running.wait(10)
    assert not (tmp_path / "nbd").exists()


_SERVE_FOR_EVER = """
import sys, time
from pathlib import Path
from headstart import repository
from headstart.repository import snapshot
from headstart.restore.serving.places import Unix
from headstart.restore.serving.serving import Serving, Source
from headstart.store.local import LocalStore
repo = repository.open(LocalStore(Path(sys.argv[1])), lambda: b"correct horse")
with Serving(Source(repo, sys.argv[1], snapshot.load(repo, sys.argv[2])), ["system"], Unix(Path(sys.argv[3]))) as done:
    print(done.process_id, flush=True)
    time.sleep(1000)
"""


def test_nbdkit_ends_with_us_even_if_we_are_killed(repo: Repository, found: Manifest, tmp_path: Path) -> None:
    assert isinstance(repo.store, LocalStore)
    place = tmp_path / "nbd"
    command: list[str | Path] = [sys.executable, "-c", _SERVE_FOR_EVER, repo.store.root, found.id, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        nbdkit = Path(f"/proc/{int(process.stdout.readline())}")
        handle = nbd.NBD()
        handle.connect_uri(Unix(place).uri("system"))
        process.kill()
    deadline = time.monotonic() + 15
    while _runs(nbdkit):
        assert time.monotonic() < deadline, "nbdkit is still there"
        time.sleep(0.05)
    assert not place.exists()


def _runs(process: Path) -> bool:
    """A folder of /proc, which may vanish between two looks."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_closing_does_not_wait_for_clients(repo: Repository, found: Manifest, tmp_path: Path) -> None:
    with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
        handle = connected(running.uris["system"])
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    with pytest.raises(nbd.Error):
        handle.pread(1, 0)


def test_a_lease_is_kept_alive_for_as_long_as_it_is_held(
    repo: Repository, found: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "DEAD_SECONDS", 1.2)
    with lease.reading_snapshot(repo, "serve", found) as held:
        assert held
        with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
            time.sleep(2)
            [living] = lease.living(repo)
            assert living.verb == "serve"
            assert {root.disk for root in living.roots} == DISKS.keys()
            assert connected(running.uris["system"]).pread(BLOCK, 0) == SYSTEM[:BLOCK]
    assert not lease.names(repo)


def test_a_socket_that_exists_is_left_alone(repo: Repository, found: Manifest, tmp_path: Path) -> None:
    place = tmp_path / "nbd"
    place.write_text("somebody's")
    with pytest.raises(errors.TargetRefused, match="exists"):
        Serving(source_of(repo, found), ["system"], Unix(place))
    assert place.read_text() == "somebody's"


def test_a_socket_that_somebody_makes_meanwhile_is_left_alone(
    repo: Repository, found: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "nbd"
    monkeypatch.setattr(Unix, "prepare", lambda _: place.write_text("somebody's"))
    with pytest.raises(errors.TargetRefused, match="in use"):
        Serving(source_of(repo, found), ["system"], Unix(place))
    assert place.read_text() == "somebody's"


def test_what_clients_say_is_not_taken_for_ours() -> None:
    assert offer.heard("headstart: ready") is None
    assert offer.heard("headstart: warning [") is None
    assert offer.heard("nbdkit: headstart: ready") is None
    assert offer.heard(offer.say(offer.WARNING, "a\nb").decode()) == (offer.WARNING, "a\nb")


def test_it_ends_in_good_order(
    repo: Repository,
    found: Manifest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "_END_SECONDS", 20.0)
    caplog.set_level(logging.INFO)
    with Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd")) as running:
        run("nbdcopy", running.uris["system"], "null:")
        time.sleep(0.1)
    assert running._process.returncode == 0
    assert not caplog.messages


def test_a_repository_that_cannot_be_opened_there_is_told_as_here(
    repo: Repository, found: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(errors.NoRepository):
        Serving(Source(repo, str(tmp_path / "nothing"), found), ["system"], Unix(tmp_path / "nbd"))
    assert not (tmp_path / "nbd").exists()
    other = tmp_path / "other"
    stores.new_repository(LocalStore(other)).close()
    with pytest.raises(errors.WrongPassword):
        Serving(Source(repo, str(other), found), ["system"], Unix(tmp_path / "nbd"))


def fake_nbdkit(folder: Path, script: str) -> None:
    program = folder / "nbdkit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (None, "install nbdkit and nbdkit-plugin-python"),
        ("echo no such plugin >&2; exit 1", "install nbdkit and nbdkit-plugin-python"),
        ("echo python_version=3.4.1", "for Python 3.4, and Headstart runs with Python 3"),
        ("echo name=python", "an unknown version"),
    ],
)
def test_without_an_nbdkit_of_use_it_is_said_what_to_install(
    repo: Repository, found: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, told: str
) -> None:
    if script is not None:
        fake_nbdkit(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.Unsupported, match=told):
        Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd"))


def test_nbdkit_that_cannot_serve_says_why(
    repo: Repository, found: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    fake_nbdkit(
        tmp_path, f"[ \"$1\" = python ] && echo python_version={version}.1 || {{ echo 'out of luck' >&2; exit 1; }}"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.TargetRefused, match="out of luck"):
        Serving(source_of(repo, found), ["system"], Unix(tmp_path / "nbd"))


def test_one_filter_for_writes_holds_one_disk(repo: Repository, found: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one disk"):
        Serving(source_of(repo, found), list(DISKS), Unix(tmp_path / "nbd"), scratch=tmp_path)
