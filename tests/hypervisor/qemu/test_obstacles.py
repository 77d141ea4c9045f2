"""Somebody else works on the VM: wait, say what it is, and touch nothing of theirs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.hypervisor.contract import PointRequest, Protects, Start
from headstart.hypervisor.qemu import obstacles
from headstart.hypervisor.qemu.push import PushPoint
from headstart.wire import nbd
from tests.hypervisor.qemu import bare, points

pytestmark = pytest.mark.vm


@pytest.fixture(params=["pull", "push"])
def vm(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bare.Bare]:
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 0.2)
    with bare.running(*bare.two(tmp_path, iothread=request.param == "push")) as running:
        yield running


@contextlib.contextmanager
def served(vm: bare.Bare) -> Iterator[nbd.Export]:
    """Another tool's NBD server, with an export that must survive us."""
    theirs = nbd.Export(vm.folder / "theirs", "disk")
    vm.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(theirs.socket)}})
    vm.qmp("blockdev-add", driver="null-co", node_name="plain", size=1 << 20)
    vm.qmp("block-export-add", type="nbd", id="theirs", node_name="plain", name="disk")
    yield theirs
    with nbd.Client(theirs) as client:
        assert client.size == 1 << 20
    vm.qmp("nbd-server-stop")


def test_another_nbd_server_is_left_alone(vm: bare.Bare) -> None:
    with served(vm), vm.machine() as machine:
        machine.transact([Start("dev-one", "a"), Start("dev-two", "a")])
        for attempt in (
            lambda: machine.changed({"dev-one": ["a"]}),
            lambda: machine.live(["dev-two"]).__enter__(),
            lambda: machine.take(points.request()),
        ):
            with pytest.raises(errors.Busy, match="Another tool runs the NBD server"):
                attempt()
        assert machine.recover() == ()
        assert vm.leftovers() == []
    with vm.machine() as machine, machine.take(points.request()) as point:
        point.release()


def test_a_socket_file_of_a_dead_qemu_does_not_make_a_server_ours(vm: bare.Bare) -> None:
    (vm.scratch / "vm.nbd").touch()
    with served(vm), vm.machine() as machine:
        assert machine.recover() == ()


def test_a_foreign_job_is_told_and_waited_for(vm: bare.Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    vm.write("dev-two", 0, 4 << 20, 1)
    bare.image(vm.folder / "copy", "4M", "raw")
    with vm.machine() as machine:
        vm.qmp(
            "drive-mirror",
            device="two",
            job_id="theirs",
            target=str(vm.folder / "mirror"),
            sync="full",
            format="raw",
        )
        with pytest.raises(errors.Busy, match="a mirror job 'theirs'"):
            machine.take(points.request())
        assert vm.leftovers() == []
        monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 20)
        timer = threading.Timer(0.3, lambda: vm.qmp("job-cancel", id="theirs"))
        timer.start()
        with machine.take(points.request()) as point:
            assert points.content(point.reader("dev-two"), 0, 4 << 20) == b"\1" * (4 << 20)
        timer.join()


def test_a_foreign_filter_is_told(vm: bare.Bare) -> None:
    image = bare.image(vm.folder / "theirs", str(points.SIZES["dev-two"]), "raw")
    vm.qmp("blockdev-add", driver="file", node_name="target", filename=str(image))
    vm.qmp("blockdev-add", driver="copy-before-write", node_name="theirs", file="two", target="target")
    device = next(path for path in vm.roots() if "dev-two" in path)
    vm.qmp("qom-set", path=device, property="drive", value="theirs")
    with vm.machine() as machine:
        assert machine.inventory().disk("dev-two") is not None
        with pytest.raises(errors.Busy, match=r"'copy-before-write' \(theirs\) stands on disk dev-two"):
            machine.take(points.request())
    assert vm.roots()[device] == "theirs"


def test_a_throttle_is_no_obstacle(tmp_path: Path) -> None:
    path = bare.image(tmp_path / "one", "8M")
    throttled = ["-object", "throttle-group,id=group,x-iops-total=100000"]
    throttled += ["-blockdev", f"driver=qcow2,node-name=one,file.driver=file,file.filename={path}"]
    throttled += ["-blockdev", "driver=throttle,node-name=slow,file=one,throttle-group=group"]
    with (
        bare.running(*throttled, "-device", "virtio-blk-pci,drive=slow,id=dev-one") as vm,
        vm.machine() as machine,
    ):
        vm.write("dev-one", 0, 1 << 20, 1)
        machine.transact([Start("dev-one", "a")])
        before = vm.roots()
        with machine.take(points.request()) as point:
            vm.write("dev-one", 0, 1 << 20, 2)
            assert points.content(point.reader("dev-one"), 0, 1 << 20) == b"\1" * (1 << 20)
            assert point.pause_seconds == 0
            point.release()
        assert vm.roots() == before
        (found,) = machine.bitmaps()["dev-one"]
        assert found.believed
        assert machine.changed({"dev-one": ["a"]})["dev-one"].to_array().tolist() == list(range(16))


def test_nothing_is_exported_during_a_migration(vm: bare.Bare) -> None:
    with vm.machine() as machine:
        machine.transact([Start("dev-one", "a")])
        vm.qmp("migrate-set-parameters", max_bandwidth=4096)
        vm.qmp("migrate", uri="exec:cat > /dev/null")
        deadline = time.monotonic() + 5
        while vm.qmp("query-migrate")["status"] == "setup" and time.monotonic() < deadline:
            time.sleep(0.01)
        for attempt in (
            lambda: machine.transact([Start("dev-one", "b")]),
            lambda: machine.changed({"dev-one": ["a"]}),
            lambda: machine.live(["dev-two"]).__enter__(),
            lambda: machine.take(points.request()),
        ):
            with pytest.raises(errors.Busy, match="migrated"):
                attempt()
        vm.qmp("migrate_cancel")
        while vm.qmp("query-migrate")["status"] not in ("cancelled", "failed"):
            time.sleep(0.01)
        assert not machine.changed({"dev-one": ["a"]})["dev-one"]


def test_a_vm_that_its_owner_has_paused_stays_paused(vm: bare.Bare) -> None:
    vm.write("dev-one", 0, 8 << 20, 3)
    vm.qmp("stop")
    with vm.machine() as machine, machine.take(points.request()) as point:
        assert vm.status == "paused"
        assert points.holds(point, "dev-one", 3)
        point.check()
        point.release()
        assert vm.status == "paused"
        assert machine.recover() == ()
    assert vm.status == "paused"


def test_a_vm_that_dies_under_us(vm: bare.Bare) -> None:
    with vm.machine() as machine, contextlib.ExitStack() as stack:
        point = stack.enter_context(machine.take(points.request()))
        readers = stack.enter_context(machine.live(["dev-two"]))
        vm.process.kill()
        vm.process.wait()
        if point.protects is Protects.ALL:
            with pytest.raises(errors.PointLost):
                points.content(point.reader("dev-two"), 0, 4 << 20)
            with pytest.raises(errors.Unreachable):
                point.release()
        else:
            # The copies are ours.
            assert points.holds(point, "dev-two", 0)
            point.check()
        with pytest.raises(errors.Unreachable):
            points.content(readers["dev-two"], 0, 4 << 20)
        for attempt in (machine.inventory, machine.bitmaps, machine.recover):
            with pytest.raises(errors.Unreachable):
                attempt()
    assert [path.name for path in vm.scratch.iterdir()] == []


def test_a_scratch_path_that_is_too_long_is_told(vm: bare.Bare) -> None:
    with pytest.raises(errors.Usage, match="too long for a socket"):
        vm.machine(scratch=vm.scratch / ("deep" * 30))
    with vm.machine() as machine:
        assert machine.inventory().disks


def test_an_owner_who_stops_the_vm_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that takes itself apart meanwhile makes this QEMU abort."""
    learn = PushPoint._learn
    with bare.running(*bare.two(tmp_path, iothread=True)) as threaded, threaded.machine() as machine:

        def stop_and_learn(point: PushPoint, request: PointRequest) -> None:
            threaded.qmp("stop")
            threaded.qmp("cont")
            learn(point, request)

        monkeypatch.setattr(PushPoint, "_learn", stop_and_learn)
        for pattern in range(1, 9):
            threaded.write("dev-one", 0, 8 << 20, pattern)
            with machine.take(points.request()) as point:
                assert points.holds(point, "dev-one", pattern)
                point.release()
        assert threaded.status == "running"
        assert threaded.leftovers() == []
