"""The ledger's records: which number goes where, and what its bytes are. The writer and the checker share this.

Record ``number`` (1, 2, 3 ...) goes to one slot of one disk, both following from the number; the disks take turns.
Each of its sectors tells which record it belongs to, so that a torn record can be seen::

    0   8s  magic          24  Q  previous record in this slot, 0 for none     44   filler, from seed and number
    8   Q   seed           32  I  slot                                         508  I  CRC-32 of what stands before
    16  Q   number         36  I  sector of the record
                           40  I  disk
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SECTOR = 512
MAGIC = b"HSledger"
HEADER = struct.Struct("<8sQQQIII")
CHECKSUM = struct.Struct("<I")
FILLER = SECTOR - HEADER.size - CHECKSUM.size

#: A prime, so that numbers next to each other fall far apart.
SCATTER = 2654435761


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a ledger lives: ``slots`` records of ``record`` bytes from ``offset`` on, on each of the disks.

    12 KiB divide no power of two: every few records one lies across the border of two tracked blocks.
    """

    seed: int
    disks: int
    offset: int = 0
    slots: int = 1000
    record: int = 12 * 1024

    @property
    def length(self) -> int:
        return self.slots * self.record

    def place(self, number: int) -> tuple[int, int]:
        """Disk and slot of a record: by turns the next slot in rotation, and any."""
        turn, disk = divmod(number - 1, self.disks)
        if turn % 2 == 0:
            return disk, turn // 2 % self.slots
        return disk, (number ^ self.seed) * SCATTER % (1 << 32) % self.slots

    def position(self, slot: int) -> int:
        return self.offset + slot * self.record

    def encode(self, number: int, previous: int) -> bytes:
        disk, slot = self.place(number)
        sectors = self.record // SECTOR
        filler = random.Random(f"{self.seed}:{number}").randbytes(sectors * FILLER)
        pieces = []
        for sector in range(sectors):
            header = HEADER.pack(MAGIC, self.seed, number, previous, slot, sector, disk)
            piece = header + filler[sector * FILLER : (sector + 1) * FILLER]
            pieces += [piece, CHECKSUM.pack(zlib.crc32(piece))]
        return b"".join(pieces)


class History:
    """Which record stands in each slot after the first n of them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._newest: dict[tuple[int, int], tuple[int, int]] = {}
        self.last = 0

    def advance(self, number: int) -> None:
        """Go on to the state after this record."""
        while self.last < number:
            self.last += 1
            place = self._layout.place(self.last)
            self._newest[place] = (self.last, self.newest(*place))

    def newest(self, disk: int, slot: int) -> int:
        """The number in a slot, 0 if it was never written."""
        return self._newest.get((disk, slot), (0, 0))[0]

    def content(self, disk: int, slot: int) -> bytes:
        number, previous = self._newest.get((disk, slot), (0, 0))
        return self._layout.encode(number, previous) if number else bytes(self._layout.record)


def numbers(record: bytes, seed: int) -> Iterator[int | None]:
    """The record number that each sector claims: 0 for zeroes, None for what is no sector of this ledger."""
    for start in range(0, len(record), SECTOR):
        sector = record[start : start + SECTOR]
        if sector == bytes(SECTOR):
            yield 0
            continue
        magic, its_seed, number, *_ = HEADER.unpack_from(sector)
        (checksum,) = CHECKSUM.unpack_from(sector, SECTOR - CHECKSUM.size)
        sound = magic == MAGIC and its_seed == seed and checksum == zlib.crc32(sector[: -CHECKSUM.size])
        yield number if sound else None
