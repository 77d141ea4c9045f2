"""What this process knows of the packs of a repository, and how it comes to know it: from ``indexes/``, or what is kept
of that in a cache of this host, if it has one, and not in memory::

    indexes/  --->  MemTable          --->  segments, mapped (a ``Shelf``)
                    what is new             what was known before
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from headstart import errors
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
from headstart.repository.unlisted import Unlisted
from headstart.store.contract import Missing, Store

#: Seconds after which a pack whose own index could not be read is tried again: its disk may have come back.
_AGAIN_SECONDS = 60.0


class Holdings:
    """Loads itself when it is first asked for. Any thread may use its methods; ``table``, ``lookup``, ``met``,
    ``going`` and ``losses`` only within ``loaded``."""

    def __init__(self, secrets: Secrets, store: Store) -> None:
        self._secrets = secrets
        self._store = store
        self._lock = threading.RLock()
        self.going = Going(secrets, store)
        self._begin()
        self._cache: Path | None = None
        self._hoard = Hoard(None)
        self._broken: dict[bytes, float] = {}  # packs whose own index could not be read, and when
        self.met = Met()
        self._unlisted = Unlisted()
        self._mounted = self._loaded = False
        self._is_unused = True  # no position was given out
        #: By name, what is wrong with each index object and loss that could not be read at the last look.
        self.unread: dict[str, errors.Damaged] = {}
        #: As long as this stays what it was, every pack that is known stands where it stood, and no damage was found in
        #: the cache. (``forget`` does not count: what was deleted does not come back.)
        self.shifts = 0
        #: How often copies were taken for bad.
        self.doubts = 0
        #: Objects that could not be read. What they listed was taken from the packs themselves.
        self.damaged: list[errors.Damaged] = []
        #: What repairs found damaged. The copies in them do not count as durable any longer.
        self.losses: list[Loss] = []

    @contextlib.contextmanager
    def loaded(self) -> Iterator[Holdings]:
        """While this lasts nothing changes."""
        with self._lock:
            self._load_once()
            yield self

    def _begin(self) -> None:
        """With nothing."""
        self.table = Stack()
        self.lookup = Lookup(self.table, self.going)

    def use_cache(self, directory: Path) -> None:
        """Before anything is asked: keep what is known in this directory of the host, and not in memory."""
        self._cache = directory
        self._hoard = Hoard(Shelf(directory, self._secrets))

    @property
    def cache_failure(self) -> OSError | None:
        """Why the cache is not used."""
        return self._hoard.failure

    def set_aside(self, packs: Iterable[bytes]) -> None:
        """In this index alone: what a :mod:`condemned` object says to all."""
        with self._lock:
            self.going.aside.update(packs)

    def doubt(self, copies: Mapping[bytes, loss.Copies]) -> None:
        """In this index alone: what a :class:`Loss` says to all."""
        with self._lock:
            self.doubts += 1
            self.table.doubt(copies)

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
            self._hoard.keep(self.table)
        self._tidy()

    def _load(self) -> None:
        for error in self.going.load():
            self._note(error)
        unread = self._load_losses() | self._load_indexes()
        unread = {name: error for name, error in unread.items() if name not in self.met.replaced}
        self.damaged = [each for each in self.damaged if self.met.digest(str(each.facts["object"])) is None]
        for error in unread.values():
            self._note(error)
        if unread.keys() - self.unread.keys():
            self.adopt_all()
        self.unread = unread
        self._drop_swept()

    def _drop_swept(self) -> None:
        """Doomed packs that are listed only by index objects in whose place others stand: those say all that stays."""
        if doomed := [each for each in self.going.doomed if each in self.table]:
            staying = self.met.packs(replaced=False) | self._unlisted.ids()
            self._drop([each for each in doomed if each not in staying])

    def _tidy(self) -> None:
        if not self._hoard.tidy(self.table, self._lock):
            self.recheck(again=True)

    def _mount(self) -> None:
        """What the cache has; of that what an index object lists."""
        for known in self._hoard.mount(self.table):
            self.met.add(known, cached=True)
        self._forget(())

    def _look_for_doomed(self) -> None:
        """What was needed of it has been copied: that is found as well."""
        with self.loaded():
            known = len(self.going.doomed)
            for error in self.going.load_doomed():
                self._note(error)
            if len(self.going.doomed) > known:
                self.refresh()

    def recheck(self, *, again: bool = False) -> None:
        """Something does not fit, or must: look whether the cache is damaged, and do without the part that is. Costs
        reading it, once; ``again``: each time, where it is known to be damaged, or must not be. Nobody else is held up
        by that."""
        with self.loaded():
            parts = self._hoard.to_look_at(self.table, again=again)
        unsound = [each for each in parts if not each.is_sound()]
        with self._lock:
            self._hoard.looked(set(parts).difference(unsound), unsound)
            self.shifts += bool(unsound)
            # What was joined meanwhile has new slots, and columns that were looked at.
            there = [each for each in unsound if each in self.table.mapped]
            packs = {pack_id for part in there for pack_id in self.table.give_up(part)}
            if packs:
                self._forget(self.met.naming(packs))
                self.refresh()

    def compare(self) -> None:
        """Read every index object of which only the cache has told. What is not as it was is read as if for the first
        time."""
        with self.loaded():
            self._forget([name for name in self.met.take_cached() if not self._is_unchanged(name)])
            self.refresh()

    def _is_unchanged(self, name: str) -> bool:
        try:
            return Link.to(name, self._store.read(name)).digest == self.met.digest(name)
        except errors.Damaged:
            return False

    def _forget(self, names: Iterable[str]) -> None:
        """These index objects: what only they list is not there any longer."""
        self.met.forget(names)
        self._hoard.forget(names)
        listed = self.met.packs() | self._unlisted.ids()
        self._drop([pack_id for pack_id in self.table.packs() if pack_id not in listed])

    def _drop(self, packs: Sequence[bytes]) -> None:
        """They may come back, at other positions."""
        if packs:
            self.shifts += 1
            self.table.drop(packs)

    def adopt(self, pack_id: bytes) -> None:
        """Take up a durable pack that no index object lists, from its own index. ``Damaged`` if it is not whole.

        The next index object that is written lists it.
        """
        self._load_once()
        if pack_id not in self.table:
            name = pack.pack_key(pack_id)
            self._adopt(pack_id, dict(self._store.list(name)).get(name, 0))

    def adopt_all(self) -> None:
        """Adopt every pack in the store that no index lists; those that are not whole are named in ``damaged``, unless
        they were noted as lost."""
        self._load_once()
        early = time.monotonic() - _AGAIN_SECONDS
        for pack_id, size in sorted(pack.stored(self._store)):
            known = pack_id in self.table or self._broken.get(pack_id, -math.inf) > early
            if not known and pack_id not in self.going.doomed:
                try:
                    self._adopt(pack_id, size)
                except errors.Damaged as error:
                    self._broken[pack_id] = time.monotonic()
                    if loss.copies_of(self.losses, pack_id) is not None:
                        self._note(error)

    def _adopt(self, pack_id: bytes, size: int) -> None:
        self.add(pack.read_entries(self._secrets, self._store, pack_id, size))
        if self._broken.pop(pack_id, None) is not None:
            name = pack.pack_key(pack_id)
            self.damaged = [each for each in self.damaged if each.facts["object"] != name]

    def add(self, entries: PackEntries) -> None:
        """A pack that became durable, and is to be listed in the next index object."""
        with self.loaded():
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
        if self.going.unread is not None:
            raise errors.StoreFailed(
                f"{self.going.unread} It says which packs are being deleted, so nothing can be built on any. "
                "Try again; if that does not help, 'headstart gc' puts it right."
            )
        with self._lock:
            known = dict(self.table.sizes())
            going = frozenset() if but_doomed else frozenset(self.going.doomed)
        for pack_id, size in pack.stored(self._store):
            if known.get(pack_id) == size and pack_id not in going:
                del known[pack_id]
        if known.keys() - self.going.doomed:
            config.require(self._store)
        if known:
            self.refresh()  # what was needed of one that was swept has been copied
        with self._lock:
            self._drop([each for each in known if each in self.table])
            self._unlisted.forget(known)
        return set(known)

    def gone(self, packs: Iterable[bytes]) -> set[bytes]:
        """All that ``drop_lost`` finds now, and those of these packs that it found before. Who publishes upon them has
        claimed them before this is asked: see ``draft.claim``."""
        lost = self.drop_lost()
        with self.loaded():
            return lost | {each for each in packs if each not in self.table}

    def swept(self, packs: Iterable[bytes]) -> set[bytes]:
        """Those of the packs that are gone, or go, because a collector of garbage deletes them: no index lists them any
        longer. Loads all of the index anew."""
        now = Holdings(self._secrets, self._store)
        if self._cache is not None:
            now.use_cache(self._cache)
        with now.loaded():
            return set(packs) - (set(now.table.packs()) - now.going.doomed)

    def write(self, replaced: Sequence[str] = ()) -> int:
        """Write an index object for the packs that none lists yet. Returns its bytes; 0 when there is nothing to say.

        ``replaced`` are index objects that cannot be read: all that they listed was found again."""
        with self.loaded():
            packs = self._unlisted.take()
            links = list(self.met.heads())
        if not packs and not replaced and not any(each.name.startswith(layout.LOSSES) for each in links):
            return 0
        gone = [Link(each, bytes(layout.DIGEST_LENGTH)) for each in replaced]
        try:
            return self.list_packs(Listed(packs, links, gone))
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
            self._hoard.keep(self.table)
        self._tidy()
        return len(data)

    def forget(self, packs: Container[bytes]) -> None:
        """These were deleted."""
        with self._lock:
            self.table.drop(each for each in self.table.packs() if each in packs)
            self._unlisted.forget(packs)

    def lose(self, noted: Loss) -> None:
        """Make a loss durable. From then on nothing counts as stored because of the copies in it."""
        name = loss.key_of(noted.id)
        data = seal.seal_object(self._secrets, layout.Kind.LOSS, name, loss.encode(noted))
        objects.put(self._store, name, data)
        with self._lock:
            self.met.add_digest(Link.to(name, data))
            self._take(noted)

    def _load_once(self) -> None:
        if not self._loaded:
            self.refresh()

    def _load_losses(self) -> dict[str, errors.Damaged]:
        """An error for each that cannot be read."""
        unread: dict[str, errors.Damaged] = {}
        for name in self.met.fresh(objects.names(self._store, layout.LOSSES)):
            try:
                data = self._store.read(name)
                found = loss.decode(name, seal.open_object(self._secrets, layout.Kind.LOSS, name, data))
            except errors.Damaged as error:
                unread[name] = error
                continue
            self.met.add_digest(Link.to(name, data))
            self._take(found)
        return unread

    def _take(self, found: Loss) -> None:
        self.doubts += 1
        self.losses.append(found)
        self.table.doubt(found.copies)

    def _load_indexes(self) -> dict[str, errors.Damaged]:
        """An error for each that cannot be read: a damaged one costs reading the packs' own, nothing else."""
        unread: dict[str, errors.Damaged] = {}
        vanished: set[str] = set()
        while True:
            there = objects.names(self._store, layout.INDEXES)
            count = len(vanished)
            for name in self.met.fresh(there):
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
        self._hoard.keep(self.table, loading=True)

    def read_listed(self, name: str) -> tuple[Link, Listed]:
        """An index object, whether it is loaded or not. ``Damaged``."""
        data = self._store.read(name)
        payload = seal.open_object(self._secrets, layout.Kind.INDEX, name, data)
        return Link.to(name, data), listing.decode(name, payload, layout.version_of(data, layout.Kind.INDEX, name))

    def _forget_gone(self, there: Iterable[str]) -> bool:
        """Index objects that are not there any longer. True where all others are to be loaded anew."""
        gone = self.met.gone(there)
        if gone:
            config.require(self._store)
            self._forget(gone)
        is_unused, self._is_unused = self._is_unused, False
        if is_unused and 2 * self.table.dropped_chunks > len(self.table):
            self._start_over()
            return True
        return False

    def _start_over(self) -> None:
        """Most of what the cache has is of index objects that are gone: load the others anew."""
        self._hoard.remove_all(self.table)
        self._begin()
        self.shifts += 1
        self._forget(self.met.indexes())

    def _take_up(self, written: Link, listed: Listed) -> None:
        """An index object that was read or written, once its packs are in the table."""
        packs = b"".join(entries.pack_id for entries in listed.packs)
        replaced = tuple(each.name for each in listed.replaced)
        known = Known(written, tuple(listed.links), replaced, packs)
        self.met.add(known)
        self._hoard.add(known)

    def _enter(self, entries: PackEntries) -> bool:
        if entries.pack_id in self.table:
            return False
        self.table.add(entries, loss.copies_of(self.losses, entries.pack_id))
        return True

    def _note(self, error: errors.Damaged) -> None:
        with self._lock:
            if str(error) not in map(str, self.damaged):
                self.damaged.append(error)
