"""After damage at rest: healing from the running VM, and backups that never build on what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.backup import cycle, remember
from headstart.backup.complete import Options
from headstart.backup.livedonor import LiveVm
from headstart.hypervisor.memory import MemoryVm
from headstart.repository import layout, repair, verify
from headstart.repository.layout import ChunkClass
from headstart.repository.repair import Order, Report, Sources
from tests.kit.script import Death, Outage, Place, Script
from tests.kit.world import BLOCK, NAME, World

WRITTEN = range(0, 12, 2)


@pytest.fixture(params=["bitmaps", "checkpoints"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    made = World(
        MemoryVm({"a": 12 * BLOCK, "b": 12 * BLOCK}, BLOCK, raw=("b",), checkpoints=request.param == "checkpoints"),
        tmp_path,
    )
    for disk in ("a", "b"):
        for block in WRITTEN:
            made.vm.write(disk, block)
    assert made.backup() is not None
    return made


def lose(world: World, chunk_class: ChunkClass) -> None:
    store = world.stores[0]
    for name in list(store.keys(layout.PACKS)):
        if store.read(name)[layout.HEADER_LENGTH + layout.OBJECT_ID_LENGTH] == chunk_class:
            store.delete(name)


def repaired(world: World, *, live: bool = False) -> Report:
    with world.repository() as repo:
        donors = [LiveVm(world._context(repo), NAME)] if live else []
        order = Order(5.0, remember.of(world.journal, repo), Sources(donors=donors))
        return repair.run(repo, order, lambda done, total: None)


def findings(world: World) -> list[str]:
    with world.repository() as repo:
        remembered = remember.of(world.journal, repo)
        return [each.object for each in verify.verify_all(repo, lambda done, total: None, remembered).findings]


@pytest.mark.parametrize("chunk_class", ChunkClass)
def test_the_running_vm_heals(world: World, chunk_class: ChunkClass) -> None:
    lose(world, chunk_class)
    report = repaired(world, live=True)
    definitions = [each for each in report.hurt if not each.extents]
    assert [each for each in report.hurt if each.extents] == []
    assert [each.source for each in report.healed] == [f"VM {NAME}"]
    if not definitions:
        assert findings(world) == []
        world.check_everything()
    assert world.backup() is not None
    assert findings(world) == []
    world.check_everything()


def test_what_has_changed_since_is_lost(world: World) -> None:
    world.vm.write("a", 4)
    lose(world, ChunkClass.CONTENT)
    report = repaired(world, live=True)
    [hurt] = [each for each in report.hurt if each.extents]
    assert (hurt.name, [(each.start, each.length) for each in hurt.extents]) == ("a", [(4 * BLOCK, BLOCK)])
    assert world.backup() is not None


@pytest.mark.parametrize("audit", [0, None])
@pytest.mark.parametrize("chunk_class", ChunkClass)
def test_the_next_backup_reads_again_what_is_lost(world: World, chunk_class: ChunkClass, audit: int | None) -> None:
    """Also what did not change, which it would take over from the last snapshot's tree. The world compares."""
    lose(world, chunk_class)
    report = repaired(world)
    assert report.hurt
    world.precopy()
    assert world.backup(options=Options(audit=audit)) is not None
    assert findings(world) == [], "and the old snapshot is whole again"
    world.check_everything()


def test_a_waiting_backup_is_not_built_on_a_tree_that_was_lost_meanwhile(world: World) -> None:
    """The disks did not change: nothing of their trees would be read, and all of it taken over."""
    assert world.backup(Script(outage=Outage(2)), Options(plain=True)) is None
    world.journal.watcher = None
    assert world.journal.completion(NAME) is not None
    lose(world, ChunkClass.TREE)
    repaired(world)
    with world.repository() as repo:
        [note] = cycle.finish(world._context(repo), NAME)
    assert "was given up: " in note and "cannot be read" in note
    assert world.backup() is not None
    assert findings(world) == []
    world.check_everything()


def test_a_damaged_draft_is_copied_again(world: World) -> None:
    for block in (1, 3):
        world.vm.write("a", block)
    before = set(world.stores[0].keys(layout.PACKS))
    assert world.precopy() is not None
    for name in set(world.stores[0].keys(layout.PACKS)) - before:
        world.stores[0].delete(name)
    assert findings(world)
    repaired(world)
    assert findings(world) == []
    assert world.backup(options=Options(audit=0)) is not None
    assert findings(world) == []


def test_a_host_misses_the_end_of_its_draft(world: World) -> None:
    world.vm.write("a", 1)
    assert world.precopy() is not None
    last = max(world.stores[0].keys(layout.DRAFTS))
    world.stores[0].delete(last)
    assert findings(world) == [last]
    repaired(world)
    assert findings(world) == []


def test_a_host_misses_its_last_snapshot(world: World) -> None:
    """An old copy of the whole repository put back: nothing in it tells."""
    old = {name: world.stores[0].read(name) for name in world.stores[0].keys("")}
    world.vm.write("a", 1)
    assert world.backup() is not None
    world.precopy()
    store = world.stores[0]
    for name in list(store.keys("")):
        if name not in old and not name.startswith(layout.DRAFTS):
            store.delete(name)
    assert [name for name in findings(world) if name.startswith(layout.SNAPSHOTS)]


@pytest.mark.parametrize("place", ["create", "commit"])
@pytest.mark.parametrize("after", [False, True])
def test_a_killed_run_is_no_damage(tmp_path: Path, place: Place, after: bool) -> None:
    """Killed at each of its objects and commits in turn, it leaves nothing that verify would complain of."""
    world = World(MemoryVm({"a": 12 * BLOCK}, BLOCK), tmp_path)
    for number in range(1, 20):
        for verb in (world.precopy, world.backup):
            world.vm.write("a", number % 12)
            verb(Script(death=Death(place, number, after)))
            assert findings(world) == [], f"killed at {place} {number}"
            with world.repository() as repo:
                assert verify.verify_all(repo, lambda done, total: None).findings == ()
    assert world.backup() is not None
    assert findings(world) == []
