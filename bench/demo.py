"""``make demo``: the main job on a real VM that writes all the time, and proof that it was done.

::

    first full backup          with a head start
    day one                    rounds while the guest changes its blocks, read by the
                               agent in the guest and by the host in turn; backup      the figures: head start
    day two                    the same places and amounts, backup --plain             the figures: plain
    evening                    one more backup, audited in full, while the guest writes
    restore of the three       every byte compared

Leaves in build/demo: result.json, rounds.svg, and what was restored of day one. Exit status 0 only if identical.
"""

from __future__ import annotations

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import chart, day, machine, proof, scene, table
from bench.day import Day
from bench.replay import NotOneState
from bench.scene import VM_NAME, Scene
from headstart.units import MIB

FOLDER = Path(__file__).parents[1] / "build" / "demo"
WORK = FOLDER / "work"
RESTORED = FOLDER / "restored"

SEED_NIGHT, SEED_DAY_ONE, SEED_DAY_TWO = 1, 2, 3
#: The part of the regions that changes while the first backup runs, and how fast.
NIGHT_SHARE, NIGHT_RATE = 1 / 16, 2.0 * MIB


@dataclass(frozen=True, slots=True)
class Play:
    """What was done; the proof is still to come."""

    first: dict[str, Any]
    head_start: Day
    plain: Day
    #: The id of the audited backup.
    audited: str


class Clock:
    """Says what goes on, with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        self._console.print(f"{self.seconds:6.1f} s  {text}", highlight=False, soft_wrap=True)


def main() -> int:
    console = Console()
    clock = Clock(console)
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        clock.say("making two disks and booting a guest from them")
        with scene.running(WORK) as stage:
            play = perform(stage, clock)
            checks = prove(stage, play, clock)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    identical = all(check["identical"] for check in checks.values())
    write(play, checks, identical, clock.seconds)
    console.print(table.of(play.head_start, play.plain))
    verdict = "Every byte that was restored is what it was at its point in time." if identical else "NOT IDENTICAL."
    console.print(f"{verdict} See build/demo: result.json, rounds.svg, restored/.", highlight=False, soft_wrap=True)
    return 0 if identical else 1


def perform(stage: Scene, clock: Clock) -> Play:
    clock.say("first full backup, with a head start")
    first = first_backup(stage, clock)
    clock.say(f"day one: the guest changes {day.TOTAL >> 20} MiB, headstart copies ahead")
    head_start = day.with_head_start(stage, SEED_DAY_ONE, clock.say)
    clock.say(f"  backup: window {head_start.backup['window_seconds']:.3f} s")
    clock.say("day two: as much in the same places, and backup --plain")
    plain = day.plain(stage, SEED_DAY_TWO, clock.say)
    clock.say(f"  backup: window {plain.backup['window_seconds']:.3f} s")
    clock.say("evening: a backup that is audited in full while the guest writes; nbdcopy copies its point in time")
    audited = audited_backup(stage)
    return Play(first, head_start, plain, audited)


def first_backup(stage: Scene, clock: Clock) -> dict[str, Any]:
    with stage.churn(SEED_NIGHT, share=NIGHT_SHARE, rate=NIGHT_RATE):
        ahead = stage.headstart("precopy", VM_NAME, "--transport", "host")
        clock.say(f"  {ahead['copied_bytes'] >> 20} MiB copied ahead by the host")
        report = stage.headstart("backup", VM_NAME)
    clock.say(f"  backup: window {report['window_seconds']:.3f} s")
    return report


def audited_backup(stage: Scene) -> str:
    with stage.churn(SEED_NIGHT):
        stage.headstart("precopy", VM_NAME)
        hook = proof.copying_hook(stage.folder)
        report = stage.headstart("backup", VM_NAME, "--audit", "all", "--hook", hook)
    snapshot: str = report["snapshot"]
    return snapshot


def prove(stage: Scene, play: Play, clock: Clock) -> dict[str, dict[str, Any]]:
    """For each backup what was checked, and whether it held."""
    checks = {}
    for name, done in (("head_start", play.head_start), ("plain", play.plain)):
        clock.say(f"restoring and checking the backup of {name.replace('_', ' ')}")
        folder = RESTORED if done is play.head_start else WORK / name
        restore(stage, done.backup["snapshot"], folder)
        checks[name] = checked("writes_held", functools.partial(proof.check_measured, stage, folder, done))
    clock.say("restoring the audited backup and comparing every byte with the copy of its point in time")
    restore(stage, play.audited, WORK / "audited")
    every_byte = functools.partial(proof.check_audited, WORK / "audited", stage.folder)
    checks["audited"] = checked("bytes_compared", every_byte)
    for name, check in checks.items():
        clock.say(f"  {name}: {check}")
    return checks


def restore(stage: Scene, snapshot: str, folder: Path) -> None:
    stage.headstart("restore", snapshot, folder, "--format", "raw")


def checked(what: str, check: Callable[[], int]) -> dict[str, Any]:
    try:
        return {"identical": True, what: check()}
    except NotOneState as error:
        return {"identical": False, "difference": str(error)}


def write(play: Play, checks: dict[str, dict[str, Any]], identical: bool, seconds: float) -> None:
    result = {
        "identical": identical,
        "plain": play.plain.figures(),
        "head_start": play.head_start.figures(),
        "checks": checks,
        "first": play.first,
        "rounds": [each.report for each in play.head_start.rounds],
        "seconds": round(seconds, 1),
        "machine": machine.describe(),
    }
    (FOLDER / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    (FOLDER / "rounds.svg").write_text(chart.draw(play.head_start, play.plain))


if __name__ == "__main__":
    sys.exit(main())
