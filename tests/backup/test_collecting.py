"""A backup is published while garbage is collected: every order of the steps that matter."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from headstart import repository
from headstart.backup import cycle, losses
from headstart.backup.complete import Options
from headstart.hypervisor.memory import MemoryVm
from headstart.repository import collect, condemned, layout, pack, verify
from headstart.repository.collect import Order
from headstart.store.contract import Store
from tests.kit import events, orders
from tests.kit.orders import Actor, Choices, Step
from tests.kit.script import Collecting, Outage, Script
from tests.kit.world import BLOCK, NAME, World


def write(world: World, kind: str) -> None:
    for block in range(2):
        events.GuestWrite(0, block, kind).happen(world)  # type: ignore[arg-type]


def prepared(folder: Path) -> World:
    """What the backup that waits in the spool holds is garbage in the repository: of a snapshot that was forgotten."""
    world = World(MemoryVm({"a": 2 * BLOCK}, BLOCK), folder)
    write(world, "common")
    assert world.backup() is not None
    write(world, "fresh")
    assert world.backup() is not None
    oldest = world.snapshots()[0]
    world.forget(oldest)
    write(world, "common")
    assert world.backup(Script(outage=Outage(2)), Options(plain=True)) is None
    assert world.journal.completion(NAME) is not None
    world.journal.watcher = None
    return world


#: Of each actor: the steps that matter, how many come before, and after how many it may go on as it likes.
Part = tuple[Sequence[Step], int, int]


def courses(folder: Path, publishing: Part, collecting: Part) -> Iterator[str]:
    """Each course of a publisher and a collector, after which everything is as it should be."""
    choices = Choices()
    while True:
        world = prepared(folder)
        store = world.stores[0]
        (own, skipped, most), (theirs, before, at_most) = publishing, collecting
        publisher = Actor(store, own, functools.partial(publish, world), skipped=skipped, most=most)
        collector = Actor(store, theirs, sweep, skipped=before, most=at_most)
        course = "\n".join(orders.run(choices, [publisher, collector]))
        assert collector.error is None, (collector.error, course)
        assert publisher.error is None, (publisher.error, course)
        world.check_everything()
        sweep(store)
        world.check_everything()
        with world.repository() as repo:
            assert verify.verify_all(repo, lambda done, total: None).findings == (), course
        yield course
        if not choices.advance():
            return


def publish(world: World, store: Store) -> None:
    with repository.open(store, bytes) as repo:
        notes = cycle.finish(world._context(repo), NAME)
        assert notes and "was published" in notes[0], notes


def sweep(store: Store) -> None:
    """Condemned, and swept at once."""
    for _ in range(2):
        with repository.open(store, bytes) as repo:
            collect.collect(repo, Order(quarantine=0))


#: What a publisher tells, and what it looks at, from its claim on; and the same of a collector.
CLAIMING = (
    ("create", layout.DRAFTS),
    ("list", layout.DOOMED),
    ("list", layout.PACKS),
    ("create", layout.SNAPSHOTS),
)
DOOMING = (
    ("create", layout.DOOMED),
    ("modified", layout.DRAFTS),
    ("list", layout.SNAPSHOTS),
    ("delete", layout.PACKS),
    ("delete", layout.DOOMED),
)


def test_who_claims_and_who_dooms(tmp_path: Path) -> None:
    """The publisher has put everything before anything is condemned: it relies on packs that go."""
    seen: Counter[str] = Counter()
    right = losses.require_none

    def require_none(*arguments: Any) -> None:
        try:
            right(*arguments)
        except losses.Swept:
            seen["swept"] += 1
            raise

    with mock.patch.object(losses, "require_none", require_none):
        for course in courses(tmp_path, (CLAIMING, 5, 4), (DOOMING, 3, 8)):
            seen["courses"] += 1
            seen["claimed first"] += course.startswith("create drafts")
    assert seen["courses"] > 300 and seen["swept"] > 100 and seen["claimed first"] > 100, seen


def test_a_forgotten_base_costs_a_draft_nothing(tmp_path: Path) -> None:
    world = World(MemoryVm({"a": 12 * BLOCK}, BLOCK), tmp_path)
    events.GuestWrite(0, 3, "fresh").happen(world)
    assert world.backup() is not None
    events.GuestWrite(0, 3, "fresh").happen(world)
    assert world.precopy() is not None
    world.forget(world.snapshots()[0])
    for _ in range(3):
        world.collect(hasty=True)
    events.GuestWrite(0, 4, "fresh").happen(world)
    report = world.backup(options=Options(settle=False))
    assert report is not None
    [disk] = report.disks
    assert not disk.compared and disk.precopied_bytes == BLOCK and disk.residue_bytes == BLOCK
    world.check_everything()


def test_who_sleeps_past_his_lease_publishes_nothing_that_was_swept(tmp_path: Path) -> None:
    """The owner of the draft falls asleep before each creation of a run in turn, and a collector does all its work."""
    published = 0
    for number in range(1, 14):
        world = prepared(tmp_path)
        world.journal.watcher = world
        naps = tuple(Collecting(number, asleep=True, hasty=True) for _ in range(2))
        published += world.backup(Script(collecting=naps)) is not None
        world.check_everything()
        assert world.backup() is not None, "the next one begins anew"
        world.check_everything()
    assert 0 < published < 13, "some were too late, and some had nothing more to create"


def test_what_goes_is_not_told_as_lost(tmp_path: Path) -> None:
    """A store that keeps an index object keeps the list of doomed packs with it, for days."""
    world = World(MemoryVm({"a": 2 * BLOCK}, BLOCK), tmp_path)
    write(world, "fresh")
    assert world.backup() is not None
    write(world, "fresh")
    assert world.backup() is not None
    [oldest, _] = world.snapshots()
    world.forget(oldest)
    with world.repository() as repo:
        assert collect.collect(repo, Order(0)).condemned_packs
    store = world.stores[0]
    doomed = [key for key, _ in store.list(layout.PACKS)]
    indexes = {key: store.read(key) for key, _ in store.list(layout.INDEXES)}
    with world.repository() as repo:
        assert collect.collect(repo, Order(0)).deleted_packs
        left = dict(store.list(layout.PACKS))
        gone = [pack_id for key in doomed if key not in left and (pack_id := pack.id_of(key)) is not None]
        name = f"{layout.DOOMED}{'d' * 32}"
        repo.put_object(layout.Kind.DOOMED, name, condemned.encode(gone))
    for key in indexes.keys() - dict(store.list(layout.INDEXES)):
        store.create(key, indexes[key])
    report = world.backup()
    assert report is not None and not [note for note in report.notes if "lost" in note]
    world.check_everything()
