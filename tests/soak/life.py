"""The life of one simulated VM and its backups, by a seed: cycles of writes, rounds and a backup, each disturbed."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headstart.backup.complete import Options
from headstart.backup.report import BackupReport
from tests.kit import inorder
from tests.kit.compare import WrongBytes
from tests.kit.script import Script
from tests.kit.world import BLOCK, CALM, NAME, USUAL, World
from tests.soak import plants
from tests.soak.chance import Chance

#: After so many cycles a new VM begins.
CYCLES = 25
#: Whatever has been: each so many cycles the owner puts right what only he can, and the backup has to succeed.
HEALED = 5


@dataclass(slots=True)
class Lived:
    """What happened; ``failure`` says what must not have, if anything did."""

    seed: int
    cycles: int = 0
    wrong: int = 0
    failure: str = ""
    faults: Counter[str] = field(default_factory=Counter)


def live(seed: int, cycles: int = CYCLES, *, plant: str = "") -> Lived:
    found = Lived(seed)
    chance = Chance(seed, audited=not plant or plant in plants.AUDITED)
    with _scratch() as folder, inorder.in_order(seed, BLOCK), plants.planted(plant):
        world = World(chance.vm(), folder)
        try:
            while found.cycles < cycles:
                _cycle(world, chance, healed=found.cycles % HEALED == HEALED - 1)
                found.cycles += 1
            _end(world)
        except AssertionError as error:
            found.failure = str(error) or repr(error)
            found.wrong = error.count if isinstance(error, WrongBytes) else 0
        except Exception:
            found.failure = traceback.format_exc()
        found.faults = world.faults
    return found


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="headstart-", dir=memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cycle(world: World, chance: Chance, *, healed: bool) -> None:
    for _ in range(chance.below(4)):
        chance.guest().happen(world)
    if chance.one_in(4):
        chance.owner().happen(world)
        world.marks_lost = True
        world.faults["the owner disturbs"] += 1
    if chance.one_in(6):
        _misfortune(world, chance)
    for _ in range(chance.below(3)):
        world.precopy(chance.script())
    if chance.one_in(3):
        # The administrator believes an agent that was found false.
        world.journal.trust(NAME)
    if chance.one_in(6):
        world.collect(asleep=chance.one_in(3), hasty=chance.one_in(2))
    if healed:
        world.heal()
    hastened = world.hastened
    report = _backup(world, chance.calm() if healed else chance.script(), chance.options())
    if report is None and healed and hastened:
        report = _backup(world, CALM, chance.options())
    assert report is not None or not healed, "a backup failed that nothing disturbed"


def _backup(world: World, script: Script, options: Options) -> BackupReport | None:
    """What is not the owner's doing costs no comparison of a whole disk: the marks are still there."""
    lost_before, world.marks_lost = world.marks_lost, False
    report = world.backup(script, options)
    # Off, a disk may have nothing that tells, and no mark can be begun.
    world.marks_lost = world.marks_lost or world.vm.process is None
    if report is None:
        world.marks_lost = world.marks_lost or lost_before
        return None
    compared = {disk.name: disk.reason for disk in report.disks if disk.compared and disk.name not in world.untracked}
    excused = lost_before or world.marks_lost
    assert excused or not compared, f"compared although nothing had happened to the marks: {compared}"
    return report


def _misfortune(world: World, chance: Chance) -> None:
    number = chance.below(8)
    world.marks_lost = True
    match chance.below(9):
        case 0:
            world.copy_images()
        case 1 | 2 if world.copies:
            world.roll_back(number % len(world.copies), new_files=chance.one_in(2))
        case 3:
            world.copy_journal()
        case 4 if world.journals:
            world.put_back_journal(number % len(world.journals))
        case 5 if chance.one_in(3):
            world.lose_journal()
        case 6:
            world.lose_spool()
        case 7 if found := world.snapshots():
            world.forget(found[number % len(found)])
        case _:
            world.chosen ^= 1
    world.faults["a misfortune between runs"] += 1


def _end(world: World) -> None:
    world.heal()
    for _ in range(2):
        assert _backup(world, CALM, USUAL) is not None, "a backup at the end failed"
    world.check_everything()
