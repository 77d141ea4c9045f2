"""What a repair puts right, what it notes as lost, and that it never makes anything worse."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping

import pytest

from headstart import errors, repository
from headstart.repository import layout, lost, repair, snapshot, tree, verify
from headstart.repository.donor import Second
from headstart.repository.layout import ChunkClass
from headstart.repository.repair import Order, Report, Sources
from headstart.repository.repo import Repository
from headstart.store.contract import Refused
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import PASSWORD, FaultyStore
from tests.repository import aged, samples
from tests.repository.damages import MANIFESTS, OBJECTS, REMEMBERED, draw
from tests.repository.samples import Image, silent

IMAGES = {
    MANIFESTS[0].id: {"vda": aged.image(1000), "vdb": aged.image(2000)},
    MANIFESTS[1].id: {"vda": aged.image(3000)},
    MANIFESTS[2].id: {"vda": aged.image(1000), "vdb": aged.image(4000)},
}


def store_with(changed: Mapping[str, bytes | None]) -> MemoryStore:
    return aged.copy_of({name: data for name, data in {**OBJECTS, **changed}.items() if data is not None})


def repaired(store: MemoryStore, sources: Sources | None = None, *, dry_run: bool = False) -> Report:
    with aged.opened(store) as repo:
        return repair.run(repo, Order(10.0, REMEMBERED, sources or Sources(), dry_run), silent)


def findings(store: MemoryStore) -> list[str]:
    with aged.opened(store) as repo:
        return [finding.object for finding in verify.verify_all(repo, silent, REMEMBERED).findings]


def check_restores(store: MemoryStore, report: Report) -> None:
    """What is not named as lost is restored exactly, and nothing wrong ever is."""
    hurt = {(each.snapshot, each.name) for each in report.hurt}
    with aged.opened(store) as repo:
        for manifest in MANIFESTS:
            for disk in manifest.disks if manifest.id not in report.lost_snapshots else ():
                if (manifest.id, disk.name) in hurt:
                    with pytest.raises(errors.Damaged):
                        samples.restored(repo, disk)
                else:
                    assert samples.restored(repo, disk) == IMAGES[manifest.id][disk.name]


def packs(chunk_class: ChunkClass) -> list[str]:
    """The largest first, which snapshots need."""
    found = [name for name, data in OBJECTS.items() if name.startswith("packs/") and data[24] == chunk_class]
    return sorted(found, key=lambda name: -len(OBJECTS[name]))


def test_nothing_to_do() -> None:
    store = store_with({})
    report = repaired(store)
    assert (report.findings, report.mended, report.healed, report.hurt, report.loss) == ((), (), (), (), None)
    assert dict(store.list("")) == {name: len(data) for name, data in OBJECTS.items()}


@pytest.mark.parametrize("part", range(2))
def test_any_damage_without_help(part: int) -> None:
    """Afterwards verify finds nothing but what the repair said is lost, or could not be decided."""
    for seed in range(150 * part, 150 * part + 150):
        way, kind, changed = draw(random.Random(seed))
        store = store_with(changed)
        try:
            report = repaired(store)
        except (errors.Damaged, errors.WrongPassword):
            assert kind == "keys" or {"config", "twins/config"} & changed.keys(), (
                f"seed {seed}: {way} of {sorted(changed)}"
            )
            continue
        left = findings(store)
        if not report.hurt and not report.open:
            assert left == [], f"seed {seed}: {way} of {sorted(changed)}"
        assert set(report.open) <= set(left)
        if kind in ("keys", "indexes", "drafts", "losses"):
            assert not report.hurt
        check_restores(store, report)
        again = repaired(store)
        assert (again.mended, again.healed, again.loss, again.hurt) == ((), (), None, report.hurt)


def test_any_damage_with_a_copy_of_the_repository() -> None:
    for seed in range(500, 600):
        way, _, changed = draw(random.Random(seed))
        store = store_with(changed)
        with aged.opened(aged.copy_of(OBJECTS)) as mirror:
            try:
                report = repaired(store, Sources(mirrors=[mirror]))
            except (errors.Damaged, errors.WrongPassword):
                continue
        assert report.hurt == ()
        assert set(findings(store)) == set(report.open), f"seed {seed}: {way} of {sorted(changed)}"
        check_restores(store, report)


def test_content_is_healed_from_another_repository() -> None:
    """With other keys, and with the disk as it is today: changed somewhere."""
    store = store_with(dict.fromkeys(packs(ChunkClass.CONTENT)))
    other = aged.new_store()
    with aged.opened(other) as second:
        for manifest in MANIFESTS:
            images = dict(IMAGES[manifest.id])
            images["vda"] = Image(images["vda"].size, images["vda"].contents | {0: samples.noise(77, aged.BLOCK)})
            samples.add_snapshot(second, images, vm=manifest.vm)
        report = repaired(store, Sources(donors=[Second(second)]))
    assert report.healed
    [name] = {each.source for each in report.healed}
    assert name == "repository memory"
    assert {(each.snapshot, each.name) for each in report.hurt} >= {(MANIFESTS[0].id, "vda")}
    for each in report.hurt:
        assert each.name == "definition" or each.extents[0].start == 0, "but for the block that changed"
    check_restores(store, report)


def test_trees_are_healed_from_another_repository() -> None:
    store = store_with(dict.fromkeys(packs(ChunkClass.TREE)))
    other = aged.new_store()
    with aged.opened(other) as second:
        for manifest in MANIFESTS:
            samples.add_snapshot(second, IMAGES[manifest.id], vm=manifest.vm)
        report = repaired(store, Sources(donors=[Second(second)]))
    assert (report.hurt, findings(store)) == ((), [])
    check_restores(store, report)


def test_a_backup_after_a_repair_heals_by_storing_again() -> None:
    """It must not take what is lost for stored."""
    store = store_with(dict.fromkeys(packs(ChunkClass.CONTENT)))
    report = repaired(store)
    assert {each.snapshot for each in report.hurt} == {each.id for each in MANIFESTS}
    with aged.opened(store) as repo:
        assert snapshot_ids_hurt(repo) == {each.id for each in MANIFESTS}
        made = [samples.add_snapshot(repo, IMAGES[each.id], vm=each.vm, created=9.0) for each in MANIFESTS]
        assert snapshot_ids_hurt(repo) == set()
        for each, before in zip(made, MANIFESTS, strict=True):
            for disk in each.disks:
                assert samples.restored(repo, disk) == IMAGES[before.id][disk.name]
    assert findings(store) == []


def snapshot_ids_hurt(repo: Repository) -> set[str]:
    return set(lost.still_hurt(repo))


@pytest.mark.parametrize("listed", [True, False])
def test_a_pack_that_comes_back_was_not_lost(*, listed: bool) -> None:
    """A disk that was not mounted, or could not be read for a while: what was noted harms nothing."""
    gone = packs(ChunkClass.CONTENT)
    indexes = [name for name in OBJECTS if name.startswith(layout.INDEXES)]
    store = store_with(dict.fromkeys(gone) if listed else dict.fromkeys(gone, b"x") | dict.fromkeys(indexes))
    assert repaired(store).hurt
    for name in gone:
        store.delete(name)
        store.create(name, OBJECTS[name])
    with aged.opened(store) as repo:
        for manifest in MANIFESTS:
            for disk in manifest.disks:
                assert samples.restored(repo, disk) == IMAGES[manifest.id][disk.name]
    report = repaired(store)
    assert (report.hurt, [each.source for each in report.healed]) == ((), ["copies that were thought bad"])
    assert findings(store) == []


def test_a_dry_run_writes_nothing() -> None:
    victim = packs(ChunkClass.CONTENT)[0]
    store = store_with({victim: None, "config": None, f"twins/{MANIFESTS[0].id}": b""})
    before = dict(store.list(""))
    with aged.opened(aged.copy_of(OBJECTS)) as mirror:
        report = repaired(store, Sources(mirrors=[mirror]), dry_run=True)
    assert dict(store.list("")) == before
    assert {each.object for each in report.mended} == {"config", f"twins/{MANIFESTS[0].id}"}
    assert report.dry_run
    assert report.healed[0].chunks > 0


@pytest.mark.parametrize("number", range(1, 8))
def test_killed_anywhere_it_is_repeated(number: int) -> None:
    """The store fails at the n-th creation, before or after it did it."""
    victims = {packs(ChunkClass.CONTENT)[0]: None, f"snapshots/{MANIFESTS[0].id}": b"", "config": b""}
    for fault in (stores.fail, stores.lose):
        store = store_with(victims)
        faulty = FaultyStore(store)
        faulty.plan("create", fault(errors.StoreFailed("connection lost")), number=number)
        with aged.opened(aged.copy_of(OBJECTS)) as mirror:
            repo = repository.open(faulty, lambda: PASSWORD, to_mend=True)
            with repo, contextlib.suppress(errors.StoreFailed):
                repair.run(repo, Order(10.0, REMEMBERED, Sources(mirrors=[mirror])), silent)
            report = repaired(store, Sources(mirrors=[mirror]))
        assert (report.hurt, findings(store)) == ((), [])
        check_restores(store, report)


def test_both_manifest_and_twin_are_lost() -> None:
    gone = MANIFESTS[0].id
    store = store_with({f"snapshots/{gone}": b"x", f"twins/{gone}": None})
    report = repaired(store)
    assert (report.lost_snapshots, report.open) == ((gone,), (f"snapshots/{gone}",))
    with aged.opened(store) as repo:
        assert repo.index.all_losses()[-1].snapshots == (gone,)
        assert {each.id for each in snapshot.all_manifests(repo).manifests} == {each.id for each in MANIFESTS[1:]}
    check_restores(store, report)


def test_bad_copies_are_passed_over_where_there_is_a_good_one() -> None:
    """Also by an index that was loaded before."""
    victim = packs(ChunkClass.CONTENT)[0]
    store = store_with({victim: None})
    with aged.opened(store) as early, aged.opened(aged.copy_of(OBJECTS)) as mirror:
        assert early.missing([]) == []
        assert repaired(store, Sources(mirrors=[mirror])).hurt == ()
        early.holdings.refresh()
        for manifest in MANIFESTS:
            for disk in manifest.disks:
                assert samples.restored(early, disk) == IMAGES[manifest.id][disk.name]
                assert list(tree.walk(early, disk.root, disk.size))


class Guarded(MemoryStore):
    """Deletes nothing: a server whose hosts may not, credentials that may only add, or an immutable repository."""

    def delete(self, key: str) -> None:
        raise Refused(f"{key} may not be deleted.")


@pytest.mark.parametrize("manifest", [None, b"x"])
def test_what_may_not_be_deleted_holds_nothing_else_up(manifest: bytes | None) -> None:
    """Bad copies are noted, and what is missing is put back."""
    name, victim = f"snapshots/{MANIFESTS[0].id}", packs(ChunkClass.CONTENT)[0]
    store = Guarded()
    for each, data in (OBJECTS | {name: manifest, victim: None}).items():
        if data is not None:
            store.create(each, data)
    report = repaired(store)
    assert report.loss and report.hurt
    assert report.open == ((name,) if manifest else ())
    assert [each.object for each in report.mended] == ([] if manifest else [name])
    assert len(report.notes) == len(report.open)
    with aged.opened(store) as repo:
        assert repo.index.all_losses()[-1].copies == {bytes.fromhex(victim.removeprefix("packs/")): None}
