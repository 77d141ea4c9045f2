"""A snapshot is started apart from everything, and what it shows is noted with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart import repository
from headstart.backup.complete import Options
from headstart.repository import Repository, layout, lease, proof, snapshot
from headstart.restore.booting import runplace
from headstart.restore.rehearsing import rehearsal
from headstart.restore.rehearsing.rehearsal import Order, Shown
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.serving import Source
from headstart.store.local import LocalStore
from tests.e2e.rig import NAME, Rig
from tests.kit import debian, disks, stores
from tests.kit.debian import DebianVm
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

SIZE = 8 * disks.MIB
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """With a snapshot of a VM that is off by now."""
    folder = tmp_path_factory.mktemp("rehearsal")
    disk = disks.Disk(disks.make_filled(folder / "system.qcow2", SIZE, "qcow2"), "qcow2", "system")
    with Vm([disk], extra=("-device", "VGA")) as vm:
        made = Rig(folder / "rig", vm)
        made.backup(Options(audit=0))
        vm.quit()
        yield made


def rehearsed(rig: Rig, repo: Repository, order: Order) -> Shown:
    manifest = snapshot.resolve(repo, f"{NAME}@latest")
    with lease.reading_snapshot(repo, "rehearse", manifest):
        return rehearsal.rehearse(Source(repo, str(rig.folder / "repository"), manifest), order, rig.scratch, time.time)


def test_the_latest_snapshot_of_a_vm_lives(rig: Rig) -> None:
    """Its agent answers; what was seen is noted with the snapshot, and nothing is left behind."""
    shown = rig.cli.run("rehearse", NAME, "--check", "file:/bin/sh", "--screenshot", rig.folder / "screen.png").json
    assert shown["checks"] == [{"name": "file:/bin/sh", "passed": True}]
    assert shown["passed"] and shown["awaited"] == "agent" and shown["reason"] == ""
    assert (rig.folder / "screen.png").read_bytes().startswith(PNG)
    [told] = rig.cli.run("snapshots").json["snapshots"]
    assert [each["passed"] for each in told["proofs"]] == [True]
    with rig.repo() as repo:
        last = proof.latest(repo, told["id"])
    assert last is not None and last[1].screenshot.startswith(PNG)
    again = rig.cli.run("proof", NAME, "--screenshot", rig.folder / "again.png").json
    assert again["passed"] and again["answers"] == {"file:/bin/sh": "it is there"}
    assert (rig.folder / "again.png").read_bytes() == (rig.folder / "screen.png").read_bytes()
    assert list((rig.scratch / "rehearsals").iterdir()) == []


def test_what_gives_no_sign_of_life_has_not_passed(rig: Rig) -> None:
    told = rig.cli.run("rehearse", NAME, "--pattern", "never said", "--timeout", "6", expect=28)
    assert "The pattern did not come on the console within 6 s" in told.error["error"]["message"]
    [listed] = rig.cli.run("snapshots").json["snapshots"]
    assert not listed["proofs"][-1]["passed"]


def test_a_vm_that_ends_has_not_passed(rig: Rig) -> None:
    with rig.repo() as repo, ThreadPoolExecutor(1) as threads:
        killed = threads.submit(_kill_the_next)
        shown = rehearsed(rig, repo, Order(Awaited.PATTERN, "never said"))
        killed.result()
    assert not shown.proof.passed
    assert shown.proof.reason.startswith("QEMU ended before there was a sign of life.")


def _kill_the_next() -> None:
    begun, deadline = time.time(), time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            path = runplace.folder_of(f"rehearsal-{NAME}", os.environ) / "pid"
            if path.stat().st_mtime > begun:
                pid = int(path.read_text())
                time.sleep(2)  # until its monitor has answered
                os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.05)
    raise AssertionError("no VM was started")


def test_a_damaged_snapshot_has_not_passed(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "repository"
    shutil.copytree(rig.folder / "repository", place)
    for pack in (place / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        if data[layout.HEADER_LENGTH + layout.OBJECT_ID_LENGTH] == layout.ChunkClass.CONTENT:
            data[layout.PACK_START + 50] ^= 1
            pack.write_bytes(data)
    with repository.open(LocalStore(place), lambda: stores.PASSWORD) as repo:
        manifest = snapshot.resolve(repo, f"{NAME}@latest")
        monkeypatch.setattr(rehearsal, "STANDSTILL_SECONDS", 4.0)
        shown = rehearsal.rehearse(Source(repo, str(place), manifest), Order(), tmp_path, time.time)
    assert not shown.proof.passed
    assert "damaged" in shown.proof.reason


def test_orders_that_cannot_be(rig: Rig) -> None:
    for words, said in (
        (("--check", "service:"), "is no check"),
        (("--check", "reboot"), "is no check"),
        (("--pattern", "("), "is no regular expression"),
        (("--pattern", ""), "is also in an empty line"),
        (("--wait-for", "agent", "--pattern", "x"), "leave --wait-for out"),
        (("--wait-for", "pattern"), "--pattern REGEX"),
    ):
        assert said in rig.cli.run("rehearse", NAME, *words, expect=2).error["error"]["message"]
    assert "neither a snapshot nor a VM" in rig.cli.run("rehearse", "nobody", expect=15).error["error"]["message"]


@pytest.mark.skipif(bool(debian.missing()), reason=debian.missing())
def test_a_debian_is_asked_what_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DebianVm(tmp_path) as vm:
        vm.wait_ready()
        rig = Rig(tmp_path / "rig", vm)
        rig.backup(Options(audit=0))
        vm.quit()
    true = ("filesystems", "service:ssh", "port:22", "file:/etc/hostname")
    false = ("service:nginx", "port:80", "file:/etc/none")
    monkeypatch.setattr(rehearsal, "CHECK_SECONDS", 20.0)
    with rig.repo() as repo:
        shown = rehearsed(rig, repo, Order(Awaited.CONSOLE, checks=(*true, *false)))
    assert "guest login:" in shown.evidence.console
    assert [check.name for check in shown.proof.checks if check.passed] == list(true), shown
    assert [check.name for check in shown.proof.checks if not check.passed] == list(false)
    assert shown.evidence.answers["service:ssh"] == "active"
    assert not shown.proof.passed
