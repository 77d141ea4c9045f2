"""What a simulation is given, and what it finds out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from headstart import blocks, units
from headstart.backup import plan
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.simulation.copier import Portion
from headstart.simulation.load import Load
from headstart.simulation.trace import Trace

#: Above the load that is not exceeded in this share of the time the VM is under load.
BUSY_SHARE = 0.75


@dataclass(frozen=True, slots=True)
class World:
    """``period``: seconds from one deadline to the next, the first one that long after the trace's begin.

    ``scale``: each block of the trace stands for so many: a sample of a large VM at the rates of the whole. ``audit``:
    blocks that each backup compares in its window."""

    trace: Trace
    load: Load
    period: float
    bandwidth: float
    scale: int = 1
    audit: int = plan.AUDIT_BLOCKS

    @property
    def block_bytes(self) -> int:
        return units.BLOCK_SIZE * self.scale

    @property
    def deadlines(self) -> list[float]:
        return [number * self.period for number in range(1, count_of_deadlines(self.trace, self.period) + 1)]

    def bytes_of(self, found: Blocks) -> int:
        return blocks.total_bytes(found, units.BLOCK_SIZE, self.trace.disk_size) * self.scale

    def windows(self, totals: Totals) -> list[float]:
        """Seconds in which the residue is read, and the audit's sample, of each backup."""
        audited = min(self.audit * units.BLOCK_SIZE, self.trace.disk_size * self.scale)
        return [(each + audited) / self.bandwidth for each in totals.residues]


def count_of_deadlines(trace: Trace, period: float) -> int:
    """The trace's end, rounded up. A write at the very end belongs to the last one."""
    return max(1, math.ceil(trace.end / period))


@dataclass(frozen=True, slots=True)
class Copy:
    """``extent`` was read at ``moment``."""

    moment: float
    extent: Extent


@dataclass(slots=True)
class Totals:
    """Of one policy, over all deadlines. ``residues``: bytes at each; ``rotations``: when, of each round.

    ``copied = wasted + changed - residue``: what was copied and holds need not be copied any more."""

    changed: int = 0
    copied: int = 0
    wasted: int = 0
    under_load: int = 0
    residues: list[int] = field(default_factory=list)
    rotations: list[float] = field(default_factory=list)
    copies: list[Portion] = field(default_factory=list)

    @property
    def residue(self) -> int:
        return sum(self.residues)


def copies_of(portion: Portion, size: int) -> Iterator[Copy]:
    """One after the other, in the time that the portion took."""
    done, total = 0, max(1, len(portion.blocks))
    for extent in blocks.to_extents(portion.blocks, units.BLOCK_SIZE, size):
        yield Copy(portion.begin + portion.seconds * done / total, extent)
        done += blocks.count_of(extent.length, units.BLOCK_SIZE)
