"""SIGKILL at every stage: the guest goes on at once, and the next run puts everything right."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import guard
from headstart.hypervisor.contract import Remove
from headstart.hypervisor.qemu import obstacles
from headstart.wire import qmp as wire
from headstart.wire.qmp import Command, Qmp
from tests.hypervisor.qemu import bare, points, victim
from tests.hypervisor.qemu.agent import Agent
from tests.kit import qmp
from tests.wire import scripted

pytestmark = pytest.mark.vm

BOTH = ("view", "live", "stopped", "removing", "removed", "standing")
PULL = ("preparing", "inserted", "offering")
PUSH = ("wishing", "prepared", "filtered", "told", "copying", "copied")
STAGES = [("pull", place) for place in (*BOTH, *PULL)] + [("push", place) for place in (*BOTH, *PUSH)]

OTHER = "fedcba98"


def kill_at(place: str, vm: bare.Bare, qga: Path | None = None) -> None:
    command = [sys.executable, "-m", victim.__name__, place, str(vm.monitor), str(vm.scratch)]
    done = subprocess.run([*command, *([str(qga)] if qga else [])], timeout=60, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr


def wait_running(vm: bare.Bare, seconds: float = 2.0) -> None:
    deadline = time.monotonic() + seconds
    while vm.status != "running":
        assert time.monotonic() < deadline, f"the VM is {vm.status}"
        time.sleep(0.005)


@pytest.mark.parametrize(("variant", "place"), STAGES)
def test_a_dead_run_is_put_right(tmp_path: Path, variant: str, place: str) -> None:
    with bare.running(*bare.two(tmp_path, iothread=variant == "push")) as vm:
        roots = vm.roots()
        vm.write("dev-one", 0, 8 << 20, 1)
        kill_at(place, vm)
        wait_running(vm)
        vm.write("dev-one", 0, 1 << 20, 2)
        with vm.machine() as machine:
            told = machine.recover()
            assert told or place == "removed"
            assert vm.leftovers() == []
            assert vm.roots() == roots
            assert machine.recover() == ()
            for found in machine.bitmaps().values():
                assert {bitmap.name for bitmap in found if bitmap.recording} <= {"old", "new"}
            assert machine.changed({"dev-one": ["old"]})["dev-one"] >= Blocks(range(16))
            with machine.take(points.request()) as point:
                vm.write("dev-one", 0, 1 << 20, 3)
                data = points.content(point.reader("dev-one"), 0, 2 << 20)
                point.release()
            assert data == b"\2" * (1 << 20) + b"\1" * (1 << 20)
            machine.transact(
                [Remove(disk, bitmap.name) for disk, found in machine.bitmaps().items() for bitmap in found]
            )
        assert vm.leftovers() == []
        assert vm.status == "running"
        print(f"{variant} {place}: {'; '.join(told)}")


@pytest.mark.parametrize("variant", ["pull", "push"])
def test_the_guard_continues_within_milliseconds(tmp_path: Path, variant: str) -> None:
    """The VM stands still from the victim's stop until its guard sees it die."""
    with bare.running(*bare.two(tmp_path, iothread=variant == "push")) as vm:
        kill_at("stopped", vm)
        stopped, resumed = vm.wait_event("STOP"), vm.wait_event("RESUME")
        pause = qmp.moment_of(resumed) - qmp.moment_of(stopped)
        print(f"the guard continued the VM after {pause * 1000:.1f} ms")
        assert pause < 1
        # Whoever stops it now, we do not continue it. The guard has the monitor until it has removed its note.
        vm.qmp("stop")
        with vm.machine() as machine:
            assert not (vm.scratch / "vm.stopped").exists()
            assert machine.recover()
        assert vm.status == "paused"
        assert vm.leftovers() == []


@contextlib.contextmanager
def slow_disk(folder: Path) -> Iterator[list[str]]:
    """Arguments of a disk that is not flushed while ``folder/hold`` exists."""
    socket, held, flushing = folder / "slow", folder / "hold", folder / "flushing"
    flush = f"touch {flushing}; while [ -e {held} ]; do sleep 0.01; done"
    script = ["get_size=echo 1048576", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null"]
    script += ["can_write=exit 0", "can_flush=exit 0", f"flush={flush}"]
    with subprocess.Popen(["nbdkit", "-f", "-U", str(socket), "eval", *script]) as server:
        try:
            while not socket.exists():
                assert server.poll() is None
                time.sleep(0.01)
            yield [
                *("-blockdev", f"driver=nbd,server.type=unix,server.path={socket},node-name=slow"),
                *("-device", f"virtio-blk-pci,drive=slow,id={victim.SLOW}"),
            ]
        finally:
            held.unlink(missing_ok=True)
            server.terminate()


@pytest.mark.parametrize("place", victim.STOPPING)
def test_a_stop_that_outlasts_us_is_undone(tmp_path: Path, place: str) -> None:
    """Its storage keeps QEMU in the stop, while we die; what was ordered after that must not be lost."""
    with slow_disk(tmp_path) as slow, bare.running(*bare.two(tmp_path), *slow) as vm:
        vm.write(victim.SLOW, 0, 512, 1)
        (tmp_path / "hold").touch()
        kill_at(place, vm)
        assert (tmp_path / "flushing").exists()
        time.sleep(0.2)
        (tmp_path / "hold").unlink()
        stopped, resumed = vm.wait_event("STOP"), vm.wait_event("RESUME")
        print(f"stopped for {qmp.moment_of(resumed) - qmp.moment_of(stopped):.2f} s")
        wait_running(vm)
        with vm.machine() as machine:
            assert machine.recover()
        assert vm.status == "running"
        assert vm.leftovers() == []


@pytest.mark.parametrize("variant", ["pull", "push"])
def test_without_a_guard_the_next_run_continues_the_vm(tmp_path: Path, variant: str) -> None:
    with bare.running(*bare.two(tmp_path, iothread=variant == "push")) as vm:
        kill_at(victim.UNGUARDED, vm)
        assert vm.status == "paused"
        with vm.machine() as machine:
            assert "the VM, stopped by a dead run, was continued" in machine.recover()
        assert vm.status == "running"
        assert vm.leftovers() == []


@pytest.mark.parametrize("variant", ["pull", "push"])
def test_a_guest_that_was_frozen_is_thawed(tmp_path: Path, variant: str) -> None:
    agent = Agent()
    with (
        bare.running(*bare.two(tmp_path, iothread=variant == "push")) as vm,
        scripted.listening(agent.serve) as qga,
    ):
        kill_at("frozen", vm, qga)
        with agent.changed:
            assert agent.changed.wait_for(lambda: agent.state == "thawed", 5)
        # The guard died too, say: then the next run does it.
        agent.become("frozen")
        with vm.machine(qga=qga) as machine:
            assert "the guest, frozen by a dead run, was thawed" in machine.recover()
            assert agent.state == "thawed"
            with machine.take(points.request(freeze=True)) as point:
                assert point.consistency == "filesystem"
                assert 0 < point.freeze_seconds < 2
                point.release()
            agent.become("frozen")
            assert machine.recover() == ()
            assert agent.state == "frozen"


def test_a_snapshot_that_is_taken_of_our_filter(shared: bare.Bare, tmp_path: Path) -> None:
    """It cannot be taken out below it. What to do is said until it is done."""
    snapshot = tmp_path / "snapshot.qcow2"
    with shared.machine() as machine, machine.take(points.request()) as point:
        disk = {"node_name": next(root for root in shared.roots().values() if root.endswith("cbw1"))}
        shared.qmp("blockdev-snapshot-sync", snapshot_file=str(snapshot), snapshot_node_name="theirs", **disk)
        shared.write("dev-two", 0, 512, 7)
        with pytest.raises(errors.PointLost, match="changed by somebody else"):
            point.check()
    with shared.machine() as machine:
        for _ in range(2):
            remedy = f"block-stream .device theirs.*rebase -u -F raw -b {tmp_path}/two.raw {snapshot}"
            with pytest.raises(errors.Busy, match=remedy):
                machine.recover()
        shared.qmp("block-stream", device="theirs", job_id="free")
        shared.wait_event("BLOCK_JOB_COMPLETED")
        assert machine.recover()
        assert shared.leftovers() == []
        with machine.take(points.request()) as point:
            assert points.content(point.reader("dev-two"), 0, 512) == bytes([7]) * 512
            point.release()


def test_a_qemu_that_hangs_in_our_stop_is_left_to_the_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who read the answers of one monitor would each miss some: nothing more is said to it."""
    batch = Qmp.batch

    def hanging(link: Qmp, commands: Sequence[Command]) -> list[Any]:
        vm.process.send_signal(signal.SIGSTOP)
        return batch(link, commands)

    with bare.running(*bare.two(tmp_path)) as vm:
        roots = vm.roots()
        with monkeypatch.context() as patched, vm.machine() as machine:
            patched.setattr(Qmp, "batch", hanging)
            patched.setattr(wire, "COMMAND_SECONDS", 0.5)
            patched.setattr(guard, "CLOSE_SECONDS", 0.2)
            with pytest.raises(errors.Unreachable, match="did not answer within"):
                machine.take(points.request())
            with pytest.raises(errors.Unreachable, match="is closed"):
                machine.inventory()
        note = vm.scratch / "vm.stopped"
        assert note.exists()
        vm.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + 20
        while note.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert vm.status == "running"
        with vm.machine() as machine:
            assert machine.recover()
        assert vm.leftovers() == [] and vm.roots() == roots


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bare.Bare]:
    monkeypatch.setattr(obstacles, "PATIENCE_SECONDS", 0.1)
    with bare.running(*bare.two(tmp_path)) as running:
        yield running


def test_another_installation_is_left_alone(shared: bare.Bare, tmp_path: Path) -> None:
    roots = shared.roots()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with shared.machine(OTHER, scratch=theirs, label="their") as machine:
        machine.take(points.request())
    with shared.machine() as machine:
        told = machine.recover()
        assert told
        assert all(f"hs-{OTHER}-" in line and "left alone" in line for line in told)
        with pytest.raises(errors.Busy, match=f"hs-{OTHER}-"):
            machine.take(points.request())
        with pytest.raises(errors.Busy, match="Another tool runs the NBD server"):
            machine.changed({"dev-one": ["missing"]})
        with machine.live([]) as readers:
            assert not readers
    assert shared.leftovers(f"hs-{OTHER}-")
    with shared.machine(OTHER, scratch=theirs, label="their") as machine:
        assert machine.recover()
    assert shared.leftovers() == []
    assert shared.roots() == roots


def test_two_vms_of_one_scratch_directory_do_not_meet(shared: bare.Bare, tmp_path: Path) -> None:
    """What lies there under another label is another VM's."""
    others = {"vm2.scratch0", "vm.old.scratch0", "other.stopped"}
    for name in others:
        (shared.scratch / name).touch()
    shared.qmp("stop")
    with shared.machine() as machine:
        assert machine.recover() == ()
    assert {path.name for path in shared.scratch.iterdir()} == others
    assert shared.status == "paused"
