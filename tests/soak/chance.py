"""What happens, drawn at random from a seed: the same seed draws the same."""

from __future__ import annotations

import random
from dataclasses import replace

from headstart.backup.complete import Options
from headstart.hypervisor.memory import MemoryVm
from tests.kit import events
from tests.kit.script import AgentScript, Collecting, Cut, Death, Event, Misread, Outage, Script, Trouble, Vice
from tests.kit.world import BLOCK

#: Most runs have 30 to 70 steps, 8 to 12 commits, 2 to 6 creations, and some reads.
STEPS, COMMITS, CREATIONS, READS = 70, 13, 9, 40
#: Most creations that a run has in which garbage is collected.
COLLECTIONS = 10
BLOCKS = 24
KINDS = ("plain", "plain", "iothread", "checkpoints", "checkpoints", "overlays", "overlays")
VICES: tuple[Vice | None, ...] = (None, None, "vanishes", "refuses", "lies", "is absent")
TROUBLES: tuple[Trouble, ...] = ("fails", "answer lost", "twice", "object lost")
#: Of the runs of the program, this share is disturbed; of these, each kind alike.
DISTURBED = 0.6


class Chance:
    """Not ``audited``: no backup is, and nothing happens that only an audit can find. Agents do not lie, and no disk is
    cut and grown again."""

    def __init__(self, seed: int, *, audited: bool = True) -> None:
        self._random = random.Random(seed)
        self._audited = audited

    def one_in(self, number: int) -> bool:
        return self._random.randrange(number) == 0

    def below(self, number: int) -> int:
        return self._random.randrange(number)

    def vm(self) -> MemoryVm:
        """One or two disks; every second one of an odd number of sectors. Raw ones keep no bitmaps over a restart; one
        in an iothread makes the point a pushed one; libvirt's checkpoints cannot be frozen; raw disks may stand on
        overlays of ours."""
        draw = self._random
        counts = [draw.randint(3, 22) for _ in range(draw.randint(1, 2))]
        sizes = dict(zip("ab", (count * BLOCK - 512 * (count % 2) for count in counts), strict=False))
        kind = draw.choice(KINDS)
        raw: tuple[str, ...] = draw.choice(((), ("b",), ("a", "b")))
        vm = MemoryVm(
            sizes,
            BLOCK,
            raw=raw,
            iothreads=("a",) if kind == "iothread" else (),
            checkpoints=kind == "checkpoints",
            overlays=raw if kind == "overlays" else (),
        )
        vm.agent = draw.choice(("none", "answers", "silent"))
        return vm

    def guest(self) -> Event:
        draw = self._random
        disk, block = draw.randint(0, 1), draw.randint(0, BLOCKS)
        return draw.choice(
            (
                events.GuestWrite(disk, block, draw.choice(("fresh", "zero", "common", "again"))),
                events.GuestWrite(disk, block),
                events.GuestBegins(disk, block, draw.choice(("old", "torn", "new"))),
                events.GuestDiscards(disk, block),
                events.GuestFinishes(),
            )
        )

    def owner(self) -> Event:
        draw = self._random
        disk = draw.randint(0, 1)
        found: list[Event] = [events.OwnerDoes(deed, disk) for deed in events.DEEDS]
        found.append(events.Resize(disk, draw.randint(-6, 6), draw.random() < 0.5))
        found.append(events.ShrinkAndGrow(disk, draw.randint(1, 12)))
        chosen = draw.choice(found)
        return chosen if self._audited or not isinstance(chosen, events.ShrinkAndGrow) else events.GuestFinishes()

    def options(self) -> Options:
        draw = self._random
        return Options(
            plain=draw.random() < 0.2,
            audit=draw.choice((0, 4, 3000, None)) if self._audited else 0,
            freeze=draw.random() < 0.5,
        )

    def script(self) -> Script:
        draw = self._random
        writes = [(draw.randint(1, STEPS), self.guest()) for _ in range(draw.randint(0, 12))]
        calm = draw.random() > DISTURBED
        collecting = self._collecting()
        repeated = draw.randint(1, STEPS) if draw.random() < 0.5 else 0
        if not calm:
            return replace(self._disturbed(writes), collecting=collecting, repeated=repeated)
        clock = draw.uniform(-5000, 5000) if draw.random() < 0.1 else 0.0
        return Script(tuple(writes), agent=self._agent(), collecting=collecting, repeated=repeated, clock=clock)

    def _collecting(self) -> tuple[Collecting, ...]:
        """Twice, so that what was condemned before the run, or in it, is deleted in it."""
        draw = self._random
        if draw.random() < 0.6:
            return ()
        forgets = draw.randrange(100) if draw.random() < 0.5 else None
        hasty = draw.random() < 0.2
        first = Collecting(draw.randint(1, COLLECTIONS), forgets, draw.random() < 0.1, hasty)
        return (first, *(Collecting(draw.randint(1, COLLECTIONS), hasty=hasty) for _ in range(2)))

    def calm(self) -> Script:
        """The guest writes, and that is all."""
        return Script(tuple((self._random.randint(1, STEPS), self.guest()) for _ in range(self._random.randint(0, 12))))

    def _agent(self) -> AgentScript | None:
        draw = self._random
        if draw.random() < 0.5:
            return None
        vice = draw.choice(VICES)
        return AgentScript(None if vice == "lies" and not self._audited else vice, draw.randint(1, 12))

    def _disturbed(self, writes: list[tuple[int, Event]]) -> Script:
        draw = self._random
        agent = self._agent()
        match draw.randrange(5):
            case 0:
                return Script(tuple(writes), self._death(), agent=agent)
            case 1:
                outage = Outage(draw.randint(1, CREATIONS), draw.choice(TROUBLES), draw.random() < 0.5)
                return Script(tuple(writes), outage=outage, agent=agent)
            case 2:
                cut = Cut(draw.randint(1, STEPS), hangs=draw.random() < 0.5, late=draw.random() < 0.5)
                return Script(tuple(writes), cut=cut, agent=agent)
            case 3:
                return Script(tuple(writes), misread=Misread(draw.randint(1, READS), draw.random() < 0.5), agent=agent)
        return Script((*writes, (draw.randint(1, STEPS), self.owner())), agent=agent)

    def _death(self) -> Death:
        draw = self._random
        match draw.randrange(3):
            case 0:
                return Death("step", draw.randint(1, STEPS), guarded=draw.random() < 0.5)
            case 1:
                return Death("commit", draw.randint(1, COMMITS), draw.random() < 0.5)
        return Death("create", draw.randint(1, CREATIONS), draw.random() < 0.5)
