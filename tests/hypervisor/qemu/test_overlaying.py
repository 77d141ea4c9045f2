"""Overlays of a bare QEMU where a step of theirs goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart import durable, errors
from headstart.hypervisor import recording
from headstart.hypervisor.contract import Start, Stop
from headstart.hypervisor.overlays import Place
from headstart.hypervisor.qemu.overlaying import Overlaying
from headstart.wire.qmp import Qmp
from tests.hypervisor.qemu import bare
from tests.hypervisor.qemu.layered import BLOCK, DISK, arguments, connected, head, rotate
from tests.kit import layers

pytestmark = pytest.mark.vm


@pytest.mark.parametrize("failure", [errors.Unreachable("It did not answer within 60 s."), KeyboardInterrupt()])
def test_an_overlay_of_which_nobody_told_whether_it_was_put_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """QEMU comes to the order when we have given up: what the guest writes from then on is there after a restart."""
    execute = Qmp.execute

    def late(qmp: Qmp, command: str, /, **values: Any) -> Any:
        told = execute(qmp, command, **values)
        if command == "transaction":
            raise failure
        return told

    link = head(tmp_path)
    with bare.running(*arguments(link)) as vm:
        with monkeypatch.context() as patched, connected(vm) as machine:
            patched.setattr(Qmp, "execute", late)
            with pytest.raises(type(failure)):
                machine.transact([Start(DISK, "a")])
        vm.write(DISK, 0, BLOCK, 1)
        vm.flush(DISK)
    with bare.running(*arguments(link)) as vm:
        assert vm.read_is(DISK, 0, BLOCK, 1)
        rotate(vm, "b")
        assert len(layers.chain(link)) == 2


def test_a_commit_that_fails_is_tried_again_before_anything_is_put_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise errors.Busy("No space left on device.")

    link = head(tmp_path)
    with bare.running(*arguments(link)) as vm:
        rotate(vm, "a")
        vm.write(DISK, 0, BLOCK, 1)
        with monkeypatch.context() as patched:
            patched.setattr(Overlaying, "_run", fails)
            for _ in range(3):
                with pytest.raises(errors.Busy):
                    rotate(vm, "b", "a")
                assert len(layers.chain(link)) == 3
        with connected(vm) as machine:
            assert [each.name for each in machine.bitmaps()[DISK]] == ["b"]
        assert len(layers.chain(link)) == 2
    assert (tmp_path / "data.raw").read_bytes()[:BLOCK] == b"\1" * BLOCK


def test_what_a_dead_run_committed_goes_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut would else leave an overlay that stands on a file which is gone."""

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    def synced(path: Path) -> None:
        steps.append(path.name)
        sync(path)

    def removed(place: Place, path: Path) -> None:
        steps.append(f"- {path.name}")
        remove(place, path)

    steps: list[str] = []
    sync, remove = durable.sync, Place.remove
    link = head(tmp_path)
    with bare.running(*arguments(link)) as vm:
        rotate(vm, "a")
        committed = link.resolve().name
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Overlaying, "_clear_away", dies)
            rotate(vm, "b", "a")
        lowest = link.resolve().name
        with monkeypatch.context() as patched, vm.machine(layered=True) as machine:
            patched.setattr(durable, "sync", synced)
            patched.setattr(Place, "remove", removed)
            machine.recover()
    assert {lowest, "data.raw"} <= set(steps[: steps.index(f"- {committed}")])


def test_too_many_overlays_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that end between putting one on and committing it: each of these adds one."""
    monkeypatch.setattr(recording, "MOST", 4)
    link = head(tmp_path)
    with bare.running(*arguments(link)) as vm:
        for number in range(5):
            with connected(vm) as machine:
                machine.transact([Start(DISK, str(number)), *([Stop(DISK, str(number - 1))] if number else [])])
                assert len(machine.bitmaps()[DISK]) == number + 1
            vm.write(DISK, number * BLOCK, BLOCK, number + 1)
        with vm.machine(layered=True) as machine:
            assert any("5 overlays of ours stand on it" in each for each in machine.recover())
            assert not machine.bitmaps()[DISK]
        assert len(layers.chain(link)) == 2
        assert all(vm.read_is(DISK, number * BLOCK, BLOCK, number + 1) for number in range(5))
