"""Which chunks are durable, and where: what the ``Holdings`` of a repository say, asked for chunks and packs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from headstart import errors
from headstart.blocks import Blocks
from headstart.repository import loss
from headstart.repository.holdings import Holdings
from headstart.repository.link import Link
from headstart.repository.loss import Loss
from headstart.repository.packtable import PackEntries
from headstart.repository.table import Location

_Found = TypeVar("_Found")


class Index:
    """The chunks known to be durable in the store. Any thread may use it."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._lacks_nothing: tuple[int, int] | None = None

    def __contains__(self, chunk_id: bytes) -> bool:
        return self._asked(lambda it: it.table.position(chunk_id)) >= 0

    def find(self, chunk_id: bytes) -> Location | None:
        """A copy to read: a bad one where there is no other, which may have come back."""
        return self._asked(lambda it: it.lookup.find(chunk_id))

    def holders(self, chunk_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """By chunk, a pack that has it, and that something new may be built on. Chunks without one are left out."""
        wanted = list(chunk_ids)
        return self._asked(lambda it: it.lookup.holders(wanted))

    def places(self, chunk_ids: Iterable[bytes]) -> list[int]:
        """The position of the copy of each chunk that is to stay: of those that have one."""
        wanted = list(chunk_ids)
        return self._asked(lambda it: [place for each in wanted if (place := it.lookup.place(each)) >= 0])

    def others(self, chunk_id: bytes, location: Location) -> list[Location]:
        """Where else a chunk lies: two writers that knew nothing of each other put it, or one pack was lost."""
        return self._asked(lambda it: it.lookup.others(chunk_id, location))

    def copies(self, positions: Iterable[int]) -> list[tuple[bytes, Location]]:
        with self._holdings.loaded() as it:
            found = it.table.locations(positions)
            return [(it.table.chunk_id(location.position), location) for location in found]

    def believed(self) -> Blocks:
        """The positions of all copies that are not known to be bad, nor being deleted."""
        with self._holdings.loaded() as it:
            return it.lookup.believed()

    def chunk_ids(self, positions: Iterable[int]) -> list[bytes]:
        """The chunks at these positions, which stay what they are as long as this index lives."""
        with self._holdings.loaded() as it:
            return list(map(it.table.chunk_id, positions))

    def missing(self, chunk_ids: Iterable[bytes]) -> list[bytes]:
        """Those of ``chunk_ids`` that are not known to be durable, each once."""
        wanted = dict.fromkeys(chunk_ids)
        return self._asked(lambda it: it.table.absent(wanted))

    def locate(self, chunk_ids: Iterable[bytes]) -> dict[bytes, Location | errors.Damaged]:
        """Where each chunk lies, in the order of the packs, or the error that says that it is nowhere.

        Unlike ``find`` it looks, for what is not known, at what other writers added, whether the cache is whole, then
        into packs that no index lists.
        """
        found: dict[bytes, Location | errors.Damaged] = {}
        known, unknown = self._find_all(dict.fromkeys(chunk_ids))
        found |= known
        for look in (self._holdings.refresh, self._holdings.recheck, self._holdings.adopt_all):
            if unknown:
                look()
                more, unknown = self._find_all(unknown)
                found |= more
        return found | {chunk_id: _nowhere(chunk_id) for chunk_id in unknown}

    def _find_all(self, chunk_ids: Iterable[bytes]) -> tuple[dict[bytes, Location], list[bytes]]:
        wanted = list(chunk_ids)
        return self._asked(lambda it: it.lookup.locate(wanted))

    def _asked(self, look: Callable[[Holdings], _Found]) -> _Found:
        """Once more where a damaged cache is to blame that it failed."""
        with self._holdings.loaded() as it:
            try:
                return look(it)
            except IndexError:
                it.recheck(again=True)
                return look(it)

    @property
    def shifts(self) -> int:
        """As long as this stays what it was, every pack that is known stands where it stood, and no damage was found in
        the cache. (``forget`` does not count: what was deleted does not come back.)"""
        with self._holdings.loaded() as it:
            return it.shifts

    def heads(self) -> tuple[Link, ...]:
        """The index objects and losses that no index object links yet."""
        with self._holdings.loaded() as it:
            return tuple(it.met.heads())

    def linked(self) -> dict[str, bytes]:
        """By name, the digest of everything that index objects say was there."""
        with self._holdings.loaded() as it:
            return it.met.linked()

    def digest(self, name: str) -> bytes | None:
        """Of an index object or loss that was read; None if it was not."""
        with self._holdings.loaded() as it:
            return it.met.digest(name)

    @property
    def unread(self) -> Mapping[str, errors.Damaged]:
        """By name, what is wrong with each index object and loss that could not be read at the last look."""
        with self._holdings.loaded() as it:
            return dict(it.unread)

    def entries(self, pack_id: bytes) -> PackEntries:
        """What is known of a pack."""
        with self._holdings.loaded() as it:
            return it.table.entries(pack_id)

    @property
    def has_losses(self) -> bool:
        """Whether a repair has noted content as lost. Of what was in no pack that is known, no copy is bad."""
        with self._holdings.loaded() as it:
            return it.table.has_doubts or any(each.hurt for each in it.losses)

    def lacks_any(self) -> bool:
        """Whether anything of what repairs noted has no good copy now. If not, nothing will as long as ``as_of`` stays
        what it is. Costs a look for each bad copy."""
        as_of = self.as_of
        if self.has_losses and self._lacks_nothing != as_of:
            hurt = [each for noted in self.all_losses() for each in noted.hurt]
            if self._asked(lambda it: it.table.lacks_any()) or any(
                each.chunks is None or self.missing(each.chunks) for each in hurt
            ):
                return True
            self._lacks_nothing = as_of
        return False

    @property
    def as_of(self) -> tuple[int, int]:
        """Another one as soon as copies that were good may not be any longer."""
        with self._holdings.loaded() as it:
            return it.doubts, it.shifts

    def all_losses(self) -> list[Loss]:
        with self._holdings.loaded() as it:
            return list(it.losses)

    def given_up(self, name: str) -> bool:
        """A repair has seen that this object is damaged or gone, and nobody misses it."""
        with self._holdings.loaded() as it:
            return name in it.met.replaced or any(name in each.objects for each in it.losses)

    def is_lost(self, pack_id: bytes) -> bool:
        """All copies in this pack are known to be bad."""
        with self._holdings.loaded() as it:
            return loss.copies_of(it.losses, pack_id) is None

    def packs(self) -> set[bytes]:
        """Every pack that is listed, or was adopted."""
        with self._holdings.loaded() as it:
            return set(it.table.packs())

    def span(self, pack_id: bytes) -> range:
        """The positions of the chunks of a pack."""
        with self._holdings.loaded() as it:
            return it.table.positions_of(pack_id)

    @property
    def doomed(self) -> frozenset[bytes]:
        """Packs that are being deleted."""
        with self._holdings.loaded() as it:
            return frozenset(it.going.doomed)

    @property
    def aside(self) -> frozenset[bytes]:
        """Packs that are condemned or doomed."""
        with self._holdings.loaded() as it:
            return frozenset(it.going.aside)


def _nowhere(chunk_id: bytes) -> errors.Damaged:
    name = chunk_id.hex()
    return errors.Damaged(f"Chunk {name} is missing: no pack of the repository holds it.", object=f"chunk {name}")
