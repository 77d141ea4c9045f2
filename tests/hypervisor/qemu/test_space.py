"""Scratch space: on a local disk, enough of it, and what happens when it ends in the middle."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor import space
from headstart.hypervisor.contract import PointRequest, Start, Stop
from headstart.hypervisor.qemu.fleece import Fleece
from headstart.hypervisor.qemu.push import PushPoint
from tests.hypervisor.qemu import bare, points
from tests.hypervisor.qemu.agent import Agent
from tests.wire import scripted

pytestmark = pytest.mark.vm


@contextlib.contextmanager
def small(size: str) -> Iterator[Path]:
    """A file system of its own that can be full."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
        if done.returncode != 0:
            pytest.skip(f"tmpfs cannot be mounted here: {done.stderr!r}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("iothread", [False, True])
def test_a_network_directory_is_refused(tmp_path: Path, iothread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "file_system_type", lambda directory: "nfs4")
    with bare.running(*bare.two(tmp_path, iothread=iothread)) as vm, vm.machine() as machine:
        with pytest.raises(errors.Usage, match=r"network file system \(nfs4\).*--scratch"):
            machine.take(points.request())
        assert vm.leftovers() == []


@pytest.mark.parametrize("iothread", [False, True])
def test_too_little_room_is_told_before_anything_is_done(
    tmp_path: Path, iothread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "MARGIN", 0)
    with (
        bare.running(*bare.two(tmp_path, iothread=iothread)) as vm,
        small("2m") as scratch,
        vm.machine(scratch=scratch) as machine,
    ):
        with pytest.raises(errors.NoSpace, match=r"Make room, or name another local directory"):
            machine.take(points.request(reserve=3 << 20))
        assert vm.leftovers() == []
        assert list(scratch.iterdir()) == []


def test_room_that_somebody_else_takes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that becomes full is lost, and no write of the guest with it."""
    with (
        bare.running(*bare.two(tmp_path, iothread=True)) as vm,
        small("2m") as scratch,
        vm.machine(scratch=scratch) as machine,
    ):
        monkeypatch.setattr(space, "require", lambda *_: None)
        vm.write("dev-one", 0, 8 << 20, 1)
        with pytest.raises(errors.NoSpace, match=r"became full while disk dev-one was copied"):
            machine.take(points.request())
        assert vm.leftovers() == []
        assert list(scratch.iterdir()) == []
        assert vm.status == "running"
        assert vm.read_is("dev-one", 0, 8 << 20, 1)


def test_a_full_scratch_breaks_a_pushed_point_and_not_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "MARGIN", 0)
    copy = PushPoint._copy

    def write_and_copy(point: PushPoint, fleece: Fleece, request: PointRequest) -> None:
        for start in range(0, 4 << 20, 1 << 19):
            vm.write("dev-one", start, 1 << 19, 2)
        copy(point, fleece, request)

    monkeypatch.setattr(PushPoint, "_copy", write_and_copy)
    with (
        bare.running(*bare.two(tmp_path, iothread=True)) as vm,
        small("2m") as scratch,
        vm.machine(scratch=scratch) as machine,
    ):
        monkeypatch.setattr(space, "require", lambda *_: None)
        vm.write("dev-one", 0, 8 << 20, 1)
        with pytest.raises(errors.PointLost, match="could not copy disk dev-one"):
            machine.take(points.request())
        assert vm.status == "running"
        assert vm.read_is("dev-one", 0, 4 << 20, 2)
        assert vm.read_is("dev-one", 4 << 20, 4 << 20, 1)
        assert vm.leftovers() == []
        assert list(scratch.iterdir()) == []


def test_a_pushed_point_takes_room_for_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for whole disks: neither the copies, nor what the guest overwrites elsewhere meanwhile."""
    monkeypatch.setattr(space, "MARGIN", 0)
    copy = PushPoint._copy

    def write_and_copy(point: PushPoint, fleece: Fleece, request: PointRequest) -> None:
        for start in range(0, 8 << 20, 1 << 19):
            vm.write("dev-one", start, 1 << 19, 2)
        copy(point, fleece, request)

    monkeypatch.setattr(PushPoint, "_copy", write_and_copy)
    with (
        bare.running(*bare.two(tmp_path, iothread=True)) as vm,
        small("3m") as scratch,
        vm.machine(scratch=scratch) as machine,
    ):
        vm.write("dev-one", 0, 8 << 20, 1)
        wanted = {"dev-one": Blocks(range(16)), "dev-two": Blocks([1])}
        with machine.take(PointRequest((), (), wanted, freeze=False)) as point:
            assert points.content(point.reader("dev-one"), 0, 1 << 20) == b"\1" * (1 << 20)
            point.release()
        assert vm.read_is("dev-one", 0, 8 << 20, 2)
        assert vm.leftovers() == []


def test_a_full_scratch_breaks_the_point_and_not_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "MARGIN", 0)
    with (
        bare.running(*bare.two(tmp_path)) as vm,
        small("2m") as scratch,
        vm.machine(scratch=scratch) as machine,
    ):
        vm.write("dev-one", 0, 8 << 20, 1)
        vm.write("dev-two", 0, 4 << 20, 1)
        with machine.take(points.request()) as point:
            for start in range(0, 4 << 20, 1 << 19):
                vm.write("dev-one", start, 1 << 19, 2)
            with pytest.raises(errors.PointLost):
                points.content(point.reader("dev-one"), 0, 8 << 20)
            assert points.content(point.reader("dev-two"), 0, 4 << 20) == b"\1" * (4 << 20)
            assert vm.status == "running"
            point.release()
        assert vm.read_is("dev-one", 0, 4 << 20, 2)
        assert vm.read_is("dev-one", 4 << 20, 4 << 20, 1)
        assert vm.leftovers() == []
        assert list(scratch.iterdir()) == []


def test_only_protected_blocks_take_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "MARGIN", 0)
    with (
        bare.running(*bare.two(tmp_path)) as vm,
        small("2m") as scratch,
        vm.machine(scratch=scratch) as machine,
    ):
        vm.write("dev-one", 0, 8 << 20, 1)
        with machine.take(points.request()) as point:
            kept = points.everything()["dev-one"] & Blocks(range(16))
            point.keep("dev-one", kept)
            for start in range(0, 8 << 20, 1 << 20):
                vm.write("dev-one", start, 1 << 20, 2)
            assert points.content(point.reader("dev-one"), 0, 1 << 20) == b"\1" * (1 << 20)
            point.check()
            point.release()
        assert vm.read_is("dev-one", 0, 8 << 20, 2)


def test_a_directory_that_qemu_cannot_use_is_told(tmp_path: Path) -> None:
    with bare.running(*bare.two(tmp_path)) as vm, vm.machine(scratch=tmp_path / "missing") as machine:
        with pytest.raises(errors.Usage, match=r"missing cannot be used .*--scratch"):
            machine.take(PointRequest((), (), {}, False))
        assert vm.leftovers() == []


def test_what_the_guest_writes_to_freeze_has_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freezing flushes the guest's cache: blocks become wanted that nobody wanted when the copies were prepared."""
    monkeypatch.setattr(space, "MARGIN", 0)

    class Flushing(Agent):
        flushed = 0

        def answer(self, request: dict[str, object]) -> bytes:
            if request["execute"] == "guest-fsfreeze-freeze":
                vm.write("dev-one", 0, self.flushed, 5)
            return super().answer(request)

    agent = Flushing()
    with (
        bare.running(*bare.two(tmp_path, iothread=True)) as vm,
        small("64m") as scratch,
        scripted.listening(agent.serve) as qga,
        vm.machine(scratch=scratch, qga=qga) as machine,
    ):
        machine.transact([Start("dev-one", "old")])
        request = PointRequest((), (Stop("dev-one", "old"),), {"dev-one": Blocks([100])})
        agent.flushed = 2 << 20
        with machine.take(request) as point:
            assert point.protected("dev-one") == Blocks([*range(32), 100])
            assert points.content(point.reader("dev-one"), 0, 2 << 20) == b"\5" * (2 << 20)
            point.release()
        assert (vm.status, agent.state) == ("running", "thawed")
        assert vm.leftovers() == []
