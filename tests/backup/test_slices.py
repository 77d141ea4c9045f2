"""A disk that only a point in time shows is read in slices; what keeps that from happening now is told as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup import slices
from headstart.backup.slices import NotNow, SlicedReader
from headstart.extents import Extent
from headstart.hypervisor.contract import Migrating, NotTaken, PointInTime, PointRequest
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.tracking.choice import Wish
from tests.kit import world
from tests.kit.world import World

BLOCK = 512
SIZE = 16 * BLOCK
WHOLE = [Extent(0, SIZE)]


class Reluctant(MemoryMachine):
    """Takes no point in time before it was asked so many times."""

    def __init__(self, vm: MemoryVm, refusal: Callable[[], errors.HeadstartError], times: int) -> None:
        super().__init__(vm, "01234567", BLOCK)
        self._refusal, self._times = refusal, times
        self.asked = 0

    def take(self, request: PointRequest) -> PointInTime:
        self.asked += 1
        if self.asked <= self._times:
            raise self._refusal()
        return super().take(request)


@pytest.fixture
def simulated() -> MemoryVm:
    found = MemoryVm({"a": SIZE}, BLOCK)
    for block in range(10):
        found.write("a", block)
    return found


def reader(machine: MemoryMachine) -> SlicedReader:
    [disk] = machine.inventory().disks
    return SlicedReader(machine, disk, BLOCK)


def content(of: SlicedReader) -> bytes:
    found = bytearray(of.size)
    for piece in of.read(WHOLE):
        if piece.data is not None:
            found[piece.extent.start : piece.extent.end] = piece.data
        piece.release()
    return bytes(found)


def test_slices_show_what_the_guest_reads(simulated: MemoryVm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "LONGEST", 3 * BLOCK)
    machine = Reluctant(simulated, lambda: errors.Busy(""), 0)
    assert content(reader(machine)) == simulated.data("a")
    assert machine.asked == 6
    assert simulated.leftovers() == []


def test_a_point_that_was_not_taken_is_tried_again(simulated: MemoryVm) -> None:
    machine = Reluctant(simulated, lambda: NotTaken("the guest wrote too much"), slices.TRIES - 1)
    assert content(reader(machine)) == simulated.data("a")


def test_not_for_ever(simulated: MemoryVm) -> None:
    machine = Reluctant(simulated, lambda: NotTaken("the guest wrote too much"), slices.TRIES)
    with pytest.raises(NotNow, match="the guest wrote too much"):
        content(reader(machine))
    assert machine.asked == slices.TRIES


@pytest.mark.parametrize("kind", [errors.Busy, errors.NoSpace, errors.Unsupported, errors.NotFound, errors.PointLost])
def test_what_is_in_the_way_is_no_failure_of_the_backup(simulated: MemoryVm, kind: type[errors.HeadstartError]) -> None:
    machine = Reluctant(simulated, lambda: kind("in the way"), 1)
    with pytest.raises(NotNow, match="in the way"):
        content(reader(machine))
    assert machine.asked == 1


def test_a_migration_is_told_as_one(simulated: MemoryVm) -> None:
    with pytest.raises(Migrating):
        content(reader(Reluctant(simulated, lambda: Migrating("it leaves"), 1)))


def test_a_disk_that_was_resized_a_moment_ago_waits(simulated: MemoryVm) -> None:
    found = reader(Reluctant(simulated, lambda: errors.Busy(""), 0))
    simulated.resize("a", 2 * SIZE)
    with pytest.raises(NotNow, match="resized"):
        content(found)


def test_what_nothing_records_of_it_is_compared_in_the_window(tmp_path: Path) -> None:
    """All of it is wanted then, of every disk of the VM: such a point in time has nothing else."""
    vm = MemoryVm({"a": 12 * world.BLOCK, "b": 12 * world.BLOCK}, world.BLOCK, iothreads=("a",))
    vm.write("a", 3)
    there = World(vm, tmp_path)
    assert there.backup() is not None
    there.journal.track(world.NAME, Wish.COMPARE)
    for block in (4, 5):
        vm.write("a", block)
        vm.write("b", block)
        assert there.precopy() is not None
        vm.write("b", 6)
        made = there.backup()
        assert made is not None and [disk.tracking for disk in made.disks] == ["comparison"] * 2
