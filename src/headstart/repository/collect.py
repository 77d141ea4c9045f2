"""Collecting garbage, in two phases with a quarantine between them, beside everything else that goes on.

::

    condemned long enough?  ->  doomed, durable: from here on nobody may publish upon these packs
    drafts whose owners are dead are revoked
    mark: what snapshots, living drafts and readers need
    doomed packs: what is needed of them is copied  ->  they are deleted  ->  indexes without them  ->  the lists go
    packs of which little or nothing is needed: what is, is copied  ->  condemned, durable: nothing new is built on them

Who publishes claims the packs that it builds on in a record of its draft, then looks what is doomed; a collector
dooms, then looks what is claimed. So one of the two sees the other, however their steps fall. No pack is ever pardoned:
whoever knew of a list goes by it for ever, and a collector that slept through all of it may go on deleting.

Nothing is deleted on the word of this host's cache of the index. It is read through before it is marked and before
anything is deleted; if it turns out to be damaged, it is marked once more. And where something that is needed was found
nowhere, a pack goes only when its own index, in the store, has been asked.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from headstart import errors
from headstart.blocks import Blocks
from headstart.repository import condemned, draft, layout, lease, mark, pack, reindex, repack, snapshot
from headstart.repository.mark import Living
from headstart.repository.repo import Repository
from headstart.store.contract import Exists

#: Seconds from when a pack is condemned until it is deleted, and for which a new pack is left alone. Longer than a
#: restore that cannot write a lease, and than a run goes on without a look at the repository.
QUARANTINE = 24 * 3600.0
#: A pack of which less than this share is needed is repacked: see ``docs/repository.md`` for the measurement.
SPARSE = 0.6
#: How often it is marked again before it is given up, if damage in the cache comes to light meanwhile.
_TRIES = 3
#: Packs shorter than this part of a full one are put together once there are so many of them.
_SMALL_PART, _SMALL_COUNT = 4, 32

#: Called with what is done now.
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """``dry_run``: tell what would be done, and write nothing."""

    quarantine: float = QUARANTINE
    dry_run: bool = False


@dataclass(slots=True)
class Report:
    """Bytes and counts of packs. ``condemned`` will be deleted when ``quarantine`` seconds are over; ``waiting`` were
    condemned before. ``kept`` should have been deleted, by why they are still there."""

    quarantine: float
    dry_run: bool
    snapshots: int = 0
    drafts: int = 0
    revoked: list[str] = field(default_factory=list)
    packs: int = 0
    bytes: int = 0
    deleted_packs: int = 0
    freed_bytes: int = 0
    condemned_packs: int = 0
    condemned_bytes: int = 0
    waiting_packs: int = 0
    waiting_bytes: int = 0
    waiting_seconds: float = 0.0
    repacked_packs: int = 0
    repacked_bytes: int = 0
    kept: dict[str, str] = field(default_factory=dict)


def quiet(what: str) -> None:
    """Nobody listens."""


def collect(repo: Repository, order: Order, progress: Progress = quiet) -> Report:
    """Raises ``lease.Held``; ``Damaged`` when it cannot be told what is needed, before anything is deleted; and what
    the store raises. Killed anywhere, or failed, it is repeated."""
    if order.dry_run:
        return _Collection(repo, order, progress).run()
    with lease.collecting(repo, "gc") as held:
        return _Collection(repo, order, progress, held).run()


class _Shifted(Exception):
    """The marks mean nothing any longer."""


@dataclass(frozen=True, slots=True)
class _Lists:
    """By name of its object, the packs of each list; ``ages`` in seconds."""

    condemned: Mapping[str, frozenset[bytes]]
    doomed: Mapping[str, frozenset[bytes]]
    ages: Mapping[str, float]

    def due(self, quarantine: float) -> list[str]:
        aged = {name: lease.corrected(self.ages.get(name, 0.0), QUARANTINE) for name in self.condemned}
        return [name for name, age in aged.items() if age >= quarantine]


class _Collection:
    def __init__(self, repo: Repository, order: Order, progress: Progress, held: lease.Beat | None = None) -> None:
        self._repo = repo
        self._held = held
        self._order = order
        self._progress = progress
        self._report = Report(order.quarantine, order.dry_run)
        self._sizes: dict[bytes, int] = {}
        #: The list of this run.
        self._mine = ""

    def run(self) -> Report:
        self._progress("loading the index")
        index = self._repo.index
        self._repo.holdings.refresh()
        self._repo.holdings.recheck(again=True)
        self._repo.holdings.adopt_all()
        lists = self._lists()
        due = lists.due(self._order.quarantine)
        doomed = frozenset().union(*lists.doomed.values(), *(lists.condemned[name] for name in due))
        fresh = doomed.difference(*lists.doomed.values())
        if fresh:
            self._mine = self._put(layout.Kind.DOOMED, layout.DOOMED, fresh)
        self._repo.holdings.set_aside(doomed)
        self._know(doomed)
        # A copy that the store has lost must not pass for the one that is kept.
        absent = self._repo.holdings.drop_lost(but_doomed=True) - doomed - index.doomed
        drafts = self._living_drafts()
        if not self._order.dry_run:
            lease.remove_dead(self._repo)
        # After the drafts: only what is known now can be judged.
        self._sizes = dict(pack.stored(self._repo.store))
        ages = {pack.id_of(name): age for name, age in lease.ages(self._repo, layout.PACKS).items()}
        aged = {each: lease.corrected(ages.get(each, math.inf), QUARANTINE) for each in index.packs()}
        judged = {each for each, age in aged.items() if age >= self._order.quarantine}
        self._report.packs, self._report.bytes = len(self._sizes), sum(self._sizes.values())
        self._by_marks(
            lambda: self._mark(drafts, {each for each in absent if not index.is_lost(each)}),
            lambda living: self._sweep(lists, due, doomed, living),
            lambda living: self._condemn(living, judged),
        )
        self._tell_waiting(lists, due)
        return self._report

    def _mark(self, drafts: dict[str, list[str]], absent: Collection[bytes]) -> Living:
        self._progress("marking")
        living = mark.mark(self._repo, drafts, absent)
        self._report.snapshots, self._report.drafts = living.snapshots, living.drafts
        return living

    def _by_marks(self, mark_all: Callable[[], Living], *steps: Callable[[Living], None]) -> None:
        """Each step looks whether the marks still hold before it changes what cannot be taken back."""
        living = mark_all()
        for step in steps:
            for _ in range(_TRIES):
                try:
                    step(living)
                    break
                except _Shifted:
                    living = mark_all()
            else:
                raise errors.StoreFailed(
                    "The cache of the index was damaged again and again while it was used, so nothing more was "
                    "deleted. Remove the cache, or name another place with --cache, then try again."
                )

    def _require_marks(self, living: Living, *, again: bool) -> None:
        """They mean what they meant, no copy of what was marked was noted as lost since, and they were not made by a
        damaged cache. ``again``: read through all of it."""
        index = self._repo.index
        self._repo.holdings.recheck(again=again)
        if self._held is not None:
            self._held.require()
        self._repo.holdings.refresh()
        if index.as_of != living.as_of:
            raise _Shifted

    # -- what there is

    def _know(self, packs: Iterable[bytes]) -> None:
        """What is in doomed packs that no index lists; nobody else looks into them any longer."""
        for pack_id in set(packs) - self._repo.index.packs():
            with contextlib.suppress(errors.Damaged):
                self._repo.holdings.adopt(pack_id)

    def _lists(self) -> _Lists:
        """One that cannot be read goes: what of it is garbage is found again."""
        found: dict[str, dict[str, frozenset[bytes]]] = {layout.CONDEMNED: {}, layout.DOOMED: {}}
        ages: dict[str, float] = {}
        for prefix, kind in ((layout.CONDEMNED, layout.Kind.CONDEMNED), (layout.DOOMED, layout.Kind.DOOMED)):
            ages |= lease.ages(self._repo, prefix)
            for name, _ in sorted(self._repo.store.list(prefix)):
                try:
                    found[prefix][name] = condemned.decode(name, self._repo.get_object(kind, name))
                except errors.Damaged:
                    self._delete(name)
        return _Lists(found[layout.CONDEMNED], found[layout.DOOMED], ages)

    def _living_drafts(self) -> dict[str, list[str]]:
        """Those of dead owners are revoked: they cannot publish any longer."""
        aged = lease.ages(self._repo, layout.DRAFTS)
        living: dict[str, list[str]] = {}
        for draft_id, names in draft.names(self._repo).items():
            if not lease.is_dead(names, aged, lease.DEAD_SECONDS):
                living[draft_id] = names
                continue
            if not self._order.dry_run:
                try:
                    revoked = snapshot.revoke(self._repo, draft_id)
                except (errors.Damaged, Exists):
                    # Whatever it was, only this is left of it; or its manifest and twin say different things.
                    living[draft_id] = names
                    continue
                draft.drop(self._repo, draft_id)
                if not revoked:
                    continue  # it was published, and only its lease was left
            self._report.revoked.append(draft_id)
        return living

    # -- second phase

    def _sweep(self, lists: _Lists, due: Iterable[str], doomed: frozenset[bytes], living: Living) -> None:
        self._progress("sweeping")
        needed = living.positions.copy()
        for pack_id in doomed & living.packs & self._repo.index.packs():
            needed |= self._only_here(pack_id)
        kept = self._add_overlooked(needed, doomed, living)
        unread = self._repack(needed, (doomed & self._repo.index.packs()) - kept.keys())
        kept |= {pack_id: str(error) for pack_id, error in unread.items()}
        going = (doomed & self._sizes.keys()) - kept.keys()
        if going:
            self._require_marks(living, again=True)
        for pack_id in sorted(going):
            if self._held is not None and self._held.lost:
                self._held.require()
            try:
                self._delete(pack.pack_key(pack_id))
            except (errors.StoreFailed, errors.Unsupported) as error:
                kept[pack_id] = str(error)
                continue
            self._report.deleted_packs += 1
            self._report.freed_bytes += self._sizes.pop(pack_id)
        self._report.kept |= {pack.pack_key(pack_id): why for pack_id, why in kept.items()}
        if self._order.dry_run:
            return
        listed = reindex.rewrite(self._repo, doomed - kept.keys(), living.linked)
        for name, packs in lists.condemned.items():
            if name in due and kept.keys().isdisjoint(packs):
                self._delete(name)
        # Last: until then they say what must not be built on, and that nobody misses it.
        for name, packs in {**lists.doomed, self._mine: doomed}.items():
            if name and packs.isdisjoint(kept.keys() | listed):
                self._delete(name)

    def _add_overlooked(self, needed: Blocks, doomed: Iterable[bytes], living: Living) -> dict[bytes, str]:
        """What of doomed packs the index did not find. Returns why packs have to stay."""
        kept: dict[bytes, str] = {}
        index = self._repo.index
        for pack_id in doomed:
            try:
                places = self._overlooked(pack_id, living)
            except errors.Damaged as error:
                if not index.is_lost(pack_id):
                    kept[pack_id] = str(error)
                continue
            if places and pack_id in index.packs():
                first = index.span(pack_id).start
                needed.update(first + place for place in places)  # that it is as long is looked at when it is moved
            elif places:
                kept[pack_id] = "Something is needed of it, and this host's index does not know it."
        return kept

    def _overlooked(self, pack_id: bytes, living: Living) -> list[int]:
        """Places in a pack of chunks that are needed and that the index did not find, by the pack's own index."""
        if not living.missed or pack_id not in self._sizes:
            return []
        entries = pack.read_entries(self._repo.secrets, self._repo.store, pack_id, self._sizes[pack_id])
        step = layout.CHUNK_ID_LENGTH
        return [n for n in range(len(entries)) if entries.ids[n * step : (n + 1) * step] in living.missed]

    def _only_here(self, pack_id: bytes) -> Blocks:
        """What of a pack is in no pack that stays."""
        index = self._repo.index
        span = index.span(pack_id)
        ids = dict(zip(span, index.chunk_ids(span), strict=True))
        elsewhere = index.holders(ids.values())
        return Blocks(place for place, chunk_id in ids.items() if chunk_id not in elsewhere)

    # -- first phase

    def _condemn(self, living: Living, judged: set[bytes]) -> None:
        """``judged``: packs that were there before it was marked, and are old enough."""
        self._progress("looking for garbage")
        index = self._repo.index
        self._require_marks(living, again=False)  # so that all of them are where they were
        wanted = (judged & index.packs()) - index.aside - living.packs
        dead = {pack_id for pack_id in wanted if not _is_marked(index.span(pack_id), living.positions)}
        sparse = self._sparse(
            {
                pack_id: repack.needed_bytes(index.entries(pack_id), index.span(pack_id), living.positions)
                for pack_id in wanted - dead
            }
        )
        if not dead and not sparse:
            return
        held = self._locked(dead | sparse)
        held |= {pack_id for pack_id in dead | sparse if self._is_overlooked(pack_id, living)}
        dead, sparse = dead - held, sparse - held
        self._repo.holdings.set_aside(dead | sparse)
        unread = self._repack(living.positions, sparse)
        going = (dead | sparse) - unread.keys()
        self._report.repacked_packs = len(sparse - unread.keys())
        self._report.condemned_packs = len(going)
        self._report.condemned_bytes = sum(self._sizes.get(pack_id, 0) for pack_id in going)
        self._require_marks(living, again=False)
        if going:
            self._put(layout.Kind.CONDEMNED, layout.CONDEMNED, going)

    def _is_overlooked(self, pack_id: bytes, living: Living) -> bool:
        """Or may be."""
        try:
            return bool(self._overlooked(pack_id, living))
        except errors.Damaged:
            return not self._repo.index.is_lost(pack_id)

    def _locked(self, packs: Iterable[bytes]) -> set[bytes]:
        """Those that the store keeps, whatever it is told: to delete them would free nothing."""
        locks = self._repo.store.locks()
        if locks is None or not locks.available():
            return set()
        now = self._repo.store.clock()
        return {each for each in packs if each in self._sizes and locks.locked_until(pack.pack_key(each)) > now}

    def _sparse(self, live: Mapping[bytes, int]) -> set[bytes]:
        """Packs of which little is needed, and small ones where there are many."""
        sizes = {pack_id: self._sizes.get(pack_id, 0) for pack_id in live}
        held = {pack_id: self._repo.index.entries(pack_id).frames_bytes for pack_id in live}
        found = {pack_id for pack_id, count in live.items() if count < SPARSE * held[pack_id]}
        small = {pack_id for pack_id, size in sizes.items() if 0 < size < layout.PACK_SIZE // _SMALL_PART}
        return found | small if len(small) >= _SMALL_COUNT else found

    # -- both

    def _repack(self, positions: Blocks, packs: Iterable[bytes]) -> Mapping[bytes, errors.Damaged]:
        """Packs that could not be read."""
        self._progress("repacking")
        if self._order.dry_run:
            index = self._repo.index
            self._report.repacked_bytes += sum(
                repack.needed_bytes(index.entries(each), index.span(each), positions) for each in packs
            )
            return {}
        done = repack.repack(self._repo, {each: self._sizes.get(each, 0) for each in packs}, positions)
        self._report.repacked_bytes += done.stored_bytes
        return done.unread

    def _tell_waiting(self, lists: _Lists, due: Iterable[str]) -> None:
        waiting = {name: packs for name, packs in lists.condemned.items() if name not in due}
        packs = frozenset().union(*waiting.values())
        self._report.waiting_packs = len(packs)
        self._report.waiting_bytes = sum(self._sizes.get(pack_id, 0) for pack_id in packs)
        left = [self._order.quarantine - lists.ages.get(name, 0.0) for name in waiting]
        self._report.waiting_seconds = max(left, default=0.0)

    def _put(self, kind: layout.Kind, prefix: str, packs: Iterable[bytes]) -> str:
        name = prefix + os.urandom(layout.OBJECT_ID_LENGTH).hex()
        if not self._order.dry_run:
            self._repo.put_object(kind, name, condemned.encode(packs))
        return name

    def _delete(self, name: str) -> None:
        if not self._order.dry_run:
            self._repo.store.delete(name)


def _is_marked(span: range, positions: Blocks) -> bool:
    return bool(positions.range_cardinality(span.start, span.stop))
