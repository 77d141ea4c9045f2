"""Traces of writes, made up from half-hour figures of production VMs.

The volume of each half hour and the load are real, the addresses are not: there are none in the data. What is assumed
of them stands in ``Assumption``, and the sweep varies it. Nothing here is a recorded trace.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import random
from array import array
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from headstart.simulation.load import Load
from headstart.simulation.trace import Trace
from headstart.simulation.world import World
from headstart.units import BLOCK_SIZE, MIB

DATA = Path(__file__).parent / "data" / "cloudphysics-half-hours.csv.gz"
WINDOW = 1800.0
WEEK = 336
DAY = 86400.0
BANDWIDTH = 100.0 * MIB
#: A trace is a sample of so many writes to different places, about, however much the VM writes.
PLACES = 60_000
#: The hot set holds this share of what is written in a day, and is drawn from with this exponent of Zipf's.
HOT_SET, ZIPF = 0.02, 0.9
#: A page of the hot set is written again in a half hour so often as the figures say, but at most.
MOST_REWRITES = 16.0
#: Of the writes outside of the hot set, so many go where something was written before; the others to new places.
AGAIN = 0.6

DISTANCES = ("hours", "day", "week")


@dataclass(frozen=True, slots=True)
class Assumption:
    """``hot``: the share of writes to different pages that go to the hot set. ``run``: bytes written in one piece.
    ``distance``: how long ago what is written again was written: an hour and a half on average (geometric), up to a
    day (each power of two alike), or any time."""

    hot: float = 0.45
    run: int = 64 * 1024
    distance: str = "day"


@dataclass(frozen=True, slots=True)
class HalfHour:
    unique: int
    rewrites: float
    moved: int


def vms() -> dict[str, list[HalfHour]]:
    """By name; the first week."""
    found: dict[str, list[HalfHour]] = defaultdict(list)
    with gzip.open(DATA, "rt", newline="") as file:
        for row in csv.DictReader(file):
            unique = int(row["unique_written_bytes"])
            rewrites = int(row["written_pages_4k"]) * 4096 / unique if unique else 1.0
            found[row["vm"]].append(HalfHour(unique, rewrites, int(row["read_bytes"]) + int(row["write_bytes"])))
    return {name: halves[:WEEK] for name, halves in found.items()}


def world(halves: list[HalfHour], assumed: Assumption, seed: str, bandwidth: float = BANDWIDTH) -> World:
    """Of one VM. The same arguments make the same world."""
    total = sum(each.unique for each in halves)
    scale = max(1, math.ceil(total / assumed.run / PLACES))
    trace = _Writer(halves, assumed, scale, random.Random(seed)).trace()
    end = math.ceil(len(halves) * WINDOW / DAY) * DAY
    return World(trace, load_of(halves, end), DAY, bandwidth, scale)


def load_of(halves: list[HalfHour], end: float) -> Load:
    """Bytes moved in a half hour, as a share of those in the busiest."""
    most = max(each.moved for each in halves) or 1
    moments = [number * WINDOW for number in range(len(halves) + 1)]
    return Load(moments, [*(each.moved / most for each in halves), 0.0], end)


def _blocks(assumed: Assumption) -> int:
    return max(1, assumed.run // BLOCK_SIZE)


class _Writer:
    """Writes a trace, window by window. A place is a run of blocks that is written to in one piece."""

    def __init__(self, halves: list[HalfHour], assumed: Assumption, scale: int, source: random.Random) -> None:
        self._halves = halves
        self._assumed = assumed
        self._scale = scale
        self._source = source
        daily = sum(each.unique for each in halves) / len(halves) * 48
        self._hot_set = max(1, round(HOT_SET * daily / assumed.run / scale))
        self._weights = list(itertools.accumulate(1 / (rank + 1) ** ZIPF for rank in range(self._hot_set)))
        # Hot places lie anywhere among the others.
        self._next = self._hot_set
        self._history: list[list[int]] = []

    def trace(self) -> Trace:
        writes: list[tuple[float, int]] = []
        for number, half in enumerate(self._halves):
            places = self._places(half, number)
            source = self._source
            writes += sorted((number * WINDOW + source.random() * WINDOW, place) for place in places)
        return self._laid_out(writes)

    def _places(self, half: HalfHour, number: int) -> list[int]:
        count = half.unique / self._assumed.run / self._scale
        hot = count * self._assumed.hot * min(max(half.rewrites, 1.0), MOST_REWRITES)
        cold = [self._cold(number) for _ in range(self._rounded(count * (1 - self._assumed.hot)))]
        self._history.append(cold)
        return cold + self._source.choices(range(self._hot_set), cum_weights=self._weights, k=self._rounded(hot))

    def _cold(self, number: int) -> int:
        if self._source.random() < AGAIN:
            window = number - self._distance(number)
            if window >= 0 and self._history[window]:
                return self._source.choice(self._history[window])
        self._next += 1
        return self._next - 1

    def _distance(self, number: int) -> int:
        """Windows ago, 1 or more."""
        match self._assumed.distance:
            case "hours":
                return 1 + int(self._source.expovariate(1 / 2.5))
            case "day":
                return int(2 ** (self._source.random() * math.log2(49)))
        return self._source.randint(1, max(1, number))

    def _rounded(self, count: float) -> int:
        """Up or down at random, so that it is right on average."""
        return int(count + self._source.random())

    def _laid_out(self, writes: list[tuple[float, int]]) -> Trace:
        """Hot places are scattered over the disk, the others lie in the order in which they were written first."""
        blocks = _blocks(self._assumed)
        at = list(range(self._next))
        hot = self._source.sample(range(self._next), self._hot_set)
        for place, other in enumerate(hot):
            at[place], at[other] = at[other], at[place]
        moments, numbers = array("d"), array("I")
        for moment, place in writes:
            first = at[place] * blocks
            moments.extend([moment] * blocks)
            numbers.extend(range(first, first + blocks))
        size = self._next * blocks * BLOCK_SIZE
        return Trace(size, moments, numbers, array("d"), [], {}, moments[-1])
