"""File systems frozen through a real guest agent, and agents that are of no help."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.hypervisor.contract import PointRequest
from headstart.hypervisor.qemu import freeze
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.wire import qga as wire
from tests.hypervisor.qemu import bare, points, victim
from tests.hypervisor.qemu.agent import Agent
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import disks
from tests.kit.vm import Vm
from tests.wire import scripted

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """A guest with a file system on one of its two disks."""
    folder = tmp_path_factory.mktemp("freeze")
    pair = (
        disks.Disk(disks.make_ext4(folder / "one.qcow2", 16 * disks.MIB, "qcow2"), "qcow2", "one"),
        disks.Disk(disks.make_filled(folder / "two.raw", 4 * disks.MIB), "raw", "two", interface="virtio-scsi"),
    )
    with Vm(pair) as vm:
        vm.guest.mount(vm.device("one") + "1", "/mnt")
        yield vm


def machine(vm: Vm, scratch: Path) -> QemuMachine:
    return QemuMachine(vm.qmp_socket, installation=INSTALLATION, scratch=scratch, label="vm", qga=vm.qga_socket)


def request(*, freeze: bool) -> PointRequest:
    return PointRequest((), (), {}, freeze)


def can_write(vm: Vm) -> bool:
    return vm.guest.run("touch /mnt/file && sync /mnt/file", timeout=10).status == 0


def test_the_guest_is_frozen_for_the_point_only(mounted: Vm, tmp_path: Path) -> None:
    with machine(mounted, tmp_path) as connection:
        for wanted, consistency in ((True, "filesystem"), (False, "crash")):
            with connection.take(request(freeze=wanted)) as point:
                assert can_write(mounted)
                assert (point.consistency, point.notes) == (consistency, [])
                assert (point.freeze_seconds > 0) is wanted
                window = point.release()
            print(
                f"freeze {point.freeze_seconds * 1000:.0f} ms, pause {point.pause_seconds * 1000:.1f} ms, "
                f"window {window * 1000:.0f} ms"
            )


def test_a_frozen_guest_is_thawed_when_we_are_killed(mounted: Vm, tmp_path: Path) -> None:
    command = [sys.executable, "-m", victim.__name__, "frozen", mounted.qmp_socket, tmp_path, mounted.qga_socket]
    done = subprocess.run([str(word) for word in command], timeout=60, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert can_write(mounted)
    with machine(mounted, tmp_path) as connection:
        assert connection.recover()
        with connection.take(request(freeze=True)) as point:
            assert point.consistency == "filesystem"
            point.release()


@pytest.mark.parametrize("place", victim.HANGING)
def test_a_frozen_guest_is_thawed_in_time_whatever_hangs(mounted: Vm, tmp_path: Path, place: str) -> None:
    """We are stopped, or wait for a monitor that does not answer: the guard tells qga, 10 s after our order at most."""
    command = [sys.executable, "-m", victim.__name__, place, mounted.qmp_socket, tmp_path, mounted.qga_socket]
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            began = float(process.stdout.readline())
            assert mounted.guest.run("touch /mnt/file && sync /mnt/file", timeout=20).status == 0
            took = time.time() - began
        finally:
            process.kill()
    print(f"thawed {took:.2f} s after the order to freeze")
    assert 5 < took <= 10
    with machine(mounted, tmp_path) as connection:
        assert connection.recover()


def test_a_guest_with_nothing_to_freeze(mounted: Vm, tmp_path: Path) -> None:
    mounted.guest.unmount("/mnt")
    try:
        with machine(mounted, tmp_path) as connection, connection.take(request(freeze=True)) as point:
            assert point.consistency == "crash"
            assert point.notes == ["the guest agent found no file system to freeze"]
            point.release()
    finally:
        mounted.guest.mount(mounted.device("one") + "1", "/mnt")


class Stubborn(Agent):
    """Synchronises, freezes, and then is silent for some orders."""

    def __init__(self, *silent: str) -> None:
        super().__init__()
        self._silent = silent
        self.heard: list[object] = []

    def answer(self, request: dict[str, object]) -> bytes:
        self.heard.append(request["execute"])
        answer = super().answer(request)
        return b"" if request["execute"] in self._silent else answer


def gone(client: socket.socket) -> None:
    """Nobody listens behind the port."""


@pytest.mark.parametrize("script", [scripted.silence, gone])
def test_an_agent_that_is_not_there_costs_the_freeze_only(
    tmp_path: Path, script: scripted.Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "Qga", lambda path: wire.Qga(path, sync_seconds=0.3))
    with (
        bare.running(*bare.two(tmp_path)) as vm,
        scripted.listening(script) as qga,
        vm.machine(qga=qga) as connection,
        connection.take(points.request(freeze=True)) as point,
    ):
        assert (point.consistency, point.freeze_seconds) == ("crash", 0)
        (note,) = point.notes
        assert "Is qemu-guest-agent installed" in note
        point.release()


@pytest.mark.parametrize("silent", ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"])
def test_an_agent_that_falls_silent_is_told_to_thaw_by_the_guard(
    tmp_path: Path, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze, "FREEZE_SECONDS", 0.3)
    monkeypatch.setattr(freeze, "THAW_SECONDS", 0.3)
    agent = Stubborn(silent)
    with (
        bare.running(*bare.two(tmp_path)) as vm,
        scripted.listening(agent.serve) as qga,
        vm.machine(qga=qga) as connection,
    ):
        began = time.monotonic()
        with connection.take(points.request(freeze=True)) as point:
            assert point.consistency == "crash"
            assert point.notes
            point.release()
        assert time.monotonic() - began < 12
        assert agent.heard.count("guest-fsfreeze-thaw") == 2
        assert agent.state == "thawed"
        assert vm.status == "running"
