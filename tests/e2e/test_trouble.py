"""What can be wrong with the VM, the scratch space, the store and the command: a clear error, the right exit status,
no traceback, nothing lost, and a guest that never notices."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup import losses
from headstart.backup.complete import Options
from headstart.repository import verify
from headstart.units import KIB, MIB
from tests.e2e import bare
from tests.e2e.rig import NAME, Rig, copy_point
from tests.kit import compare, places, stores
from tests.kit.cli import Cli, Outcome
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

START = 2 * MIB


vm = bare.vm


@pytest.fixture
def rig(tmp_path: Path, vm: Vm) -> Rig:
    made = Rig(tmp_path / "rig", vm, qga=False)
    made.backup()
    write(vm, 1)
    return made


@pytest.fixture
def cli(rig: Rig) -> Cli:
    return Cli(rig.folder)


def write(vm: Vm, pattern: int) -> None:
    for disk in ("one", "two"):
        bare.write(vm, disk, START, 512 * KIB, pattern)


def failed(outcome: Outcome, *words: str) -> None:
    """An error for people and for programs, and no traceback."""
    assert "Traceback" not in outcome.stderr
    message = outcome.error["error"]["message"]
    assert all(re.search(word, message) for word in words), message
    assert not outcome.stdout


# -- the monitor


@pytest.mark.parametrize("kind", ["missing", "deaf", "busy", "strange"])
def test_a_wrong_socket(vm: Vm, rig: Rig, cli: Cli, tmp_path: Path, kind: str) -> None:
    monitor = rig.folder / "qmp"
    with contextlib.ExitStack() as stack:
        if kind == "busy":
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.connect(str(vm.qmp_socket))
        else:
            monitor.unlink()
        if kind in ("deaf", "strange"):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(monitor))
        if kind == "strange":
            server.listen()
            client = cli.start("precopy", NAME)
            connection = server.accept()[0]
            connection.sendall(b"220 mail.example ESMTP\r\n")
            stdout, stderr = client.communicate(timeout=30)
            outcome = Outcome(client.returncode, stdout, stderr)
        else:
            outcome = cli.run("precopy", NAME, expect=None)
    assert outcome.status == 20
    failed(outcome, {"missing": "no QMP socket", "deaf": "Nobody listens", "busy": "somebody else"}.get(kind, "QMP"))
    monitor.unlink(missing_ok=True)
    rig.follow(vm)
    rig.exact_backup()


@pytest.mark.parametrize("lost", ["socket", "scratch"])
def test_our_nbd_server_is_known_without_its_socket(vm: Vm, rig: Rig, tmp_path: Path, lost: str) -> None:
    """A dead run left it in QEMU, and then somebody tidied up, or named another scratch directory."""
    path = rig.scratch / f"{NAME}.nbd" if lost == "socket" else tmp_path / "elsewhere"
    vm.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(path)}})
    if lost == "socket":
        path.unlink()
    else:
        name = f"hs-{rig.installation}-live0"
        vm.qmp("block-export-add", type="nbd", id=name, node_name="one", name=name)
    exact = rig.exact_backup()
    assert any("NBD server of a dead run" in note for note in exact.report.notes)


# -- the VM goes away


def test_the_vm_goes_while_it_is_copied(vm: Vm, rig: Rig) -> None:
    with pytest.raises(errors.Unreachable):
        rig.precopy(lambda what, done, total: vm.kill())
    vm.start()
    assert rig.exact_backup().disk("one").compared


@pytest.mark.parametrize("step", ["after-thaw", "before-release"])
def test_the_vm_goes_while_the_point_stands(vm: Vm, rig: Rig, cli: Cli, step: str) -> None:
    before = rig.snapshots()
    outcome = cli.run("backup", NAME, "--hook", f"{step}=kill -9 {vm.pid}", expect=None)
    assert outcome.status in (20, 22)
    failed(outcome)
    assert rig.snapshots() == before
    vm.kill()
    vm.start()
    assert rig.exact_backup().disk("one").compared


def test_the_vm_goes_after_the_window(vm: Vm, rig: Rig) -> None:
    """What is left to do needs no VM."""
    faulty = stores.FaultyStore(rig.store)
    rig.store = faulty

    def kill(create: Callable[[], object]) -> object:
        vm.kill()
        return create()

    faulty.plan("create", kill, "snapshots/")
    made = rig.backup()
    assert rig.snapshots()[-1] == made.snapshot
    assert any("could not be removed yet" in note for note in made.notes)
    vm.start()
    assert rig.exact_backup().disk("one").compared


def test_the_vm_is_reset_while_the_point_stands(vm: Vm, rig: Rig) -> None:
    rig.precopy()
    write(vm, 2)

    def reset(_: Mapping[str, str]) -> None:
        vm.qmp("system_reset")
        vm.wait_event("RESET")
        write(vm, 3)

    assert rig.exact_backup(after_thaw=reset).disk("one").residue_bytes == 512 * KIB
    assert rig.exact_backup().disk("one").changed_bytes == 512 * KIB


def test_a_disk_is_unplugged_while_the_point_stands(vm: Vm, rig: Rig) -> None:
    before = rig.snapshots()

    def unplug(_: Mapping[str, str]) -> None:
        vm.qmp("device_del", id="dev-two")
        vm.wait_event("DEVICE_DELETED", device="dev-two")

    with pytest.raises(errors.HeadstartError, match="dev-two"):
        rig.backup(after_thaw=unplug)
    assert rig.snapshots() == before
    vm.qmp("blockdev-del", node_name="two")  # nothing of ours holds on to it
    exact = rig.exact_backup()
    assert list(exact.restored) == ["dev-one"]


# -- scratch space


@pytest.fixture
def small_scratch(rig: Rig) -> Iterator[Path]:
    """The scratch directory on a file system of its own that a test can fill."""
    with places.small(rig.scratch, 320 * MIB):
        yield rig.scratch


def test_no_room_in_the_scratch_directory(vm: Vm, rig: Rig, cli: Cli, small_scratch: Path) -> None:
    filler = places.fill(small_scratch)
    outcome = cli.run("backup", NAME, expect=23)
    failed(outcome, "Make room", str(small_scratch))
    filler.unlink()
    rig.exact_backup()


def test_the_scratch_space_fills_up_under_the_guests_writes(vm: Vm, rig: Rig, small_scratch: Path) -> None:
    """The point in time breaks and not the guest."""
    rig.precopy()
    before = rig.snapshots()

    def overwrite(_: Mapping[str, str]) -> None:
        places.fill(small_scratch)
        write(vm, 9)

    with pytest.raises(errors.PointLost):
        rig.backup(after_thaw=overwrite)
    assert vm.qmp("query-status")["status"] == "prelaunch"
    assert rig.snapshots() == before
    (small_scratch / "filler").unlink()
    rig.exact_backup()


def test_the_spool_fills_up(vm: Vm, rig: Rig, small_scratch: Path) -> None:
    def take_the_rest(_: Mapping[str, str]) -> None:
        places.fill(small_scratch)

    with pytest.raises(errors.NoSpace, match="Make room"):
        rig.backup(Options(plain=True), before_release=take_the_rest)
    assert not list(small_scratch.glob("spool/*"))
    (small_scratch / "filler").unlink()
    rig.exact_backup()


def test_the_state_cannot_be_written(rig: Rig, cli: Cli) -> None:
    """From the moment that the point in time stands."""
    before = rig.snapshots()
    with places.small(rig.state, 2 * MIB):
        rig.precopy()
        hook = f"after-thaw=cat /dev/zero > {rig.state}/filler; true"
        outcome = cli.run("backup", NAME, "--plain", "--hook", hook, expect=23)
        failed(outcome, str(rig.state), "full")
        assert not [found for found in rig.leftovers() if not found.startswith("bitmaps")]
        assert rig.snapshots() == before
        (rig.state / "filler").unlink()
        rig.exact_backup()


# -- the store


def test_a_store_that_fails_after_the_window(vm: Vm, rig: Rig, tmp_path: Path) -> None:
    """The next run, whatever it is, publishes what waits in the spool: the point in time of then."""
    faulty = stores.FaultyStore(rig.store)
    rig.store = faulty
    seen: dict[str, Path] = {}

    def look(facts: Mapping[str, str]) -> None:
        seen.update(copy_point(facts, tmp_path / "seen"))
        faulty.plan("create", stores.fail(errors.StoreFailed("The store is full.")), "packs/")

    with pytest.raises(errors.StoreFailed):
        rig.backup(Options(plain=True, audit=None), before_release=look)
    assert [name for name in rig.leftovers() if not name.startswith("bitmaps")] == [str(rig.scratch / "spool" / NAME)]
    write(vm, 2)
    (first,) = rig.snapshots()
    done = rig.precopy()
    assert any("unfinished backup" in note for note in done.notes)
    first_again, second = rig.snapshots()
    assert first == first_again
    restored = rig.restore(second)
    for name, copy in (("dev-one", seen["DEV_ONE"]), ("dev-two", seen["DEV_TWO"])):
        compare.assert_identical(restored[name], copy)
    rig.exact_backup()


def test_the_spool_of_an_unfinished_backup_is_lost(vm: Vm, rig: Rig) -> None:
    """That backup is given up; what it had read from the point in time is read again."""
    rig.precopy()
    write(vm, 2)
    faulty = stores.FaultyStore(rig.store)
    rig.store = faulty

    def break_store(_: Mapping[str, str]) -> None:
        faulty.plan("create", stores.fail(errors.StoreFailed("The store is full.")), "packs/")

    with pytest.raises(errors.StoreFailed):
        rig.backup(Options(plain=True), before_release=break_store)
    shutil.rmtree(rig.scratch)
    write(vm, 3)
    exact = rig.exact_backup()
    assert any("given up" in note for note in exact.report.notes)
    assert not exact.disk("one").compared


def test_a_round_whose_pack_is_lost(vm: Vm, rig: Rig) -> None:
    """Found by the next round, and copied again: also the one before the point in time."""
    faulty = stores.FaultyStore(rig.store)
    rig.store = faulty
    faulty.plan("create", stores.forget, "packs/")
    assert rig.precopy().copied_bytes >= 2 * 512 * KIB
    exact = rig.exact_backup()
    assert exact.disk("one").precopied_bytes == 512 * KIB
    assert any("lost 1 packs" in note for note in exact.report.notes)


@pytest.mark.parametrize("lost", ["draft", "residue", "tree"])
def test_nothing_is_published_of_which_the_store_has_lost_a_part(vm: Vm, rig: Rig, lost: str) -> None:
    """Neither by this run nor by the next one, which may be another process: it copies again what is missing."""
    faulty = stores.FaultyStore(rig.store)
    rig.store = faulty
    faulty.plan("create", stores.forget, "packs/", number=2 if lost == "tree" else 1)
    before = rig.snapshots()
    with pytest.raises(losses.Lost, match="nothing was published"):
        if lost == "draft":
            rig.precopy()
        rig.backup(Options(plain=lost != "draft", settle=False))
    assert faulty.count("create", "packs/") >= (2 if lost == "tree" else 1)
    assert rig.snapshots() == before
    write(vm, 3)
    exact = rig.exact_backup()
    assert not exact.disk("one").compared
    with rig.repo() as repo:
        findings = verify.verify_all(repo, lambda done, total: None).findings
    # An index object may still list the lost pack: it is missing, and nothing needs it.
    assert not [finding for finding in findings if finding.touched]


def test_the_repository_vanishes(vm: Vm, rig: Rig, cli: Cli) -> None:
    """Before a run, and while its point in time stands."""
    here, away = cli.repository, cli.repository.with_name("away")
    here.rename(away)
    failed(cli.run("backup", NAME, expect=10), str(here))
    away.rename(here)
    hook = f"before-release=mv {here} {away}"
    failed(cli.run("backup", NAME, "--plain", "--hook", hook, expect=25), str(here))
    assert not here.exists()
    away.rename(here)
    (waiting,) = cli.run("status", NAME).json["vms"]
    assert waiting["spooled"]
    notes = cli.run("precopy", NAME).json["notes"]
    assert any("unfinished backup" in note for note in notes)
    assert len(rig.snapshots()) == 2
    rig.exact_backup()


def test_a_damaged_object_is_named(rig: Rig, cli: Cli, tmp_path: Path) -> None:
    damaged = max((cli.repository / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 3)
        piece = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([piece[0] ^ 1]))
    (snapshot,) = rig.snapshots()
    outcome = cli.run("restore", snapshot, tmp_path / "restored", expect=13)
    failed(outcome, damaged.name, "dev-")
    assert cli.run("verify", expect=13).status == 13
    # The guest has not written since: the running VM has what is missing.
    healed = cli.run("repair").json
    assert (healed["lost"], [each["source"] for each in healed["healed"]]) == ([], [f"VM {NAME}"])
    assert cli.run("verify").json["findings"] == []
    assert cli.run("restore", snapshot, tmp_path / "again").status == 0
    rig.exact_backup()


# -- hooks, and each other


def test_hooks_that_fail(vm: Vm, rig: Rig, cli: Cli) -> None:
    before = rig.snapshots()
    outcome = cli.run("backup", NAME, "--hook", "before-freeze=echo not now; exit 5", expect=26)
    failed(outcome, "before-freeze", "status 5", "not now")
    assert rig.snapshots() == before
    for event in ("after-thaw", "before-release", "after-publish"):
        outcome = cli.run("backup", NAME, "--hook", f"{event}=exit 6", expect=3)
        assert outcome.json["snapshot"] == rig.snapshots()[-1]
        assert event in outcome.error["error"]["message"] and "Traceback" not in outcome.stderr
    rig.exact_backup()


def test_two_runs_on_one_vm(rig: Rig, cli: Cli) -> None:
    outcomes: list[Outcome] = []

    def meanwhile(_: Mapping[str, str]) -> None:
        outcomes.extend(cli.run(verb, NAME, expect=11) for verb in ("precopy", "backup"))

    rig.exact_backup(before_freeze=meanwhile)
    for outcome in outcomes:
        failed(outcome, f"process {os.getpid()}")


@pytest.mark.parametrize("name", ["INT", "TERM"])
@pytest.mark.parametrize("step", ["before-freeze", "after-thaw", "before-release"])
def test_the_user_ends_a_run(vm: Vm, rig: Rig, cli: Cli, step: str, name: str) -> None:
    """It takes everything out of the VM before it goes, also with a hook at work."""
    rig.precopy()
    outcome = cli.run("backup", NAME, "--hook", f"{step}=kill -{name} $PPID; sleep 20", expect=None, timeout=15)
    assert outcome.status == 130
    failed(outcome)
    assert not [found for found in rig.leftovers() if not found.startswith("bitmaps")]
    assert rig.exact_backup().disk("one").precopied_bytes >= 512 * KIB
