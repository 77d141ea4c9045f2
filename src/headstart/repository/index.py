"""Which chunks are durable, and where: an index of the whole repository, loaded from ``indexes/``.

What was loaded once is kept in a cache of this host, if it has one, and not in memory::

    indexes/  --->  MemTable          --->  segments, mapped (a ``Shelf``)
                    what is new             what was known before
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from headstart import errors
from headstart.blocks import Blocks
from headstart.repository import config, layout, listing, loss, objects, pack, seal
from headstart.repository.going import Going
from headstart.repository.hoard import Hoard
from headstart.repository.keys import Secrets
from headstart.repository.known import Known
from headstart.repository.link import Link
from headstart.repository.listing import Listed
from headstart.repository.lookup import Lookup
from headstart.repository.loss import Loss
from headstart.repository.met import Met
from headstart.repository.packtable import PackEntries
from headstart.repository.shelf import Shelf
from headstart.repository.stack import Stack
from headstart.repository.table import Location
from headstart.repository.unlisted import Unlisted
from headstart.store.contract import Missing, Store

_Found = TypeVar("_Found")
#: Seconds after which a pack whose own index could not be read is tried again: its disk may have come back.
_AGAIN_SECONDS = 60.0


class Index:
    """The chunks known to be durable in the store. Loads itself when first asked. Any thread may use it."""

    def __init__(self, secrets: Secrets, store: Store) -> None:
        self._secrets = secrets
        self._store = store
        self._lock = threading.RLock()
        self._going = Going(secrets, store)
        self._begin()
        self._cache: Path | None = None
        self._hoard = Hoard(None)
        self._broken: dict[bytes, float] = {}  # packs whose own index could not be read, and when
        self._met = Met()
        self._unlisted = Unlisted()
        self._mounted = self._loaded = False
        self._unread: dict[str, errors.Damaged] = {}  # index objects and losses, at the last look
        self._is_unused = True  # no position was given out
        self._shifts = self._doubts = 0
        self._lacks_nothing: tuple[int, int] | None = None
        #: Objects that could not be read. What they listed was taken from the packs themselves.
        self.damaged: list[errors.Damaged] = []
        #: What repairs found damaged. The copies in them do not count as durable any longer.
        self.losses: list[Loss] = []

    def _begin(self) -> None:
        """With nothing."""
        self._table = Stack()
        self._lookup = Lookup(self._table, self._going)

    def use_cache(self, directory: Path) -> None:
        """Before anything is asked: keep what is known in this directory of the host, and not in memory."""
        self._cache = directory
        self._hoard = Hoard(Shelf(directory, self._secrets))

    @property
    def cache_failure(self) -> OSError | None:
        """Why the cache is not used."""
        return self._hoard.failure

    def __contains__(self, chunk_id: bytes) -> bool:
        return self._asked(lambda: self._table.position(chunk_id)) >= 0

    def __len__(self) -> int:
        with self._lock:
            self._load_once()
            return len(self._table)

    def find(self, chunk_id: bytes) -> Location | None:
        """A copy to read: a bad one where there is no other, which may have come back."""
        return self._asked(lambda: self._lookup.find(chunk_id))

    def holders(self, chunk_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """By chunk, a pack that has it, and that something new may be built on. Chunks without one are left out."""
        wanted = list(chunk_ids)
        return self._asked(lambda: self._lookup.holders(wanted))

    def places(self, chunk_ids: Iterable[bytes]) -> list[int]:
        """The position of the copy of each chunk that is to stay: of those that have one."""
        wanted = list(chunk_ids)
        return self._asked(lambda: [place for each in wanted if (place := self._lookup.place(each)) >= 0])

    def set_aside(self, packs: Iterable[bytes]) -> None:
        """In this index alone: what a :mod:`condemned` object says to all."""
        with self._lock:
            self._going.aside.update(packs)

    def others(self, chunk_id: bytes, location: Location) -> list[Location]:
        """Where else a chunk lies: two writers that knew nothing of each other put it, or one pack was lost."""
        return self._asked(lambda: self._lookup.others(chunk_id, location))

    def copies(self, positions: Iterable[int]) -> list[tuple[bytes, Location]]:
        with self._lock:
            found = self._table.locations(positions)
            return [(self._table.chunk_id(location.position), location) for location in found]

    def believed(self) -> Blocks:
        """The positions of all copies that are not known to be bad, nor being deleted."""
        with self._lock:
            self._load_once()
            return self._lookup.believed()

    def doubt(self, copies: Mapping[bytes, loss.Copies]) -> None:
        """In this index alone: what a :class:`Loss` says to all."""
        with self._lock:
            self._doubts += 1
            self._table.doubt(copies)

    def chunk_ids(self, positions: Iterable[int]) -> list[bytes]:
        """The chunks at these positions, which stay what they are as long as this index lives."""
        with self._lock:
            return list(map(self._table.chunk_id, positions))

    def missing(self, chunk_ids: Iterable[bytes]) -> list[bytes]:
        """Those of ``chunk_ids`` that are not known to be durable, each once."""
        wanted = dict.fromkeys(chunk_ids)
        return self._asked(lambda: self._table.absent(wanted))

    def locate(self, chunk_ids: Iterable[bytes]) -> dict[bytes, Location | errors.Damaged]:
        """Where each chunk lies, in the order of the packs, or the error that says that it is nowhere.

        Unlike ``find`` it looks, for what is not known, at what other writers added, whether the cache is whole, then
        into packs that no index lists.
        """
        found: dict[bytes, Location | errors.Damaged] = {}
        known, unknown = self._find_all(dict.fromkeys(chunk_ids))
        found |= known
        for look in (self.refresh, self.recheck, self.adopt_all):
            if unknown:
                look()
                more, unknown = self._find_all(unknown)
                found |= more
        return found | {chunk_id: _nowhere(chunk_id) for chunk_id in unknown}

    def _find_all(self, chunk_ids: Iterable[bytes]) -> tuple[dict[bytes, Location], list[bytes]]:
        wanted = list(chunk_ids)
        return self._asked(lambda: self._lookup.locate(wanted))

    def _asked(self, look: Callable[[], _Found]) -> _Found:
        """Once more where a damaged cache is to blame that it failed."""
        with self._lock:
            self._load_once()
            try:
                return look()
            except IndexError:
                self.recheck(again=True)
                return look()

    def refresh(self) -> None:
        """Load index objects and losses that were added since the last look, or could not be read then."""
        with self._lock:
            if not self._mounted:
                self._mounted = True
                self._mount()
            before, self._loaded = self._loaded, True
            try:
                self._load()
            except BaseException:
                self._loaded = before
                raise
            self._hoard.keep(self._table)
        self._tidy()

    def _load(self) -> None:
        for error in self._going.load():
            self._note(error)
        unread = self._load_losses() | self._load_indexes()
        unread = {name: error for name, error in unread.items() if name not in self._met.replaced}
        self.damaged = [each for each in self.damaged if self._met.digest(str(each.facts["object"])) is None]
        for error in unread.values():
            self._note(error)
        if unread.keys() - self._unread.keys():
            self.adopt_all()
        self._unread = unread
        self._drop_swept()

    def _drop_swept(self) -> None:
        """Doomed packs that are listed only by index objects in whose place others stand: those say all that stays."""
        if doomed := [each for each in self._going.doomed if each in self._table]:
            staying = self._met.packs(replaced=False) | self._unlisted.ids()
            self._drop([each for each in doomed if each not in staying])

    def _tidy(self) -> None:
        if not self._hoard.tidy(self._table, self._lock):
            self.recheck(again=True)

    def _mount(self) -> None:
        """What the cache has; of that what an index object lists."""
        for known in self._hoard.mount(self._table):
            self._met.add(known, cached=True)
        self._forget(())

    def _look_for_doomed(self) -> None:
        """What was needed of it has been copied: that is found as well."""
        with self._lock:
            self._load_once()
            known = len(self._going.doomed)
            for error in self._going.load_doomed():
                self._note(error)
            if len(self._going.doomed) > known:
                self.refresh()

    def recheck(self, *, again: bool = False) -> None:
        """Something does not fit, or must: look whether the cache is damaged, and do without the part that is. Costs
        reading it, once; ``again``: each time, where it is known to be damaged, or must not be. Nobody else is held up
        by that."""
        with self._lock:
            self._load_once()
            parts = self._hoard.to_look_at(self._table, again=again)
        unsound = [each for each in parts if not each.is_sound()]
        with self._lock:
            self._hoard.looked(set(parts).difference(unsound), unsound)
            self._shifts += bool(unsound)
            # What was joined meanwhile has new slots, and columns that were looked at.
            there = [each for each in unsound if each in self._table.mapped]
            packs = {pack_id for part in there for pack_id in self._table.give_up(part)}
            if packs:
                self._forget(self._met.naming(packs))
                self.refresh()

    def compare(self) -> None:
        """Read every index object of which only the cache has told. What is not as it was is read as if for the first
        time."""
        with self._lock:
            self._load_once()
            self._forget([name for name in self._met.take_cached() if not self._is_unchanged(name)])
            self.refresh()

    def _is_unchanged(self, name: str) -> bool:
        try:
            return Link.to(name, self._store.read(name)).digest == self._met.digest(name)
        except errors.Damaged:
            return False

    def _forget(self, names: Iterable[str]) -> None:
        """These index objects: what only they list is not there any longer."""
        self._met.forget(names)
        self._hoard.forget(names)
        listed = self._met.packs() | self._unlisted.ids()
        self._drop([pack_id for pack_id in self._table.packs() if pack_id not in listed])

    def _drop(self, packs: Sequence[bytes]) -> None:
        """They may come back, at other positions."""
        if packs:
            self._shifts += 1
            self._table.drop(packs)

    @property
    def shifts(self) -> int:
        """As long as this stays what it was, every pack that is known stands where it stood, and no damage was found in
        the cache. (``forget`` does not count: what was deleted does not come back.)"""
        return self._shifts

    def heads(self) -> tuple[Link, ...]:
        """The index objects and losses that no index object links yet."""
        with self._lock:
            self._load_once()
            return tuple(self._met.heads())

    def linked(self) -> dict[str, bytes]:
        """By name, the digest of everything that index objects say was there."""
        with self._lock:
            self._load_once()
            return self._met.linked()

    def digest(self, name: str) -> bytes | None:
        """Of an index object or loss that was read; None if it was not."""
        return self._met.digest(name)

    @property
    def unread(self) -> Mapping[str, errors.Damaged]:
        """By name, what is wrong with each index object and loss that could not be read at the last look."""
        with self._lock:
            self._load_once()
            return dict(self._unread)

    def entries(self, pack_id: bytes) -> PackEntries:
        """What is known of a pack."""
        with self._lock:
            self._load_once()
            return self._table.entries(pack_id)

    @property
    def has_losses(self) -> bool:
        """Whether a repair has noted content as lost. Of what was in no pack that is known, no copy is bad."""
        with self._lock:
            self._load_once()
            return self._table.has_doubts or any(each.hurt for each in self.losses)

    def lacks_any(self) -> bool:
        """Whether anything of what repairs noted has no good copy now. If not, nothing will as long as ``as_of`` stays
        what it is. Costs a look for each bad copy."""
        as_of = self.as_of
        if self.has_losses and self._lacks_nothing != as_of:
            hurt = [each for noted in self.losses for each in noted.hurt]
            if self._asked(self._table.lacks_any) or any(
                each.chunks is None or self.missing(each.chunks) for each in hurt
            ):
                return True
            self._lacks_nothing = as_of
        return False

    @property
    def as_of(self) -> tuple[int, int]:
        """Another one as soon as copies that were good may not be any longer."""
        with self._lock:
            self._load_once()
            return self._doubts, self._shifts

    def all_losses(self) -> list[Loss]:
        with self._lock:
            self._load_once()
            return list(self.losses)

    def given_up(self, name: str) -> bool:
        """A repair has seen that this object is damaged or gone, and nobody misses it."""
        return name in self._met.replaced or any(name in each.objects for each in self.losses)

    def is_lost(self, pack_id: bytes) -> bool:
        """All copies in this pack are known to be bad."""
        return loss.copies_of(self.losses, pack_id) is None

    def packs(self) -> set[bytes]:
        """Every pack that is listed, or was adopted."""
        with self._lock:
            self._load_once()
            return set(self._table.packs())

    def adopt(self, pack_id: bytes) -> None:
        """Take up a durable pack that no index object lists, from its own index. ``Damaged`` if it is not whole.

        The next index object that is written lists it.
        """
        with self._lock:
            self._load_once()
        if pack_id not in self._table:
            name = pack.pack_key(pack_id)
            self._adopt(pack_id, dict(self._store.list(name)).get(name, 0))

    def adopt_all(self) -> None:
        """Adopt every pack in the store that no index lists; those that are not whole are named in ``damaged``, unless
        they were noted as lost."""
        self._load_once()
        early = time.monotonic() - _AGAIN_SECONDS
        for pack_id, size in sorted(pack.stored(self._store)):
            known = pack_id in self._table or self._broken.get(pack_id, -math.inf) > early
            if not known and pack_id not in self._going.doomed:
                try:
                    self._adopt(pack_id, size)
                except errors.Damaged as error:
                    self._broken[pack_id] = time.monotonic()
                    if not self.is_lost(pack_id):
                        self._note(error)

    def _adopt(self, pack_id: bytes, size: int) -> None:
        self.add(pack.read_entries(self._secrets, self._store, pack_id, size))
        if self._broken.pop(pack_id, None) is not None:
            name = pack.pack_key(pack_id)
            self.damaged = [each for each in self.damaged if each.facts["object"] != name]

    def add(self, entries: PackEntries) -> None:
        """A pack that became durable, and is to be listed in the next index object."""
        with self._lock:
            self._load_once()
            if self._enter(entries):
                self._unlisted.add(entries)

    @property
    def unwritten_chunks(self) -> int:
        """Chunks of packs that no index object lists yet."""
        with self._lock:
            return self._unlisted.chunks

    def drop_lost(self, *, but_doomed: bool = False) -> set[bytes]:
        """Forget packs that the store does not have any longer, or not whole, or that are being deleted: their chunks
        are missing from now on, unless they are elsewhere.

        Returns their ids. Costs a listing of the packs, after one of what is doomed: that is withdrawn only when the
        packs are gone. ``but_doomed``: what is being deleted is still there, for who deletes it.
        """
        self._look_for_doomed()
        if self._going.unread is not None:
            raise errors.StoreFailed(
                f"{self._going.unread} It says which packs are being deleted, so nothing can be built on any. "
                "Try again; if that does not help, 'headstart gc' puts it right."
            )
        with self._lock:
            known = dict(self._table.sizes())
            going = frozenset() if but_doomed else frozenset(self._going.doomed)
        for pack_id, size in pack.stored(self._store):
            if known.get(pack_id) == size and pack_id not in going:
                del known[pack_id]
        if known.keys() - self._going.doomed:
            config.require(self._store)
        if known:
            self.refresh()  # what was needed of one that was swept has been copied
        with self._lock:
            self._drop([each for each in known if each in self._table])
            self._unlisted.forget(known)
        return set(known)

    def swept(self, packs: Iterable[bytes]) -> set[bytes]:
        """Those of the packs that are gone, or go, because a collector of garbage deletes them: no index lists them any
        longer. Loads all of the index anew."""
        now = Index(self._secrets, self._store)
        if self._cache is not None:
            now.use_cache(self._cache)
        listed = now.packs()
        return set(packs) - (listed - now._going.doomed)

    def write(self, replaced: Sequence[str] = ()) -> int:
        """Write an index object for the packs that none lists yet. Returns its bytes; 0 when there is nothing to say.

        ``replaced`` are index objects that cannot be read: all that they listed was found again."""
        with self._lock:
            packs = self._unlisted.take()
        links = self.heads()
        if not packs and not replaced and not any(each.name.startswith(layout.LOSSES) for each in links):
            return 0
        gone = [Link(each, bytes(layout.DIGEST_LENGTH)) for each in replaced]
        try:
            return self.list_packs(Listed(packs, list(links), gone))
        except errors.HeadstartError:
            with self._lock:
                self._unlisted.put_back(packs)
            raise
        finally:
            with self._lock:
                self._unlisted.done(packs)

    def list_packs(self, listed: Listed) -> int:
        """Write an index object. Returns its bytes."""
        name = layout.INDEXES + os.urandom(layout.OBJECT_ID_LENGTH).hex()
        payload = listing.encode(listed.packs, listed.links, listed.replaced)
        data = seal.seal_object(self._secrets, layout.Kind.INDEX, name, payload)
        objects.put(self._store, name, data)
        with self._lock:
            self._take_up(Link.to(name, data), listed)
            self._hoard.keep(self._table)
        self._tidy()
        return len(data)

    def forget(self, packs: Container[bytes]) -> None:
        """These were deleted."""
        with self._lock:
            self._table.drop(each for each in self._table.packs() if each in packs)
            self._unlisted.forget(packs)

    def span(self, pack_id: bytes) -> range:
        """The positions of the chunks of a pack."""
        with self._lock:
            self._load_once()
            return self._table.positions_of(pack_id)

    @property
    def doomed(self) -> frozenset[bytes]:
        """Packs that are being deleted."""
        return frozenset(self._going.doomed)

    @property
    def aside(self) -> frozenset[bytes]:
        """Packs that are condemned or doomed."""
        return frozenset(self._going.aside)

    def lose(self, noted: Loss) -> None:
        """Make a loss durable. From then on nothing counts as stored because of the copies in it."""
        name = loss.key_of(noted.id)
        data = seal.seal_object(self._secrets, layout.Kind.LOSS, name, loss.encode(noted))
        objects.put(self._store, name, data)
        with self._lock:
            self._met.add_digest(Link.to(name, data))
            self._take(noted)

    def _load_once(self) -> None:
        if not self._loaded:
            self.refresh()

    def _load_losses(self) -> dict[str, errors.Damaged]:
        """An error for each that cannot be read."""
        unread: dict[str, errors.Damaged] = {}
        for name in self._met.fresh(objects.names(self._store, layout.LOSSES)):
            try:
                data = self._store.read(name)
                found = loss.decode(name, seal.open_object(self._secrets, layout.Kind.LOSS, name, data))
            except errors.Damaged as error:
                unread[name] = error
                continue
            self._met.add_digest(Link.to(name, data))
            self._take(found)
        return unread

    def _take(self, found: Loss) -> None:
        self._doubts += 1
        self.losses.append(found)
        self._table.doubt(found.copies)

    def _load_indexes(self) -> dict[str, errors.Damaged]:
        """An error for each that cannot be read: a damaged one costs reading the packs' own, nothing else."""
        unread: dict[str, errors.Damaged] = {}
        vanished: set[str] = set()
        while True:
            there = objects.names(self._store, layout.INDEXES)
            count = len(vanished)
            for name in self._met.fresh(there):
                if name not in unread and name not in vanished:
                    self._load_index(name, unread, vanished)
            # What went between listing and reading has one that stands in for it. Once that is read, too, what went
            # takes no pack with it that is listed again: positions stay.
            if len(vanished) == count and not self._forget_gone(there):
                return unread

    def _load_index(self, name: str, unread: dict[str, errors.Damaged], vanished: set[str]) -> None:
        try:
            written, listed = self.read_listed(name)
        except Missing:
            vanished.add(name)
            return
        except errors.Damaged as error:
            unread[name] = error
            return
        for entries in listed.packs:
            self._enter(entries)
        self._take_up(written, listed)
        self._hoard.keep(self._table, loading=True)

    def read_listed(self, name: str) -> tuple[Link, Listed]:
        """An index object, whether it is loaded or not. ``Damaged``."""
        data = self._store.read(name)
        payload = seal.open_object(self._secrets, layout.Kind.INDEX, name, data)
        return Link.to(name, data), listing.decode(name, payload, layout.version_of(data, layout.Kind.INDEX, name))

    def _forget_gone(self, there: Iterable[str]) -> bool:
        """Index objects that are not there any longer. True where all others are to be loaded anew."""
        gone = self._met.gone(there)
        if gone:
            config.require(self._store)
            self._forget(gone)
        is_unused, self._is_unused = self._is_unused, False
        if is_unused and 2 * self._table.dropped_chunks > len(self._table):
            self._start_over()
            return True
        return False

    def _start_over(self) -> None:
        """Most of what the cache has is of index objects that are gone: load the others anew."""
        self._hoard.remove_all(self._table)
        self._begin()
        self._shifts += 1
        self._forget(self._met.indexes())

    def _take_up(self, written: Link, listed: Listed) -> None:
        """An index object that was read or written, once its packs are in the table."""
        packs = b"".join(entries.pack_id for entries in listed.packs)
        replaced = tuple(each.name for each in listed.replaced)
        known = Known(written, tuple(listed.links), replaced, packs)
        self._met.add(known)
        self._hoard.add(known)

    def _enter(self, entries: PackEntries) -> bool:
        if entries.pack_id in self._table:
            return False
        self._table.add(entries, loss.copies_of(self.losses, entries.pack_id))
        return True

    def _note(self, error: errors.Damaged) -> None:
        with self._lock:
            if str(error) not in map(str, self.damaged):
                self.damaged.append(error)


def _nowhere(chunk_id: bytes) -> errors.Damaged:
    name = chunk_id.hex()
    return errors.Damaged(f"Chunk {name} is missing: no pack of the repository holds it.", object=f"chunk {name}")
