r"""Which of the remaining blocks a round copies now, and which it defers.

A block is copied where the risk that it is dirtied again before the deadline, so that the copy was in vain, is below a
threshold. Far from the deadline the threshold is what feedback on waste has made of it: waiting costs nothing, there
are more rounds to come. What is needed of the time that is left raises it, up to ``LAST``, where no round will follow:

::

    threshold   LAST    |                            /   threshold(need) = far + (LAST - far) * need ** 2
                        |                         /
                far     |______________________/
                        0        need          1         need = (copying what remains + one more rotation) / time left

The time left shrinks the risk by itself: at the deadline only what is dirtied all the time is still deferred.
"""

from __future__ import annotations

from dataclasses import dataclass

from headstart import units
from headstart.backup import heat as heats
from headstart.backup import learning
from headstart.backup.heat import Heat, Kind
from headstart.backup.learning import Learned
from headstart.blocks import Blocks

#: A copy in vain costs one read; one that holds saves a read, and a block of residue that is worth two or three.
LAST = 0.7
#: Without a deadline a copy should hold for so long.
HORIZON = 3600.0
#: A rotation, and what must pass between two of them, about: seconds of the time left that are not for copying.
OVERHEAD = 8.0
#: Bytes a second where no copying was seen yet.
RATE = 50.0 * units.MIB
#: A round copies what can be copied in so many seconds, the coldest first: what it goes by grows old.
ROUND_SECONDS = 300.0
#: Above its own load in so large a share of the time the VM is busy: the same copy is made later while there is time.
BUSY = 0.75
#: Busy or not, it is copied when so large a share of the time left is needed: who is busy now may be so until the
#: deadline, and halt us. (With 0.25 a VM that was busy for ten hours kept 140 times the residue that it had to.)
PRESSING = 0.02
#: So many remaining blocks between chosen ones go along: a request more costs a reader as much as about one block (the
#: agent reads scattered blocks of 64 KiB at 70 MB/s and runs of 1 MiB at 122 MB/s).
GAP = 1


@dataclass(frozen=True, slots=True)
class Situation:
    """``remaining`` bytes of all disks of a VM, ``rate`` at which they were copied lately (bytes a second), and
    ``rank``: the share of the time in which the VM's load is below what it is now. None: not known, or no
    deadline."""

    now: float
    deadline: float | None = None
    remaining: int = 0
    rate: float | None = None
    rank: float | None = None

    @property
    def left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - self.now)

    @property
    def need(self) -> float:
        """The share of the time left that copying everything would need, 0 to 1."""
        if self.left is None:
            return 0.0
        seconds = self.remaining / max(self.rate or RATE, 1.0) + OVERHEAD
        return min(1.0, seconds / max(self.left, 1e-3))

    @property
    def waits(self) -> bool:
        """The VM is busy, and there is time."""
        return self.left is not None and self.rank is not None and self.rank > BUSY and self.need < PRESSING


@dataclass(frozen=True, slots=True)
class Selection:
    """``now`` and ``later`` are the remaining blocks. ``vain``: how many of ``now`` are copied in vain, as expected.
    ``unfinished``: some of ``later`` are only left out because there are too many for one round."""

    now: Blocks
    later: Blocks
    vain: float
    threshold: float
    reason: str
    unfinished: bool = False


def select(
    remaining: Blocks, heat: Heat, learned: Learned, situation: Situation, block_size: int = units.BLOCK_SIZE
) -> Selection:
    """Of one disk; after ``heat`` and ``learned`` have seen the round. ``situation`` is that of the VM."""
    if situation.waits:
        return Selection(Blocks(), remaining, 0.0, 0.0, "the VM is busier than usual, and there is time")
    threshold = limit(learned, situation)
    seconds = HORIZON if situation.left is None else situation.left
    risks = [
        (learning.risk(learned, each.age, each.often, seconds), number, each)
        for number, each in enumerate(heats.kinds(heat, remaining, situation.now))
    ]
    fit = sorted(each for each in risks if each[0] < threshold)
    now, vain, cut = _coldest([(risk, kind) for risk, _, kind in fit], _most(situation, block_size))
    if not cut:
        now |= _between(now, remaining - now)
    why = f"a risk of less than {threshold:.0%} to be written again"
    if cut:
        why += f"; of these what can be copied in {units.format_seconds(ROUND_SECONDS)}"
    return Selection(now, remaining - now, vain, threshold, why, cut)


def limit(learned: Learned, situation: Situation) -> float:
    """The risk below which a block is copied."""
    return learned.threshold + (LAST - learned.threshold) * situation.need**2


def _most(situation: Situation, block_size: int) -> int:
    """Blocks."""
    return max(1, int((situation.rate or RATE) * ROUND_SECONDS) // block_size)


def _coldest(fit: list[tuple[float, Kind]], most: int) -> tuple[Blocks, float, bool]:
    now, vain = Blocks(), 0.0
    for risk, kind in fit:
        room = most - len(now)
        if len(kind.blocks) > room:
            now |= kind.blocks[:room]
            return now, vain + room * risk, True
        now |= kind.blocks
        vain += len(kind.blocks) * risk
    return now, vain, False


def _between(chosen: Blocks, others: Blocks) -> Blocks:
    """Of the others, runs of at most ``GAP`` between two chosen blocks."""
    found = Blocks()
    if not others:
        return found
    for length in range(1, GAP + 1):
        ends = chosen & chosen.shift(-length - 1)
        for offset in range(1, length + 1):
            found |= ends.shift(offset)
    return found & others
