r"""How often and how lately the blocks of a disk were dirtied, as rounds told: what the selection goes by.

::

    age       now ...... minutes ................ hours ............................................. days
    sets      |g0|g1| g2 |  g3  |     g4      |          g5            |                 g6                   |
              disjoint; neighbours become one when they lie close together for their age (exponential histogram: Datar,
              Gionis, Indyk, Motwani, "Maintaining Stream Statistics over Sliding Windows", SODA 2002)
    counts    three planes of bits: a saturating counter from 0 to 7 for every entry, halved at each completion

All work is on whole sets. Losing it is harmless, a false one costs waste and residue, never data.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from headstart import blocks
from headstart.blocks import Blocks
from headstart.units import MIB

#: Bytes for all disks of a host together: see ``fitted``.
HOST_BYTES = 64 * MIB
#: What was quiet for longer is forgotten: a week and a day, so that a weekly job is remembered when it comes again.
KEPT_SECONDS = 8 * 86400.0
#: Sets become one when they are apart by less than this share of their age. Some 25 sets are left of a week.
NEAR = 0.3
#: A block that is reported again sooner was the same visit: rounds come faster towards a deadline, the guest does not.
VISIT_SECONDS = 240.0
PLANES = 3
#: Counts of 0 and 1, 2 and 3, 4 to 7.
COUNT_CLASSES = 3

_MAGIC = b"HSHEAT\x01"
_HEAD = struct.Struct("<BdBI")
_PART = struct.Struct("<dI")


@dataclass(frozen=True, slots=True)
class Generation:
    """Entries that were last dirtied about ``moment``."""

    moment: float
    entries: Blocks


@dataclass(frozen=True, slots=True)
class Heat:
    """Of one disk. Moments are seconds of any clock that outlives a restart. The sets are never changed in place.

    An entry stands for ``2 ** shift`` neighbouring blocks. ``generations`` are disjoint, newest first."""

    shift: int = 0
    moment: float | None = None
    generations: tuple[Generation, ...] = ()
    planes: tuple[Blocks, ...] = tuple(Blocks() for _ in range(PLANES))

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        sets = (*(each.entries for each in self.generations), *self.planes)
        return sum(_bytes_of(each) for each in sets)


@dataclass(frozen=True, slots=True)
class Kind:
    """Blocks that are alike: quiet for ``age`` seconds, dirtied about as often (a class of counts, 0 is seldom)."""

    age: float
    often: int
    blocks: Blocks


def seen(heat: Heat, dirty: Blocks, moment: float) -> Heat:
    """With one more round: ``dirty`` are the blocks it reported, ``moment`` is that of its rotation.

    They were dirtied at some time since the round before, in the middle on average."""
    now = moment if heat.moment is None else max(moment, heat.moment)
    since = now if heat.moment is None else max(heat.moment, now - KEPT_SECONDS)
    entries = coarse(dirty, heat.shift)
    recent = Blocks.union(Blocks(), *(each.entries for each in heat.generations if now - each.moment < VISIT_SECONDS))
    planes = _counted(heat.planes, entries - recent)
    kept = [_without(each, entries) for each in heat.generations if now - each.moment <= KEPT_SECONDS]
    gone = [each.entries for each in heat.generations if now - each.moment > KEPT_SECONDS]
    if gone:
        forgotten = Blocks.union(*gone) - entries if len(gone) > 1 else gone[0] - entries
        planes = tuple(plane - forgotten for plane in planes)
    generations = [Generation((since + now) / 2, entries), *kept]
    return Heat(heat.shift, now, _merged((each for each in generations if each.entries), now), planes)


def completed(heat: Heat) -> Heat:
    """A backup is complete: what was often is half as often."""
    return replace(heat, planes=(*heat.planes[1:], Blocks()))


def fitted(heat: Heat, size: int) -> Heat:
    """In at most ``size`` bytes: neighbours share an entry, which is as hot as the hotter of them."""
    while heat.size > size and heat.generations:
        heat = _coarser(heat)
    return heat


def kinds(heat: Heat, wanted: Blocks, now: float) -> Iterator[Kind]:
    """The wanted blocks, sorted out; those that no round has reported come last, with the greatest age."""
    rest = wanted
    for each in heat.generations:
        found = rest & fine(each.entries, heat.shift)
        if not found:
            continue
        rest = rest - found
        for often, chosen in enumerate(_by_count(heat, found)):
            if chosen:
                yield Kind(max(0.0, now - each.moment), often, chosen)
    if rest:
        yield Kind(KEPT_SECONDS, 0, rest)


def census(heat: Heat, generation: Generation, among: Blocks | None = None) -> tuple[int, ...]:
    """How many entries of a generation there are in each class of counts; ``among``: of these entries only."""
    found = generation.entries if among is None else generation.entries & among
    if not found:
        return (0,) * COUNT_CLASSES
    most = found.intersection_cardinality(heat.planes[2])
    some = found & heat.planes[1]
    few = len(some) - some.intersection_cardinality(heat.planes[2])
    return len(found) - most - few, few, most


def encode(heat: Heat) -> bytes:
    """For ``decode``, of this version."""
    moment = math.nan if heat.moment is None else heat.moment
    parts = [_HEAD.pack(heat.shift, moment, len(heat.planes), len(heat.generations))]
    parts += [_packed(0.0, plane) for plane in heat.planes]
    parts += [_packed(each.moment, each.entries) for each in heat.generations]
    body = zlib.compress(b"".join(parts), 1)
    return _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def decode(data: bytes) -> Heat:
    """Raises ``ValueError`` for what ``encode`` has not made. The sum guards against damage, not against malice."""
    start = len(_MAGIC)
    body = data[start + 4 :]
    if data[:start] != _MAGIC or zlib.crc32(body).to_bytes(4, "little") != data[start : start + 4]:
        raise ValueError("this is no heat of a disk, or a damaged one")
    try:
        return _decoded(zlib.decompress(body))
    except (struct.error, zlib.error) as error:
        raise ValueError(f"this heat of a disk is damaged: {error}") from error


def coarse(found: Blocks, shift: int) -> Blocks:
    """The entries of blocks."""
    if not shift:
        return found
    entries = Blocks()
    for first, count in blocks.runs(found):
        entries.add_range(first >> shift, ((first + count - 1) >> shift) + 1)
    return entries


def fine(entries: Blocks, shift: int) -> Blocks:
    """The blocks of entries."""
    if not shift:
        return entries
    found = Blocks()
    for first, count in blocks.runs(entries):
        found.add_range(first << shift, (first + count) << shift)
    return found


def _without(generation: Generation, entries: Blocks) -> Generation:
    if generation.entries.isdisjoint(entries):
        return generation
    return Generation(generation.moment, generation.entries - entries)


def _merged(generations: Iterable[Generation], now: float) -> tuple[Generation, ...]:
    found: list[Generation] = []
    for each in generations:
        if found and found[-1].moment - each.moment <= NEAR * (now - found[-1].moment):
            found[-1] = _joined(found[-1], each)
        else:
            found.append(each)
    return tuple(found)


def _joined(newer: Generation, older: Generation) -> Generation:
    """At the mean of their moments: those who stay together would drift towards the newest, or the oldest."""
    share = len(older.entries) / (len(newer.entries) + len(older.entries))
    return Generation(newer.moment + (older.moment - newer.moment) * share, newer.entries | older.entries)


def _counted(planes: tuple[Blocks, ...], entries: Blocks) -> tuple[Blocks, ...]:
    """One more for each of the entries: an adder, bit by bit; what overflows stays at the most."""
    carry, sums = entries, []
    for plane in planes:
        sums.append(plane ^ carry)
        carry = plane & carry
    return tuple(each | carry for each in sums) if carry else tuple(sums)


def _by_count(heat: Heat, found: Blocks) -> tuple[Blocks, ...]:
    if heat.shift:
        middle, high = (fine(plane & coarse(found, heat.shift), heat.shift) for plane in heat.planes[1:])
    else:
        _, middle, high = heat.planes
    most = found & high
    few = (found & middle) - most
    return found - most - few, few, most


def _coarser(heat: Heat) -> Heat:
    """Half as many entries. Newer generations go before older ones."""
    taken, generations = Blocks(), []
    for each in heat.generations:
        entries = coarse(each.entries, 1) - taken
        taken |= entries
        if entries:
            generations.append(Generation(each.moment, entries))
    planes = tuple(coarse(plane, 1) for plane in heat.planes)
    return Heat(heat.shift + 1, heat.moment, tuple(generations), planes)


def _bytes_of(entries: Blocks) -> int:
    told = entries.get_statistics()
    return sum(value for name, value in told.items() if name.startswith("n_bytes_") and isinstance(value, int))


def _packed(moment: float, entries: Blocks) -> bytes:
    optimized = entries.copy()
    optimized.run_optimize()
    data = optimized.serialize()
    return _PART.pack(moment, len(data)) + data


def _decoded(body: bytes) -> Heat:
    shift, moment, planes, generations = _HEAD.unpack_from(body)
    if planes != PLANES or shift > 32:
        raise ValueError("this heat of a disk is of another version")
    position, parts = _HEAD.size, []
    for _ in range(planes + generations):
        at, length = _PART.unpack_from(body, position)
        position += _PART.size
        parts.append(Generation(at, Blocks.deserialize(body[position : position + length])))
        position += length
    known = None if math.isnan(moment) else moment
    return Heat(shift, known, tuple(parts[planes:]), tuple(each.entries for each in parts[:planes]))
