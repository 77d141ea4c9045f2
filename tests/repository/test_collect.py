"""Space is really freed, and nothing that somebody needs is: whatever is killed, asleep, or going on meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from headstart import errors, repository
from headstart.repository import (
    collect,
    condemned,
    draft,
    forget,
    hoard,
    immutable,
    label,
    layout,
    lease,
    lost,
    pack,
    reindex,
    repair,
    segment,
    snapshot,
    verify,
)
from headstart.repository.collect import Order, Report
from headstart.repository.config import Config
from headstart.repository.loss import Hurt, Loss
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.store.contract import Refused
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.clock import Clock
from tests.kit.stores import FaultyStore, LockingStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

DAY = 24 * 3600.0
SIZE = 16 * BLOCK


@dataclasses.dataclass
class Shop:
    """A store with a clock, and what each process would see of it."""

    clock: Clock
    store: FaultyStore
    #: Of this host's index.
    cache: Path | None = None

    def open(self) -> Repository:
        opened = repository.open(self.store, lambda: stores.PASSWORD)
        if self.cache is not None:
            opened.holdings.use_cache(self.cache)
        return opened

    def add(self, *seeds: int, vm: str = "web", created: float = 1000.5) -> Manifest:
        """A snapshot whose blocks have the content of these numbers."""
        with self.open() as repo:
            contents = {number: noise(seed) for number, seed in enumerate(seeds)}
            return samples.add_snapshot(repo, {"a": Image(SIZE, contents)}, vm, created)

    def forget(self, *forgotten: Manifest) -> None:
        with self.open() as repo:
            forget.forget(repo, forget.Order(now=2000.0, zone=UTC, ids=[each.id for each in forgotten]))

    def collect(
        self,
        quarantine: float = collect.QUARANTINE,
        *,
        dry_run: bool = False,
        progress: collect.Progress = collect.quiet,
    ) -> Report:
        with self.open() as repo:
            return collect.collect(repo, Order(quarantine, dry_run), progress)

    def sweep(self) -> Report:
        """All that can be freed now."""
        for _ in range(3):
            report = self.collect(0)
        return report

    def hide(self, *chunk_ids: bytes) -> None:
        assert self.cache is not None
        with self.open() as repo:
            samples.hide(self.cache, repo, *chunk_ids)

    def check(self, manifest: Manifest, *seeds: int) -> None:
        """Everything in it is what it was."""
        with self.open() as repo:
            found = samples.restored(repo, snapshot.load(repo, manifest.id).disks[0])
            assert found.contents == {number: noise(seed) for number, seed in enumerate(seeds)}

    def repair(self) -> repair.Report:
        with self.open() as repo:
            return repair.run(repo, repair.Order(3000.0), samples.silent)

    def trees(self) -> set[str]:
        """Packs of nodes."""
        return {name for name in self.names(layout.PACKS) if self.store.read(name)[24] == layout.ChunkClass.TREE}

    def take_away(self, names: Iterable[str]) -> dict[str, bytes]:
        gone = {name: self.store.read(name) for name in names}
        for name in gone:
            self.store.delete(name)
        return gone

    def require_whole(self) -> None:
        with self.open() as repo:
            assert verify.verify_all(repo, lambda done, total: None).findings == ()

    def bytes(self) -> int:
        return sum(size for _, size in self.store.list(layout.PACKS))

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name, _ in self.store.list(prefix))


@pytest.fixture
def shop(small_packs: int) -> Iterator[Shop]:
    clock = Clock(1_700_000_000.0)
    store = FaultyStore(MemoryStore(clock))
    with stores.new_repository(store):
        yield Shop(clock, store)


def test_nothing_is_garbage(shop: Shop) -> None:
    kept = shop.add(1, 2, 3)
    before = shop.names("")
    report = shop.sweep()
    assert (report.condemned_packs, report.deleted_packs) == (0, 0)
    assert shop.names("") == before, "and nothing was left behind"
    shop.check(kept, 1, 2, 3)


def test_the_space_of_a_forgotten_snapshot_is_freed_after_the_quarantine(shop: Shop) -> None:
    kept = shop.add(1, 2, 3)
    before = shop.bytes()
    gone = shop.add(*range(10, 22))
    assert shop.bytes() > before + 11 * BLOCK
    shop.forget(gone)
    shop.clock.sleep(DAY)
    report = shop.collect()
    assert report.condemned_bytes > 11 * BLOCK and report.deleted_packs == 0
    shop.clock.sleep(DAY - 1)
    assert shop.collect().deleted_packs == 0, "not before"
    shop.clock.sleep(1)
    report = shop.collect()
    assert report.freed_bytes > 11 * BLOCK
    assert shop.bytes() == before
    assert not shop.names(layout.CONDEMNED) and not shop.names(layout.DOOMED) and not shop.names(layout.LEASES)
    shop.check(kept, 1, 2, 3)
    shop.require_whole()


def test_what_is_shared_stays(shop: Shop) -> None:
    gone = shop.add(1, 2, 3, 4, 5, 6)
    kept = shop.add(1, 2, 7, 4, 5, 6)
    shop.forget(gone)
    shop.sweep()
    shop.check(kept, 1, 2, 7, 4, 5, 6)
    shop.require_whole()


def test_a_pack_of_which_little_is_needed_is_repacked(shop: Shop) -> None:
    gone = shop.add(1, 2, 3)
    kept = shop.add(2, vm="other")
    before = shop.bytes()
    shop.forget(gone)
    report = shop.collect(0)
    assert report.repacked_packs >= 1 and report.condemned_packs >= 1
    report = shop.collect(0)
    assert report.deleted_packs >= 1 and report.repacked_packs == 0
    assert shop.bytes() < before - BLOCK
    shop.check(kept, 2)
    shop.require_whole()


def test_a_new_pack_is_left_alone(shop: Shop) -> None:
    """A run that is under way has listed it nowhere yet."""
    with shop.open() as repo, repo.writer(samples.ignore) as writer:
        samples.put(repo, writer, {0: noise(1)})
    assert shop.collect().condemned_packs == 0
    shop.clock.sleep(DAY)
    assert shop.collect().condemned_packs == 1


def test_nothing_new_is_built_on_what_is_condemned(shop: Shop) -> None:
    gone = shop.add(1, 2, 3)
    shop.forget(gone)
    shop.collect(0)
    again = shop.add(1, 2, 3)
    report = shop.collect(0)
    assert report.freed_bytes and not report.repacked_bytes, "all of it was stored anew, so nothing is needed of it"
    shop.check(again, 1, 2, 3)
    shop.require_whole()


def test_a_run_that_did_not_know_is_not_harmed(shop: Shop) -> None:
    """It took for stored what was condemned meanwhile, and publishes before it is deleted."""
    gone = shop.add(1, 2, 3)
    shop.forget(gone)
    with shop.open() as repo:
        assert samples.known(repo) > 0
        repo.refresh = None  # type: ignore[attr-defined]
        with repo.writer(samples.ignore) as writer:
            shop.collect(0)
            samples.put(repo, writer, {0: noise(1), 1: noise(2), 2: noise(3)})
        made = samples.add_snapshot(repo, {"a": Image(SIZE, {number: noise(number + 1) for number in range(3)})})
    shop.sweep()
    shop.check(made, 1, 2, 3)
    shop.require_whole()


def test_a_living_draft_keeps_what_it_lists_and_a_dead_one_is_revoked_first(shop: Shop) -> None:
    with shop.open() as repo:
        with repo.writer(samples.ignore) as writer:
            ids = samples.put(repo, writer, {0: noise(1), 1: noise(2)})
        made = draft.begin(repo, "web", "host", 1.0)
        draft.record(repo, made, 1, 2.0, (), {"a": list(ids.items())})
    shop.clock.sleep(lease.DEAD_SECONDS)
    shop.sweep()
    with shop.open() as repo:
        assert not repo.missing(ids.values())
    shop.clock.sleep(1)
    report = shop.collect(0)
    assert report.revoked == [made.id] and report.condemned_packs == 1
    assert not shop.names(layout.DRAFTS)
    with shop.open() as repo:
        with pytest.raises(snapshot.Revoked):
            snapshot.publish(repo, dataclasses.replace(shop_manifest(), id=made.id))
        with pytest.raises(snapshot.Revoked):
            draft.record(repo, made, 2, 3.0)


def shop_manifest() -> Manifest:
    return Manifest(snapshot.new_id(), "web", 1.0, None, "crash", "host", "installation", ())


def killed_before_the_twin(shop: Shop) -> Manifest:
    """Published by a run that did not come to its twin, nor ever comes back."""
    made = shop.add(1, 2)
    with shop.open() as repo:
        draft.begin(repo, "web", "host", 1.0, made.id)
    shop.store.delete(snapshot.twin_of(made.id))
    shop.clock.sleep(lease.DEAD_SECONDS + 1)
    return made


def test_what_a_dead_run_published_gets_its_twin_before_its_draft_goes(shop: Shop) -> None:
    made = killed_before_the_twin(shop)
    shop.require_whole()
    assert shop.collect().revoked == []
    assert not shop.names(layout.DRAFTS)
    shop.require_whole()
    shop.check(made, 1, 2)


def test_a_twin_that_says_something_else_holds_nobody_up(shop: Shop) -> None:
    made = killed_before_the_twin(shop)
    with shop.open() as repo:
        repo.put_object(layout.Kind.TWIN, snapshot.twin_of(made.id), snapshot._TOMBSTONE)
    assert shop.collect().drafts == 1, "it is for a repair"
    shop.check(made, 1, 2)


def test_what_a_dead_run_published_and_cannot_be_read_is_for_a_repair(shop: Shop) -> None:
    made, kept = killed_before_the_twin(shop), shop.add(3, vm="other")
    samples.rewrite(shop.open(), snapshot.key_of(made.id), b"x")
    with pytest.raises(errors.Damaged, match="headstart repair"):
        shop.collect()
    assert shop.repair().lost_snapshots == (made.id,)
    shop.sweep()
    shop.check(kept, 3)


@pytest.fixture
def rotting(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Shop, list[Manifest], Manifest]:
    """A snapshot in a pack of little else, one in a pack of its own, one that is garbage; a cache knows of all."""
    monkeypatch.setattr(hoard, "KEPT_OBJECTS", 1)
    monkeypatch.setattr(hoard, "KEPT_CHUNKS", 1)
    shop.cache = tmp_path / "cache"
    kept = [shop.add(1)]
    gone = shop.add(*range(2, 12), created=1001.5)
    kept.append(shop.add(2, created=1002.5))
    shop.forget(gone)
    with shop.open() as repo:
        assert samples.known(repo) > 10
    return shop, kept, gone


@pytest.mark.parametrize("when", ["before", "marking", "sweeping", "looking for garbage", "repacking"])
@pytest.mark.parametrize("what", ["content", "nodes"])
def test_a_damaged_cache_makes_nothing_garbage(
    rotting: tuple[Shop, list[Manifest], Manifest], what: str, when: str
) -> None:
    """Whenever it rots: before this, or at any step of it."""
    shop, kept, _ = rotting
    with shop.open() as repo:
        content = samples.ids_of(repo, 1, 2)
    nodes = [root for each in kept if (root := each.disks[0].root) is not None]
    harmed: list[str] = []

    def rot(step: str) -> None:
        if step == when and len(harmed) < 2:
            harmed.append(step)
            shop.hide(*(content if what == "content" else nodes))

    for _ in range(4):
        rot("before")
        with contextlib.suppress(errors.Damaged):  # a node that was hidden while it was marked: nothing was deleted
            shop.collect(0, progress=rot)
    assert harmed
    shop.cache = None
    shop.check(kept[0], 1)
    shop.check(kept[1], 2)
    shop.require_whole()
    assert not shop.names(layout.CONDEMNED) and not shop.names(layout.DOOMED)
    assert shop.bytes() < 4 * BLOCK, "and what is garbage was freed"


@pytest.mark.parametrize("when", ["garbage", "condemned"])
def test_what_a_cache_hides_is_kept_by_the_word_of_its_pack(
    rotting: tuple[Shop, list[Manifest], Manifest], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nobody finds out that it is damaged."""
    shop, kept, _ = rotting
    monkeypatch.setattr(segment.Segment, "is_sound", lambda self: True)
    with shop.open() as repo:
        content = samples.ids_of(repo, 1, 2)
        found = [repo.index.find(each) for each in content]
        if when == "condemned":  # by a run to whom it was garbage
            packs = [location.pack_id for location in found if location is not None]
            repo.put_object(layout.Kind.CONDEMNED, f"{layout.CONDEMNED}{'c' * 32}", condemned.encode(packs))
    shop.hide(*content)
    for _ in range(3):
        shop.collect(0)
    shop.cache = None
    shop.check(kept[0], 1)
    shop.check(kept[1], 2)
    shop.require_whole()


def test_a_cache_that_rots_again_and_again_ends_it(rotting: tuple[Shop, list[Manifest], Manifest]) -> None:
    shop, kept, _ = rotting
    assert shop.collect(0).condemned_packs
    with shop.open() as repo:
        content = samples.ids_of(repo, 1)
    doomed = shop.bytes()
    with pytest.raises(errors.StoreFailed, match="Remove the cache"):
        shop.collect(0, progress=lambda step: shop.hide(*content) if step == "sweeping" else None)
    assert shop.bytes() >= doomed, "nothing was deleted"
    shop.check(kept[0], 1)
    shop.require_whole()


def test_a_sign_of_life_is_enough(shop: Shop) -> None:
    with shop.open() as repo:
        made = draft.begin(repo, "web", "host", 1.0)
        for number in range(1, 4):
            shop.clock.sleep(lease.DEAD_SECONDS)
            draft.record(repo, made, number, 1.0)
            assert shop.collect().revoked == []


def test_what_a_draft_is_built_on_stays_after_its_snapshot_was_forgotten(shop: Shop) -> None:
    base = shop.add(1, 2, 3)
    with shop.open() as repo:
        disk = base.disks[0]
        draft.begin(repo, "web", "host", 1.0, roots=[Root(base.id, disk.name, disk.size, disk.root)])
    shop.forget(base)
    shop.sweep()
    with shop.open() as repo:
        assert samples.restored(repo, disk).contents == {number: noise(number + 1) for number in range(3)}


def test_what_is_being_read_stays(shop: Shop) -> None:
    base = shop.add(1, 2, 3)
    disk = base.disks[0]
    with shop.open() as repo:
        with lease.reading(repo, "restore", [Root(base.id, disk.name, disk.size, disk.root)], []) as held:
            assert held
            shop.forget(base)
            shop.sweep()
            assert samples.restored(shop.open(), disk).contents
        assert not shop.names(layout.LEASES)
    shop.sweep()
    with shop.open() as repo, pytest.raises(errors.Damaged):
        samples.restored(repo, disk)


def test_a_reader_that_knows_of_old_places_only_finds_the_new_ones(shop: Shop) -> None:
    gone = shop.add(1, 2, 3)
    kept = shop.add(2, vm="other")
    with shop.open() as repo:
        assert samples.known(repo) > 0
        shop.forget(gone)
        shop.sweep()
        assert samples.restored(repo, kept.disks[0]).contents == {0: noise(2)}


def test_a_reader_looks_where_no_index_lists_it(shop: Shop) -> None:
    """A run listed what had been swept meanwhile, and the index object of what it stored then was lost."""
    made = shop.add(1)
    with shop.open() as repo, repo.writer(samples.ignore) as writer:
        repo.holdings.set_aside(repo.index.packs())
        samples.put(repo, writer, {0: noise(1)})
        before = shop.names(layout.INDEXES)
    [listed] = set(shop.names(layout.INDEXES)) - set(before)
    shop.store.delete(listed)
    with shop.open() as repo:
        location = repo.index.find(repo.chunk_id(noise(1)))
        assert location is not None and location.pack_id.hex() not in writer.packs
        shop.store.delete(pack.pack_key(location.pack_id))
    with shop.open() as repo:
        assert samples.restored(repo, made.disks[0]).contents == {0: noise(1)}


def test_who_cannot_write_reads_without_a_lease(shop: Shop) -> None:
    shop.store.plan("create", stores.fail(errors.StoreFailed("read-only")), layout.LEASES)
    with shop.open() as repo, lease.reading(repo, "restore", [], []) as held:
        assert not held


def test_packs_that_an_owner_claims_stay_as_a_whole(shop: Shop) -> None:
    with shop.open() as repo:
        with repo.writer(samples.ignore) as writer:
            ids = samples.put(repo, writer, {0: noise(1), 1: noise(2)})
        made = draft.begin(repo, "web", "host", 1.0)
        draft.record(repo, made, 1, 2.0, writer.packs)
    shop.sweep()
    with shop.open() as repo:
        assert not repo.missing(ids.values()) and not repo.drop_lost()


def test_one_collects_at_a_time(shop: Shop) -> None:
    with shop.open() as repo, lease.collecting(repo, "gc"):
        with pytest.raises(lease.Held, match="gc"):
            shop.collect()
        with pytest.raises(errors.Locked):
            shop.forget()
    shop.collect()


def moved(shop: Shop) -> Manifest:
    """A snapshot of which one chunk was copied into another pack, because that which it is in is to go."""
    gone, kept = shop.add(*range(10)), shop.add(0, created=1001.5)
    shop.forget(gone)
    assert shop.collect(0).repacked_packs
    return kept


def rot_new_copy(shop: Shop) -> None:
    with shop.open() as repo:
        found = repo.index.find(repo.chunk_id(noise(0)))
        assert found is not None
        name = pack.pack_key(found.pack_id)
        samples.rewrite(repo, name, samples.flipped(shop.store.read(name), [found.frame.offset + 20]))


def test_nobody_repairs_meanwhile(shop: Shop) -> None:
    """Of two copies the new one rots, and the old one is about to be deleted by who marked the new one before."""
    kept = moved(shop)
    rot_new_copy(shop)

    def beside(step: str) -> None:
        if step == "marking":
            with pytest.raises(lease.Held, match="gc"):
                shop.repair()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        shop.collect(0, progress=beside)
    with shop.open() as repo:

        def verifying(done: int, total: int) -> None:
            with pytest.raises(lease.Held, match="repair"):
                shop.collect(0)

        assert repair.run(repo, repair.Order(3000.0), verifying).hurt == ()
        assert repair.run(repo, repair.Order(3000.0, dry_run=True), samples.silent).hurt == ()
    shop.sweep()
    shop.check(kept, 0)


@pytest.mark.parametrize("slept", [True, False])
def test_a_loss_that_is_noted_meanwhile_is_heeded(shop: Shop, *, slept: bool) -> None:
    """The copy that was marked is bad, and the good one is about to be deleted."""
    kept = moved(shop)
    rot_new_copy(shop)
    noted: list[str] = []

    def beside(step: str) -> None:
        if step == "repacking" and not noted:
            noted.append(step)
            if slept:
                shop.clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)
                assert shop.repair().hurt == ()
            else:
                with shop.open() as repo:
                    lose(repo, repo.chunk_id(noise(0)))

    with pytest.raises(lease.Held, match="asleep") if slept else contextlib.nullcontext():
        shop.collect(0, progress=beside)
    assert noted
    shop.sweep()
    shop.check(kept, 0)


def test_a_pack_that_could_not_be_read_for_a_moment_is_not_deleted_unread(shop: Shop) -> None:
    """It is in no index any longer, and has the only good copy."""
    kept = moved(shop)
    rot_new_copy(shop)
    with shop.open() as repo:
        chunk = repo.chunk_id(noise(0))
        lose(repo, chunk)
        found = repo.index.find(chunk)
        assert found is not None
        for name in shop.names(layout.INDEXES):
            if found.pack_id in {each.pack_id for each in repo.holdings.read_listed(name)[1].packs}:
                shop.store.delete(name)
    name = pack.pack_key(found.pack_id)
    for number in range(1, 3):
        shop.store.plan("read_range", stores.fail(errors.Damaged("away", object=name)), name, number)
    shop.collect(0)
    assert shop.store.count("read_range", name) > 1
    shop.sweep()
    shop.check(kept, 0)


@pytest.mark.parametrize("killed", [True, False])
def test_nobody_believes_in_copies_that_were_deleted(shop: Shop, *, killed: bool) -> None:
    """While index objects list them still: their collector was killed, or the store keeps these objects."""
    kept = moved(shop)
    if killed:
        shop.store.plan("create", stores.fail(Ended()), layout.INDEXES)
    else:
        for number in range(1, 3):
            shop.store.plan("delete", stores.fail(Refused("immutable")), layout.INDEXES, number)
    with contextlib.suppress(Ended):
        shop.collect(0)
    shop.clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)
    assert shop.names(layout.DOOMED)
    rot_new_copy(shop)
    if not killed:
        with shop.open() as repo:
            lose(repo, repo.chunk_id(noise(0)))
            assert lost.of_disk(repo, kept.disks[0]).blocks
    assert [each.snapshot for each in shop.repair().hurt] == [kept.id]


def test_a_collector_that_was_killed_holds_nobody_up_for_long(shop: Shop) -> None:
    with shop.open() as repo:
        lease._take(repo, lease.Lease(lease._COLLECTOR, "host", "gc"))
    with pytest.raises(lease.Held):
        shop.collect()
    shop.clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)
    shop.collect()
    assert not shop.names(layout.LEASES)


def test_what_was_made_while_the_clock_of_the_store_was_ahead_is_old(shop: Shop) -> None:
    now = shop.clock.now
    shop.clock.sleep(9 * 365 * DAY)
    shop.forget(shop.add(1, 2, 3))
    assert shop.collect(0).condemned_packs
    shop.forget(shop.add(4, 5, 6))
    with shop.open() as repo:
        lease._take(repo, lease.Lease(lease._COLLECTOR, "host", "gc"))
    shop.clock.now = now
    report = shop.collect()
    assert report.deleted_packs and report.condemned_packs


def test_a_dry_run_writes_nothing_and_tells_the_same(shop: Shop) -> None:
    gone = shop.add(1, 2, 3)
    shop.add(2, vm="other")
    with shop.open() as repo:
        draft.begin(repo, "web", "host", 1.0)
        reader = lease.Lease("ab" * 16, "host", "restore")
        repo.put_object(layout.Kind.LEASE, lease.key_of(reader.id, 0), lease.encode(reader))
    shop.forget(gone)
    shop.clock.sleep(lease.DEAD_SECONDS + 1)
    before, changes = shop.names(""), shop.store.count("create") + shop.store.count("delete")
    told = shop.collect(dry_run=True)
    assert shop.names("") == before
    assert shop.store.count("create") + shop.store.count("delete") == changes
    done = shop.collect()
    assert not shop.names(layout.LEASES)
    assert (told.condemned_packs, told.revoked) == (done.condemned_packs, done.revoked)
    shop.clock.sleep(DAY)
    told, done = shop.collect(dry_run=True), shop.collect()
    assert (told.deleted_packs, told.freed_bytes) == (done.deleted_packs, done.freed_bytes) != (0, 0)


def test_nothing_is_deleted_where_it_cannot_be_told_what_is_needed(shop: Shop) -> None:
    shop.forget(shop.add(1, 2, 3))
    shop.collect(0)
    kept = shop.add(4, 5)
    for name in (snapshot.key_of(kept.id), snapshot.twin_of(kept.id)):
        samples.rewrite(shop.open(), name, samples.flipped(shop.store.read(name), [40]))
    packs = shop.names(layout.PACKS)
    with pytest.raises(errors.Damaged, match="nothing was deleted"):
        shop.collect(0)
    assert shop.names(layout.PACKS) == packs


def test_a_snapshot_whose_manifest_was_lost_is_kept_by_its_twin(shop: Shop) -> None:
    kept = shop.add(4, 5)
    data = shop.store.read(snapshot.key_of(kept.id))
    shop.store.delete(snapshot.key_of(kept.id))
    shop.sweep()
    shop.store.create(snapshot.key_of(kept.id), data)
    shop.check(kept, 4, 5)


def lose(repo: Repository, chunk: bytes, *hurt: Hurt) -> None:
    """As a repair notes it."""
    found = repo.index.find(chunk)
    assert found is not None
    repo.holdings.lose(Loss("ab" * 16, 1.0, {found.pack_id: frozenset({chunk})}, hurt=hurt))
    repo.holdings.write()


def test_a_snapshot_that_was_noted_as_lost_and_came_back_is_needed(shop: Shop) -> None:
    """Neither of its two could be read when it was repaired: the disk of one of them was away."""
    hurt, kept = shop.add(1, 2, 3, 4), shop.add(11, 12, created=1001.5)
    own, twin = snapshot.key_of(hurt.id), snapshot.twin_of(hurt.id)
    away = shop.take_away([own, twin])
    for name in away:
        shop.store.create(name, b"unreadable")
    assert shop.repair().lost_snapshots == (hurt.id,)
    samples.rewrite(shop.open(), twin, away[twin])
    shop.sweep()
    assert shop.repair().hurt == ()
    shop.check(hurt, 1, 2, 3, 4)
    shop.check(kept, 11, 12)


@pytest.mark.parametrize("chunks", ["other", "node", "too many"])
def test_what_was_lost_once_does_not_excuse_what_is_away_now(shop: Shop, chunks: str) -> None:
    """Not even if it was that very node: it was healed meanwhile."""
    shop.add(1, vm="old")
    before = shop.trees()
    kept = shop.add(4, 5, 6)
    with shop.open() as repo:
        [disk] = kept.disks
        assert disk.root is not None
        named = {"other": repo.chunk_id(noise(1)), "node": disk.root, "too many": None}[chunks]
        lose(repo, repo.chunk_id(noise(1)), Hurt(kept.id, kept.vm, "a", (), None if named is None else (named,)))
    away = shop.take_away(shop.trees() - before)
    packs = shop.names(layout.PACKS)
    for _ in range(2):
        with pytest.raises(errors.Damaged, match="nothing was deleted"):
            shop.collect(0)
    assert shop.names(layout.PACKS) == packs
    for name, data in away.items():
        shop.store.create(name, data)
    shop.sweep()
    shop.check(kept, 4, 5, 6)


def test_below_what_a_repair_noted_as_lost_nothing_is_needed(shop: Shop) -> None:
    kept = shop.add(4, vm="other")
    before = shop.trees()
    hurt = shop.add(1, 2, 3)
    shop.take_away(shop.trees() - before)
    assert [each.snapshot for each in shop.repair().hurt] == [hurt.id]
    assert shop.repair().loss is None, "noted once"
    shop.collect(0)
    assert shop.collect(0).deleted_packs > 0
    shop.check(kept, 4)


def test_what_a_draft_holds_does_not_hide_what_a_snapshot_misses(shop: Shop) -> None:
    """The root is there, and the leaf below it is in a pack that is away."""
    size, far = 2048 * BLOCK, 1024
    with shop.open() as repo:
        gone = samples.add_snapshot(repo, {"a": Image(size, {0: noise(1)})})
    leaf = shop.trees()
    with shop.open() as repo:
        kept = samples.add_snapshot(repo, {"a": Image(size, {0: noise(1), far: noise(2)})})
    shop.forget(gone)
    with shop.open() as repo:
        [disk] = kept.disks
        draft.begin(repo, "web", "host", 1.0, roots=[Root(kept.id, disk.name, disk.size, disk.root)])
    shop.take_away(leaf)
    with pytest.raises(errors.Damaged, match="nothing was deleted"):
        shop.collect(0)


def test_a_node_that_no_index_ever_listed_is_noted_as_lost(shop: Shop) -> None:
    """Its pack is gone, with the index object that listed it: no copy of it is known to be bad."""
    shop.add(4, vm="other")
    before, listed = shop.trees(), set(shop.names(layout.INDEXES))
    hurt = shop.add(1, 2, 3)
    shop.take_away({*shop.trees() - before, *set(shop.names(layout.INDEXES)) - listed})
    with pytest.raises(errors.Damaged, match="headstart repair"):
        shop.collect(0)
    assert shop.repair().loss is not None
    shop.collect(0)
    with shop.open() as repo:
        assert lost.of_disk(repo, hurt.disks[0]).blocks


def healed(shop: Shop) -> Manifest:
    """A snapshot with a copy that is bad, noted, and stored again."""
    made = shop.add(1, 2)
    with shop.open() as repo:
        chunk = repo.chunk_id(noise(1))
        found = repo.index.find(chunk)
        assert found is not None
        name = pack.pack_key(found.pack_id)
        samples.rewrite(repo, name, samples.flipped(shop.store.read(name), [found.frame.offset + 100]))
        lose(repo, chunk)
        with repo.writer(samples.ignore) as writer:
            samples.put(repo, writer, {0: noise(1)})
    return made


@pytest.mark.parametrize("linked", ["by an index object", "by a manifest"])
@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_without_a_loss_nothing_is_deleted_until_it_was_noted_again(shop: Shop, how: str, linked: str) -> None:
    """The bad copy would pass for the one that is kept."""
    kept = healed(shop)
    if linked == "by a manifest":
        with shop.open() as repo:
            for name in shop.names(layout.INDEXES):
                if any(each.name.startswith(layout.LOSSES) for each in repo.holdings.read_listed(name)[1].links):
                    shop.store.delete(name)
        with shop.open() as repo:
            made = snapshot.publish(repo, shop_manifest())
            assert any(each.name.startswith(layout.LOSSES) for each in made.links)
    [name] = shop.names(layout.LOSSES)
    data = shop.store.read(name)
    shop.store.delete(name)
    if how == "damaged":
        shop.store.create(name, b"x" + data[1:])
    packs = shop.names(layout.PACKS)
    for _ in range(2):
        with pytest.raises(errors.Damaged, match=r"Without it .* 'headstart repair'"):
            shop.collect(0)
    assert shop.names(layout.PACKS) == packs
    shop.repair()
    shop.sweep()
    shop.check(kept, 1, 2)
    shop.require_whole()


def test_a_damaged_loss_stays_given_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the index object that says so is gathered with others, more than once."""
    monkeypatch.setattr(reindex, "_SMALL_COUNT", 3)
    kept = healed(shop)
    [name] = shop.names(layout.LOSSES)
    samples.rewrite(shop.open(), name, b"x")
    shop.repair()
    for first in (100, 200, 300):
        for number in range(3):
            shop.add(first + number, vm="other")
        shop.collect()
        shop.require_whole()
    shop.check(kept, 1, 2)


def test_a_pack_that_cannot_be_deleted_yet_is_tried_again(shop: Shop) -> None:
    """A lock of the store's, for example. Nobody builds on it meanwhile."""
    shop.forget(shop.add(1, 2, 3))
    shop.collect(0)
    shop.store.plan("delete", stores.fail(errors.StoreFailed("locked")), layout.PACKS)
    report = shop.collect(0)
    [(name, why)] = report.kept.items()
    assert why == "locked" and name in shop.names(layout.PACKS)
    with shop.open() as repo:
        repo.holdings.refresh()
        assert pack.id_of(name) in repo.index.doomed
    assert shop.collect(0).deleted_packs == 1
    assert not shop.names(layout.DOOMED)


def test_who_verifies_meanwhile_misses_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, kept = shop.add(1, 2, 3, 4), shop.add(2, vm="other")
    with shop.open() as repo:
        assert samples.known(repo) > 0
        right = verify._Check.read

        def read(check: verify._Check, *how: Any) -> None:
            shop.forget(gone)
            shop.sweep()
            right(check, *how)

        monkeypatch.setattr(verify._Check, "read", read)
        assert verify.verify_all(repo, lambda done, total: None).findings == ()
    shop.check(kept, 2)


def test_what_an_unreadable_index_object_lists_is_not_missed_later(shop: Shop) -> None:
    shop.forget(shop.add(1, 2, 3))
    shop.collect(0)
    listed = {name: shop.store.read(name) for name in shop.names(layout.INDEXES)}
    with shop.open() as repo:
        for name in listed:
            samples.rewrite(repo, name, b"x")
        assert shop.collect(0).deleted_packs
        for name, data in listed.items():
            samples.rewrite(repo, name, data)
    shop.require_whole()
    shop.sweep()
    assert not shop.names(layout.DOOMED)


def test_many_small_index_objects_become_few(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindex, "_CHUNKS", 50)
    made = [shop.add(seed, created=float(seed)) for seed in range(1, 41)]
    before = len(shop.names(layout.INDEXES))
    shop.collect()
    assert 1 < len(shop.names(layout.INDEXES)) < before // 8
    shop.require_whole()
    for number, each in enumerate(made):
        shop.check(each, number + 1)


def test_without_the_secret_of_content(shop: Shop) -> None:
    gone, kept = shop.add(1, 2, 3, 4), shop.add(2, vm="other")
    shop.forget(gone)
    for _ in range(2):
        with (
            shop.open() as whole,
            Repository(
                shop.store, whole.secrets.structure_alone(), Config(whole.secrets.repository_id, BLOCK), encrypted=True
            ) as repo,
        ):
            report = collect.collect(repo, Order(0))
    assert report.deleted_packs > 0
    shop.check(kept, 2)
    shop.require_whole()


def test_of_two_copies_the_lost_one_is_not_kept(shop: Shop) -> None:
    for number in range(8):  # one of the two comes first in the index, by chance
        with shop.open() as one, shop.open() as other:
            assert samples.known(one) == samples.known(other)
            image = {"a": Image(SIZE, {0: noise(100 + number)})}
            with one.writer(samples.ignore) as first, other.writer(samples.ignore) as second:
                samples.put(one, first, image["a"].contents)
                samples.put(other, second, image["a"].contents)
        made = samples.add_snapshot(shop.open(), image)
        shop.store.delete(layout.PACKS + first.packs[0])
        shop.sweep()
        with shop.open() as repo:
            assert samples.restored(repo, made.disks[0]).contents == image["a"].contents


def test_a_draft_that_came_too_late_holds_nobody_up(shop: Shop) -> None:
    """Its base was swept before it said that it needs it. Its owner will find out."""
    base = shop.add(1, 2, 3)
    shop.forget(base)
    shop.sweep()
    with shop.open() as repo:
        disk = base.disks[0]
        draft.begin(repo, "web", "host", 1.0, roots=[Root(base.id, disk.name, disk.size, disk.root)])
    shop.collect()


def test_what_the_store_has_locked_is_not_condemned(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting it would only hide it."""
    shop.forget(shop.add(1, 2, 3))
    until = shop.clock() + 10

    class Locked:
        def available(self) -> bool:
            return True

        def locked_until(self, key: str) -> float:
            assert key.startswith(layout.PACKS)
            return until

    monkeypatch.setattr(shop.store, "locks", Locked)
    assert shop.collect(0).condemned_packs == 0
    shop.clock.sleep(11)
    assert shop.collect(0).condemned_packs > 0


class Lasting(LockingStore):
    """Does not delete what is locked, as a server of ours."""

    def delete(self, key: str) -> None:
        if self.until.get(key, 0.0) > self.clock():
            raise Refused(f"{key} is immutable.")
        super().delete(key)


@pytest.fixture
def lasting(small_packs: int, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Immutable for four days, and locked for five."""
    monkeypatch.setattr(reindex, "_SMALL_COUNT", 3)
    clock = Clock(1_700_000_000.0)
    store = FaultyStore(Lasting(clock))
    repository.create(store, stores.PASSWORD, cost=stores.QUICK, immutable_days=4).close()
    return Shop(clock, store)


def test_index_objects_that_the_store_keeps_hold_nobody_up(lasting: Shop) -> None:
    shop = lasting
    gone = shop.add(*range(10, 15), created=shop.clock.now)
    size = shop.bytes()
    indexes, doomed = [], []
    for day in range(14):
        kept = shop.add(day % 2, created=shop.clock.now)
        with shop.open() as repo:
            immutable.extend(repo, shop.clock.now)
        shop.clock.sleep(DAY)
        if day == 5:
            shop.forget(gone)
        assert shop.collect().kept == {}
        indexes.append(len(shop.names(layout.INDEXES)))
        doomed.append(len(shop.names(layout.DOOMED)))
        if doomed[-1]:
            shop.require_whole()
    assert shop.bytes() < size, "its packs are gone since its lock ended"
    assert max(doomed) == 1 and not doomed[-1], "and what listed them, days later"
    assert max(indexes) <= 10
    shop.check(kept, 1)


def test_an_unreadable_list_is_done_without(shop: Shop) -> None:
    """Nobody publishes while it cannot be told what is being deleted; the next collector puts that right."""
    kept = shop.add(4)
    shop.forget(shop.add(1, 2, 3))
    shop.store.create(layout.DOOMED + "ab" * 16, b"HDSTRTX\1 nonsense")
    with shop.open() as repo, pytest.raises(errors.StoreFailed, match="headstart gc"):
        repo.drop_lost()
    shop.sweep()
    with shop.open() as repo:
        assert repo.drop_lost() == set()
    shop.check(kept, 4)
    shop.require_whole()


def test_nobody_is_told_that_is_protected_what_is_being_forgotten(shop: Shop) -> None:
    """The protection comes between the look of who forgets, and what he does."""
    gone, kept = shop.add(1, created=1.0), shop.add(2, created=2.0)
    told: list[str] = []

    def protect(made: Manifest) -> None:
        with shop.open() as repo:
            label.protect(repo, made.id)

    def meanwhile(act: Callable[[], object]) -> object:
        with pytest.raises(lease.Held, match="forget") as held:
            protect(gone)
        told.append(str(held.value))
        return act()

    shop.store.plan("delete", meanwhile, snapshot.twin_of(gone.id))
    shop.forget(gone)
    assert len(told) == 1
    for _ in range(2):
        with pytest.raises(errors.NotFound):
            protect(gone)
    with shop.open() as repo, lease.collecting(repo, "gc"):
        protect(kept)
    with pytest.raises(errors.Usage, match="Protected"):
        shop.forget(kept)


def test_who_forgot_and_was_killed_holds_no_protection_up(shop: Shop) -> None:
    kept = shop.add(1)
    with shop.open() as repo:
        lease._take(repo, lease.Lease(lease._COLLECTOR, "host", "forget"))
        shop.clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)
        label.protect(repo, kept.id)
        assert label.of(repo, kept.id).protected


def test_a_forgetting_that_was_killed_is_repeated(shop: Shop) -> None:
    gone, kept = shop.add(1, created=1.0), shop.add(2, created=2.0)
    with shop.open() as repo:
        label.tag(repo, gone.id, ["q1"])
    for number in (1, 2):
        shop.store.plan("delete", stores.fail(errors.StoreFailed("killed")), f"{'labels' if number == 2 else 'snap'}")
        with pytest.raises(errors.StoreFailed):
            shop.forget(gone)
        with shop.open() as repo:
            snapshot.all_manifests(repo)
    shop.forget(gone)
    with shop.open() as repo:
        assert [each.id for each in snapshot.all_manifests(repo).manifests] == [kept.id]
    shop.sweep()
    shop.require_whole()


def test_killed_at_any_change_it_loses_nothing_and_the_next_one_finishes(small_packs: int) -> None:
    """Each creation and deletion is the last that comes through, once with and once without its answer."""
    count = 0
    while True:
        count += 1
        clock = Clock(1_700_000_000.0)
        store = MortalStore(clock)
        with stores.new_repository(store):
            shop = Shop(clock, store)  # type: ignore[arg-type]
            gone, kept = shop.add(1, 2, 3, 4, 5, 6), shop.add(2, 8, vm="other")
            shop.forget(gone)
            least = 0
            for _ in range(2):
                store.left = count - least
                try:
                    shop.collect(0)
                except Ended:
                    break
                finally:
                    least += (count - least) - store.left
                    store.left = None
            else:
                assert count > 12, "there were so many changes"
                return
        clock.sleep(lease.COLLECTOR_DEAD_SECONDS + 1)
        shop.check(kept, 2, 8)
        shop.require_whole()
        shop.sweep()
        shop.check(kept, 2, 8)
        shop.require_whole()
        assert not any(map(shop.names, (layout.CONDEMNED, layout.DOOMED, layout.LEASES)))
        assert shop.bytes() < 3 * BLOCK, f"killed at change {count}, it has left garbage"


class Ended(BaseException):
    """As by SIGKILL."""


class MortalStore(MemoryStore):
    """Its user dies with the change after the last one that is ``left``."""

    left: int | None = None

    def _live(self) -> None:
        if self.left is not None:
            if self.left <= 0:
                raise Ended
            self.left -= 1

    def create(self, key: str, data: bytes | bytearray | memoryview) -> None:
        self._live()
        super().create(key, data)

    def delete(self, key: str) -> None:
        self._live()
        super().delete(key)
