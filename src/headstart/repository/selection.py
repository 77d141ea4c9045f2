"""Which packs are read back this time: all of them, a sample, or those whose turn has come.

A pack is what is chosen, because it is what a store loses, and what is read without a request for every chunk.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from headstart.repository import layout

DAY = 24 * 3600.0
_IDS = 1 << 8 * layout.OBJECT_ID_LENGTH


class Selection(Protocol):
    def of(self, packs: Collection[bytes]) -> set[bytes]:
        """Those of the packs that are to be read."""
        ...

    def passed(self, pack_id: bytes) -> None:
        """All that is known of this one was read, and is whole. Called as soon as it is so."""
        ...


class Memory(Protocol):
    """When each pack of a repository was last read and found whole, in seconds since 1970."""

    def known(self) -> Mapping[bytes, float]: ...

    def put(self, packs: Collection[bytes], moment: float) -> None: ...

    def forget(self, packs: Collection[bytes]) -> None: ...


class Everything:
    def of(self, packs: Collection[bytes]) -> set[bytes]:
        return set(packs)

    def passed(self, pack_id: bytes) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Share:
    """So many packs, or this part of them (0 to 1) and at least one."""

    count: int | None = None
    part: float = 1.0

    def out_of(self, packs: int) -> int:
        wanted = math.ceil(self.part * packs) if self.count is None else self.count
        return min(wanted, packs)


@dataclass(frozen=True, slots=True)
class Sample:
    """Drawn at random, new each time."""

    share: Share
    source: random.Random

    def of(self, packs: Collection[bytes]) -> set[bytes]:
        return set(self.source.sample(sorted(packs), self.share.out_of(len(packs))))

    def passed(self, pack_id: bytes) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Since:
    """All that was not read since ``begun``: a reading of everything that goes on after an interruption."""

    memory: Memory
    begun: float
    now: float

    def of(self, packs: Collection[bytes]) -> set[bytes]:
        known = _known_of(self.memory, packs)
        return {pack_id for pack_id in packs if not self.begun <= known.get(pack_id, -1.0) <= self.now}

    def passed(self, pack_id: bytes) -> None:
        self.memory.put([pack_id], self.now)


@dataclass(frozen=True, slots=True)
class Rolling:
    """Those whose turn has come: everything once in ``days``, by equal shares whenever it is run, what was missed
    included. A pack that nobody knows counts as if it had been read a day ago."""

    memory: Memory
    days: int
    now: float

    def of(self, packs: Collection[bytes]) -> set[bytes]:
        known = dict(_known_of(self.memory, packs))
        fresh = [pack_id for pack_id in packs if pack_id not in known]
        self.memory.put(fresh, self.now - DAY)
        known |= dict.fromkeys(fresh, self.now - DAY)
        return {pack_id for pack_id in packs if due(pack_id, known[pack_id], self.now, self.days)}

    def passed(self, pack_id: bytes) -> None:
        self.memory.put([pack_id], self.now)


def due(pack_id: bytes, read: float, now: float, days: int) -> bool:
    """Whether a pack's turn has come since it was read. Each has one moment in every ``days``, by its random id.

    ::

        turns      |------- days -------|------- days -------|
        read                     x                               due when ``now`` is past the next |
    """
    period = days * DAY
    turn = now - (now - int.from_bytes(pack_id, "big") / _IDS * period) % period
    return read < turn or read > now  # a clock that was put back has promised nothing


def _known_of(memory: Memory, packs: Collection[bytes]) -> Mapping[bytes, float]:
    """Of these packs; others are no more."""
    known = memory.known()
    here = set(packs)
    memory.forget([pack_id for pack_id in known if pack_id not in here])
    return known
