"""The table of releases, held against the QEMU that stands first on PATH, whichever that is.

``make test-qemu`` runs this with other releases than the installed one.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbd
import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.host.doctor import machine
from headstart.host.doctor.finding import Finding, Level
from headstart.hypervisor.checkup import Checkup
from headstart.hypervisor.contract import PointRequest
from headstart.hypervisor.inventory import Inventory
from headstart.hypervisor.qemu import checkup, versions
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.hypervisor.qemu.versions import Kind, Release, Standing, Trait
from headstart.hypervisor.recording import NOTHING
from headstart.state.values import Vm
from headstart.units import BLOCK_SIZE
from tests.hypervisor.qemu import bare
from tests.hypervisor.qemu.bare import Bare
from tests.kit import references
from tests.wire import scripted

#: What stands before 7.2 in a distribution that is still around.
OLD = {"qemu": {"micro": 0, "minor": 2, "major": 5}, "package": "Debian 1:5.2+dfsg-11"}


def test_the_table_names_tests_that_exist() -> None:
    for row in versions.TABLE:
        assert references.exists(row.shown), row.shown
        assert row.since in versions.RUN or row.since == versions.OLDEST, row
        assert row.before is None or row.before in versions.RUN or row.source, row
    assert tuple(sorted(versions.RUN)) == versions.RUN


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ((0, 0, 0), Standing.UNTOLD),
        ((7, 1, 50), Standing.TOO_OLD),
        ((7, 2, 0), Standing.RUN),
        ((7, 2, 99), Standing.RUN),
        ((8, 2, 0), Standing.BETWEEN),
        ((10, 0, 2), Standing.RUN),
        ((11, 2, 0), Standing.NEWER),
        ((99, 0, 0), Standing.NEWER),
    ],
)
def test_how_well_a_release_is_known(release: Release, expected: Standing) -> None:
    assert versions.standing(release) is expected


def test_faults_are_of_the_releases_and_disks_that_have_them() -> None:
    disks = {"plain": set[Trait](), "thread": {Trait.IOTHREAD}, "both": {Trait.IOTHREAD, Trait.THROTTLE}}
    found = {row.kind: concerned for row, concerned in versions.faults((7, 2, 22), disks)}
    assert found == {Kind.FAULT: ("thread", "both"), Kind.REFUSED: ("both",)}
    assert not list(versions.faults((7, 2, 22), {"plain": set(), "slow": {Trait.THROTTLE}}))
    assert not list(versions.faults((10, 0, 13), disks))


# -- what the doctor makes of it


def findings(release: Release, *traits: Trait) -> list[Finding]:
    vm = Vm("web", Path("/run/qmp"), "", None)
    faults = tuple(versions.faults(release, {"data": set(traits)}))
    return list(machine.monitor(vm, Checkup(release, "running", Inventory(()), faults=faults)))


@pytest.mark.parametrize(
    ("release", "level", "said"),
    [
        ((6, 2, 0), Level.PROBLEM, "QEMU is 6.2.0: Headstart was never run with one older than 7.2"),
        ((8, 2, 2), Level.NOTE, "QEMU is 8.2.2: not tested itself"),
        ((99, 1, 0), Level.NOTE, f"not tested, the newest one tested is {versions.told(versions.RUN[-1])}"),
    ],
)
def test_the_doctor_tells_an_unknown_release(release: Release, level: Level, said: str) -> None:
    found = findings(release)
    assert [each.level for each in found] == [level, Level.OK]
    assert said in found[0].what


def test_the_doctor_warns_of_a_known_fault() -> None:
    [warning, _] = findings((7, 2, 22), Trait.IOTHREAD)
    assert warning.level is Level.WARNING
    assert warning.what == "QEMU 7.2.22 aborts when an NBD client leaves a disk in an iothread: data"
    [_, problem, _] = findings((7, 2, 22), Trait.IOTHREAD, Trait.THROTTLE)
    assert problem.level is Level.PROBLEM
    assert problem.advice == "Update QEMU, or start the VM without its iothread or throttle."
    assert [each.level for each in findings((7, 2, 22))] == [Level.OK]
    assert [each.level for each in findings((11, 1, 2), Trait.IOTHREAD)] == [Level.OK]


def test_an_old_release_is_refused(tmp_path: Path) -> None:
    """Before anything is done to it: a monitor that says it is one, and knows no other command."""
    asked: list[str] = []

    def speak(client: socket.socket) -> None:
        client.sendall(json.dumps({"QMP": {"version": OLD, "capabilities": []}}).encode() + b"\n")
        while data := client.recv(65536):
            request = json.loads(data)
            asked.append(request["execute"])
            named = {"id": request["id"]} if "id" in request else {}
            client.sendall(
                json.dumps({"return": OLD if asked[-1] == "query-version" else {}, **named}).encode() + b"\n"
            )

    with (
        scripted.listening(speak) as path,
        pytest.raises(errors.Unsupported, match=r"QEMU is 5\.2\.0, and Headstart needs 7\.2 or newer"),
    ):
        QemuMachine(path, installation="0" * 8, scratch=tmp_path, label="vm")
    assert asked == ["qmp_capabilities", "query-version"]


# -- a real QEMU


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Bare]:
    with bare.running(*bare.two(tmp_path)) as vm:
        yield vm


@pytest.fixture
def release(running: Bare) -> Release:
    found = running.qmp("query-version")["qemu"]
    return found["major"], found["minor"], found["micro"]


@pytest.mark.vm
def test_the_release_that_runs_here_is_in_the_table(release: Release) -> None:
    assert versions.standing(release) is Standing.RUN, f"{release} is to be added to RUN when all of this passes"


@pytest.mark.vm
def test_a_look_tells_which_disks_a_fault_is_about(tmp_path: Path, release: Release) -> None:
    folder = tmp_path / "threaded"
    folder.mkdir()
    with bare.running(*bare.two(folder, iothread=True)) as vm:
        seen = checkup.look(vm.monitor, NOTHING, (), BLOCK_SIZE)
    assert seen.release == release
    expected = [("dev-one",)] if release < versions.UNLOCKED else []
    assert [concerned for _, concerned in seen.faults] == expected


@pytest.mark.vm
def test_what_every_release_has(running: Bare) -> None:
    schema = Schema(running.qmp("query-qmp-schema"))
    assert {"on-cbw-error", "cbw-timeout", "bitmap"} <= schema.options("blockdev-add", "copy-before-write")
    assert "snapshot-access" in schema.cases("blockdev-add")
    assert {"discard", "read-only"} <= schema.options("blockdev-add")


@pytest.mark.vm
def test_what_some_releases_have(running: Bare, release: Release) -> None:
    [row] = [row for row in versions.TABLE if row.kind is Kind.UNUSED]
    options = Schema(running.qmp("query-qmp-schema")).options("blockdev-backup")
    assert ("on-cbw-error" in options) is row.holds(release)


@pytest.mark.vm
def test_an_nbd_client_leaves_a_disk_in_an_iothread(tmp_path: Path) -> None:
    """It is QEMU's own process that is lost here, and no other."""
    with bare.running(*bare.two(tmp_path, iothread=True)) as vm:
        version = vm.qmp("query-version")["qemu"]
        place = vm.folder / "nbd"
        vm.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(place)}})
        vm.qmp("block-export-add", type="nbd", id="theirs", node_name="one", name="one")
        aborted = not _visit(place, vm)
    release = version["major"], version["minor"], version["micro"]
    assert aborted is any(row.kind is Kind.FAULT for row, _ in versions.faults(release, {"one": {Trait.IOTHREAD}}))


def _visit(place: Path, vm: Bare) -> bool:
    """Whether QEMU stands three clients that come, read and go."""
    for _ in range(3):
        try:
            client = nbd.NBD()
            client.connect_uri(f"nbd+unix:///one?socket={place}")
            client.pread(4096, 0)
            client.shutdown()
        except nbd.Error:
            vm.process.wait(10)
        time.sleep(0.1)
        if vm.process.poll() is not None:
            return False
    return True


@pytest.mark.vm
def test_a_throttled_disk_in_an_iothread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused where, and only where, QEMU is lost without that."""
    image = bare.image(tmp_path / "one.qcow2", "4M")
    words = ["-object", "throttle-group,id=group", "-object", "iothread,id=thread"]
    words += ["-device", "virtio-scsi-pci,id=scsi,iothread=thread", *bare.disk("image", image, "qcow2")[:4]]
    words += ["-blockdev", "driver=throttle,node-name=one,throttle-group=group,file=image"]
    words += ["-device", "scsi-hd,bus=scsi.0,drive=one,id=dev-one"]
    point = PointRequest((), (), {"dev-one": Blocks([0])}, freeze=False)
    with bare.running(*words) as vm, vm.machine() as machine:
        refused = False
        try:
            with machine.take(point) as taken:
                taken.release()
        except errors.Unsupported as error:
            refused = "a throttle node in an iothread: dev-one. Update QEMU" in str(error)
        assert vm.status == "running" and not vm.leftovers()
    monkeypatch.setattr(versions, "require_sound", lambda *_: None)
    # It takes a request under way at the wrong moment, which is there nearly always.
    assert refused is any(_is_lost(words, point) for _ in range(5))


def _is_lost(words: Sequence[str], point: PointRequest) -> bool:
    with bare.running(*words) as vm, vm.machine() as machine:
        try:
            with machine.take(point) as taken:
                taken.release()
        except errors.Unreachable:
            return vm.process.wait(10) == -signal.SIGABRT
        return False


class Schema:
    """What QEMU says of its own commands (``query-qmp-schema``)."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._by_name: Mapping[str, dict[str, Any]] = {each["name"]: each for each in entries}

    def cases(self, command: str) -> set[str]:
        return {each["case"] for each in self._arguments(command).get("variants", ())}

    def options(self, command: str, case: str = "") -> set[str]:
        found = self._arguments(command)
        if case:
            found = self._by_name[next(each["type"] for each in found["variants"] if each["case"] == case)]
        return {each["name"] for each in found["members"]}

    def _arguments(self, command: str) -> dict[str, Any]:
        return self._by_name[self._by_name[command]["arg-type"]]
