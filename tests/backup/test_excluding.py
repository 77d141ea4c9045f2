"""What a backup is made without: zeroes in it, never lost, and read whole as soon as it is not left out any longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.backup.report import BackupReport
from headstart.hypervisor.memory import MemoryVm
from headstart.repository import snapshot
from tests.kit.events import SwapMoves
from tests.kit.script import Outage, Script
from tests.kit.truth import restored
from tests.kit.world import BLOCK, NAME, World

SIZE = 16
#: As QEMU does it, as its jobs do it, through libvirt, and where nothing records.
KINDS: dict[str, Callable[[], MemoryVm]] = {
    "plain": lambda: MemoryVm({"a": SIZE * BLOCK}, BLOCK),
    "iothread": lambda: MemoryVm({"a": SIZE * BLOCK}, BLOCK, iothreads=("a",)),
    "checkpoints": lambda: MemoryVm({"a": SIZE * BLOCK}, BLOCK, checkpoints=True),
    "untracked": lambda: MemoryVm({"a": SIZE * BLOCK}, BLOCK, raw=("a",), checkpoints=True),
}


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    found = World(KINDS[request.param](), tmp_path)
    for block in range(SIZE):
        found.vm.write("a", block)
    found.excludes_swap = True
    found.swaps = {"a": range(4, 8)}
    return found


def back_up(world: World, script: Script | None = None) -> BackupReport:
    """The world compares every published byte, and what the manifest says of what is missing."""
    made = world.backup(script or Script())
    assert made is not None
    return made


def zeroes(world: World, made: BackupReport) -> list[int]:
    with world.repository() as repo:
        content = restored(repo, snapshot.load(repo, made.snapshot).disks[0])
    return [block for block in range(SIZE) if not any(content[block * BLOCK : (block + 1) * BLOCK])]


def test_it_is_zeroes_and_told(world: World) -> None:
    made = back_up(world)
    assert zeroes(world, made) == [4, 5, 6, 7]
    [disk] = made.disks
    assert disk.excluded_bytes == 4 * BLOCK and disk.residue_bytes + disk.precopied_bytes == 12 * BLOCK
    with world.repository() as repo:
        [told] = snapshot.load(repo, made.snapshot).disks[0].excluded
    assert (told.volume, told.content, told.pattern) == ("a/1", "swap", "!swap")
    assert [(each.start, each.length) for each in told.extents] == [(4 * BLOCK, 4 * BLOCK)]
    [volume] = made.volumes
    assert (volume.name, volume.excluded_bytes, volume.changed_bytes, volume.residue_bytes) == ("a/1", 4 * BLOCK, 0, 0)


def test_what_is_written_there_is_nothing(world: World) -> None:
    back_up(world)
    world.vm.write("a", 5)
    world.vm.write("a", 9)
    made = back_up(world)
    [disk] = made.disks
    assert (disk.changed_bytes, disk.precopied_bytes + disk.residue_bytes) == (BLOCK, BLOCK)
    assert zeroes(world, made) == [4, 5, 6, 7]


def test_what_is_not_left_out_any_longer_is_read_whole(world: World) -> None:
    """Also what nobody wrote since it was left out."""
    back_up(world)
    world.vm.write("a", 5)
    back_up(world)
    world.excludes_swap = False
    made = back_up(world)
    assert zeroes(world, made) == []
    assert made.disks[0].changed_bytes == 4 * BLOCK
    assert made.disks[0].compared == bool(world.untracked)


@pytest.mark.parametrize("moved", [range(6, 10), range(4, 12), range(5, 6), range(0)])
def test_it_grows_shrinks_moves_or_goes(world: World, moved: range) -> None:
    back_up(world)
    world.swaps = {"a": moved} if moved else {}
    world.vm.write("a", 4)
    made = back_up(world)
    assert zeroes(world, made) == list(moved)
    world.swaps = {}
    assert zeroes(world, back_up(world)) == []


def test_what_had_been_copied_ahead_is_not_used(world: World) -> None:
    world.excludes_swap = False
    assert world.precopy() is not None
    world.excludes_swap = True
    assert zeroes(world, back_up(world)) == [4, 5, 6, 7]


def test_nothing_of_it_is_copied_ahead(world: World) -> None:
    made = world.precopy()
    assert made is not None and made.remaining_bytes == 0
    # What lies on one in an iothread is not looked up while it runs.
    copied = world.journal.copied_blocks(NAME, "a")
    assert world.vm.drives["a"].iothread or not copied & type(copied)(range(4, 8))


def test_it_moves_while_the_backup_is_made(world: World) -> None:
    """What the disks say at the point in time counts, whenever that is."""
    back_up(world)
    for step in range(1, 60):
        world.swaps = {"a": range(4, 8)}
        world.vm.write("a", step % SIZE)
        back_up(world, Script(((step, SwapMoves(0, 6 + step % 3, 3)),)))


def test_a_state_that_is_lost_or_old(world: World) -> None:
    back_up(world)
    world.copy_journal()
    world.excludes_swap = False
    back_up(world)
    world.put_back_journal(0)
    assert zeroes(world, back_up(world)) == []
    world.excludes_swap = True
    back_up(world)
    world.lose_journal()
    world.excludes_swap = False
    assert zeroes(world, back_up(world)) == []


def test_a_vm_that_is_off(world: World) -> None:
    back_up(world)
    world.vm.write("a", 5)
    world.vm.stop()
    assert zeroes(world, back_up(world)) == [4, 5, 6, 7]
    world.vm.start()
    assert zeroes(world, back_up(world)) == [4, 5, 6, 7]
    world.vm.stop()
    world.excludes_swap = False
    assert zeroes(world, back_up(world)) == []


def test_a_backup_that_waits_in_the_spool(world: World) -> None:
    """It is published by the next run, which leaves out nothing any longer."""
    waited = 0
    for number in range(1, 11):
        world.excludes_swap = True
        world.vm.write("a", 9)
        failed = world.backup(Script(outage=Outage(number, "fails"))) is None
        waits, known = world.journal.completion(NAME) is not None, len(world.snapshots())
        world.excludes_swap = False
        assert zeroes(world, back_up(world)) == []
        assert not failed or len(world.snapshots()) > known
        waited += waits
    assert waited
