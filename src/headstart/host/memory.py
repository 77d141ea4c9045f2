"""What is remembered of the blocks of a VM's disks: heat, and what was learned from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from headstart.backup import forecast, learning
from headstart.backup import heat as heats
from headstart.backup.choice import Situation
from headstart.backup.forecast import Disk, Forecast
from headstart.backup.heat import Heat
from headstart.backup.learning import Learned
from headstart.blocks import Blocks
from headstart.state.series import Series


@dataclass(slots=True)
class Remembered:
    """Of one disk. ``remaining`` after the last choice; ``drafted``: blocks in the draft when its round ended;
    ``expected``: the residue, in blocks."""

    heat: Heat = field(default_factory=Heat)
    learned: Learned = field(default_factory=Learned)
    remaining: Blocks | None = None
    drafted: int = 0
    expected: float | None = None


class Memory:
    """Used by one thread. ``disks`` of the host share the room that there is."""

    def __init__(self, series: Series, vm: str, block_size: int) -> None:
        self._series = series
        self._vm = vm
        self._block_size = block_size
        self.disks: dict[str, Remembered] = {}
        for disk, (heat, learned) in series.heats(vm).items():
            try:
                self.disks[disk] = Remembered(heats.decode(heat), learning.decode(learned))
            except ValueError:
                # Of another version, or damaged: it is learned anew.
                continue

    def seen(self, disk: str, dirty: Blocks, wasted: Blocks, moment: float, room: int) -> Remembered:
        """A round reported ``dirty``; ``wasted`` of it had been copied. ``room`` in bytes."""
        known = self.disks.setdefault(disk, Remembered())
        known.learned = learning.seen(known.learned, known.heat, dirty, wasted, moment)
        known.heat = heats.fitted(heats.seen(known.heat, dirty, moment), room)
        return known

    def copied(self, disk: str, count: int, drafted: int) -> None:
        """A round is over: it copied so many blocks, and so many are in the draft."""
        known = self.disks.setdefault(disk, Remembered())
        known.learned = learning.copied(known.learned, count)
        known.drafted = drafted

    def completed(self, disk: str, residue: int, precopied: int) -> None:
        """A backup is complete. Blocks: what it read, and what it took from the draft."""
        known = self.disks.setdefault(disk, Remembered())
        vain = max(0, known.drafted - precopied)
        known.learned = replace(known.learned, wasted=known.learned.wasted + vain)
        expected = float(residue) if known.expected is None else known.expected
        known.learned = learning.completed(known.learned, residue, expected)
        known.heat = heats.completed(known.heat)
        known.remaining, known.drafted, known.expected = None, 0, None

    def forget_others(self, disks: Mapping[str, object]) -> None:
        """Disks that the VM has no longer."""
        for name in [name for name in self.disks if name not in disks]:
            del self.disks[name]

    def expect(self, situation: Situation) -> None:
        """Remember what is expected now, to be held against what comes."""
        for known in self.disks.values():
            if known.remaining is not None:
                known.expected = forecast.expected(self._disk(known), situation)

    def foresee(self, situation: Situation, free: int | None) -> Forecast:
        """``free``: bytes for scratch and spool."""
        disks = [self._disk(known) for known in self.disks.values()]
        return forecast.forecast(disks, situation, scratch_free=free, spool_free=free)

    def _disk(self, known: Remembered) -> Disk:
        return Disk(known.heat, known.learned, known.remaining or Blocks(), self._block_size)

    def dirtied_within(self, seconds: float) -> int:
        """Bytes that a round of this length reports, as expected."""
        found = (learning.dirtied_within(known.learned, seconds) for known in self.disks.values())
        return round(sum(each or 0.0 for each in found) * self._block_size)

    def keep(self) -> None:
        self._series.keep_heats(
            self._vm,
            {name: (heats.encode(known.heat), learning.encode(known.learned)) for name, known in self.disks.items()},
        )
