"""The parts of an index, one above the other: those that are mapped, and at the top the one in memory."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence

from headstart.blocks import Blocks
from headstart.repository import loss
from headstart.repository.memtable import MemTable
from headstart.repository.packtable import PackEntries
from headstart.repository.table import Location, Part, new_slots


class Stack:
    """Every pack and chunk of a repository. Positions, once given out, stay. Not safe against changes from several
    threads."""

    def __init__(self) -> None:
        self.top = MemTable()
        self._parts: list[Part] = [self.top]
        self._firsts = [0]  # positions of the parts
        self._first_packs = [0]
        self._numbers: dict[bytes, int] = {}  # of the packs that are there
        #: Copies that are known to be bad; copies in packs that are not there. Neither is found by ``position``.
        self._doubted, self._dropped, self._hidden = Blocks(), Blocks(), Blocks()

    def __len__(self) -> int:
        return self.top.end.chunks

    def __contains__(self, pack_id: object) -> bool:
        return pack_id in self._numbers

    @property
    def mapped(self) -> Sequence[Part]:
        return self._parts[:-1]

    @property
    def dropped_chunks(self) -> int:
        return len(self._dropped)

    def add(self, entries: PackEntries, doubted: loss.Copies = loss.NONE) -> None:
        """``doubted``: those of its copies that are known to be bad."""
        self._numbers[entries.pack_id] = self.top.add(entries)
        self._doubt(entries.pack_id, doubted)

    def mount(self, mapped: Part) -> None:
        """A part with the base ``self.top.base``, while there is nothing in memory yet. A pack that is there already
        is not taken a second time."""
        self._grow(mapped)
        for pack_id, number in mapped.pack_numbers():
            if pack_id in self._numbers:
                self._drop(number)
            else:
                self._numbers[pack_id] = number

    def spill(self, mapped: Part) -> None:
        """The same that is in memory, in a file: it goes on in memory with nothing."""
        self._grow(mapped)

    def join(self, parts: Sequence[Part], mapped: Part) -> None:
        """In place of mapped parts that follow one another, all of them in one."""
        first = self._parts.index(parts[0])
        self._parts[first : first + len(parts)] = [mapped]
        self._number()

    def _grow(self, mapped: Part) -> None:
        self.top = MemTable(mapped.end)
        self._parts[-1:] = [mapped, self.top]
        self._number()

    def _number(self) -> None:
        self._firsts = [each.base.chunks for each in self._parts]
        self._first_packs = [each.base.packs for each in self._parts]

    def position(self, chunk_id: bytes) -> int:
        """-1 when it is not there."""
        for part in self._parts:
            position = part.find(chunk_id, self._hidden)
            if position >= 0:
                return position
        return -1

    def positions(self, chunk_id: bytes) -> Iterator[int]:
        """Of the chunk in every pack that has it; the one of ``position`` comes first."""
        return (position for position in self._all(chunk_id) if position not in self._hidden)

    def doubtful_position(self, chunk_id: bytes) -> int:
        """A copy that is known to be bad; -1 when there is none."""
        if not self._doubted:
            return -1
        found = (each for each in self._all(chunk_id) if each in self._doubted and each not in self._dropped)
        return next(found, -1)

    def _all(self, chunk_id: bytes) -> Iterator[int]:
        for part in self._parts:
            yield from part.find_all(chunk_id)

    def absent(self, chunk_ids: Iterable[bytes]) -> list[bytes]:
        """Those without a position."""
        left, hidden = list(chunk_ids), self._hidden
        for part in self._parts:
            if len(part):
                find = part.find
                left = [chunk_id for chunk_id in left if find(chunk_id, hidden) < 0]
        return left

    def doubt(self, copies: Mapping[bytes, loss.Copies]) -> None:
        """From now on these copies, by pack, are not found by ``position``."""
        for pack_id in copies.keys() & self._numbers.keys():
            self._doubt(pack_id, copies[pack_id])

    def _doubt(self, pack_id: bytes, copies: loss.Copies) -> None:
        if copies is None or copies:
            part, number = self._of_pack(self._numbers[pack_id])
            span = part.span(number)
            bad = span if copies is None else (each for each in span if part.chunk_id(each) in copies)
            found = Blocks(bad)
            self._doubted |= found
            self._hidden |= found

    @property
    def has_doubts(self) -> bool:
        return bool(self._doubted)

    def lacks_any(self) -> bool:
        """Whether a copy that is known to be bad is the only one."""
        return any(self.position(self.chunk_id(each)) < 0 for each in self._doubted - self._dropped)

    def believed(self) -> Blocks:
        """The positions of all copies that are there and not known to be bad."""
        found = Blocks()
        found.add_range(0, len(self))
        return found - self._hidden

    def entries(self, pack_id: bytes) -> PackEntries:
        part, number = self._of_pack(self._numbers[pack_id])
        return part.entries(number)

    def positions_of(self, pack_id: bytes) -> range:
        """Of the chunks of a pack."""
        part, number = self._of_pack(self._numbers[pack_id])
        return part.span(number)

    def pack_of(self, position: int) -> bytes:
        """The pack that a position belongs to."""
        return self._of_chunk(position).pack_of(position)

    def packs(self) -> list[bytes]:
        return list(self._numbers)

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Packs and their bytes."""
        for pack_id, number in self._numbers.items():
            part, _ = self._of_pack(number)
            yield pack_id, part.size(number)

    def give_up(self, part: Part) -> list[bytes]:
        """Nothing is found in this part any longer. Returns the packs that were there because of it."""
        gone = [pack_id for pack_id, number in part.pack_numbers() if self._numbers.get(pack_id) == number]
        part.columns.slots = new_slots(0)
        self.drop(gone)
        return gone

    def drop(self, pack_ids: Iterable[bytes]) -> None:
        """The chunks of these packs are not found any longer."""
        for pack_id in list(pack_ids):
            self._drop(self._numbers.pop(pack_id))

    def _drop(self, number: int) -> None:
        span = self._of_pack(number)[0].span(number)
        self._dropped.add_range(span.start, span.stop)
        self._hidden.add_range(span.start, span.stop)

    def chunk_id(self, position: int) -> bytes:
        return self._of_chunk(position).chunk_id(position)

    def location(self, position: int) -> Location:
        return next(self.locations([position]))

    def locations(self, positions: Iterable[int]) -> Iterator[Location]:
        """Cheapest where neighbours of one frame come one after the other."""
        for part, some in self._by_part(positions):
            yield from part.locations(some)

    def _by_part(self, positions: Iterable[int]) -> Iterator[tuple[Part, list[int]]]:
        part, some = self._parts[0], list[int]()
        span = range(part.base.chunks, part.end.chunks)
        for position in positions:
            if position not in span:
                if some:
                    yield part, some
                part, some = self._of_chunk(position), []
                span = range(part.base.chunks, part.end.chunks)
            some.append(position)
        if some:
            yield part, some

    def _of_chunk(self, position: int) -> Part:
        return self._parts[bisect.bisect_right(self._firsts, position) - 1]

    def _of_pack(self, number: int) -> tuple[Part, int]:
        return self._parts[bisect.bisect_right(self._first_packs, number) - 1], number
