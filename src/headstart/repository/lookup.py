"""Which copy of a chunk is meant, where there are several: one that is not known to be bad, in a pack that stays."""

from __future__ import annotations

from collections.abc import Iterable

from headstart.blocks import Blocks
from headstart.repository.going import Going
from headstart.repository.stack import Stack
from headstart.repository.table import Location


class Lookup:
    """``IndexError`` from any of it: a damaged cache is to blame. Changes nothing."""

    def __init__(self, table: Stack, going: Going) -> None:
        self._table = table
        self._going = going

    def find(self, chunk_id: bytes) -> Location | None:
        """A copy to read: a bad one where there is no other, which may have come back."""
        position = self.place(chunk_id)
        return None if position < 0 else self._table.location(position)

    def place(self, chunk_id: bytes) -> int:
        """Of a copy that stays, where there is one; -1 when there is none at all."""
        position = self._table.position(chunk_id)
        if position < 0:
            return self._table.doubtful_position(chunk_id)
        if not self._going.aside or self._table.pack_of(position) not in self._going.aside:
            return position
        return self._staying(chunk_id, position)

    def _staying(self, chunk_id: bytes, otherwise: int) -> int:
        found = self._table.positions(chunk_id)
        return next((each for each in found if self._table.pack_of(each) not in self._going.aside), otherwise)

    def holders(self, chunk_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """By chunk, a pack that has it, and that something new may be built on. Chunks without one are left out."""
        found: dict[bytes, bytes] = {}
        for chunk_id in chunk_ids:
            position = self._table.position(chunk_id)
            pack_id = None if position < 0 else self._table.pack_of(position)
            if pack_id in self._going.aside:
                position = self._staying(chunk_id, -1)
                pack_id = None if position < 0 else self._table.pack_of(position)
            if pack_id is not None:
                found[chunk_id] = pack_id
        return found

    def locate(self, chunk_ids: Iterable[bytes]) -> tuple[dict[bytes, Location], list[bytes]]:
        """In the order in which they lie in the packs; and those that are nowhere."""
        places: dict[int, bytes] = {}
        unknown: list[bytes] = []
        for chunk_id in chunk_ids:
            position = self.place(chunk_id)
            if position < 0:
                unknown.append(chunk_id)
            else:
                places[position] = chunk_id
        return {places[each.position]: each for each in self._table.locations(sorted(places))}, unknown

    def others(self, chunk_id: bytes, location: Location) -> list[Location]:
        """Where else a chunk lies: two writers that knew nothing of each other put it, or one pack was lost."""
        return [self._table.location(each) for each in self._table.positions(chunk_id) if each != location.position]

    def believed(self) -> Blocks:
        """The positions of all copies that are not known to be bad, nor being deleted."""
        found = self._table.believed()
        for each in self._going.doomed:
            if each in self._table:
                span = self._table.positions_of(each)
                found.remove_range(span.start, span.stop)
        return found
