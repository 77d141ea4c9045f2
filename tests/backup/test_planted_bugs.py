"""Bugs of the kind that loses blocks, planted one at a time: each must be found, and nothing without them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from headstart import errors
from headstart.backup import comparison, plan, publish
from headstart.backup.complete import Options
from headstart.backup.contact import Contact
from headstart.blocks import Blocks
from headstart.hypervisor.inventory import Disk, Recorder
from headstart.hypervisor.memory import MemoryImages, MemoryVm
from headstart.state.journal import Journal
from headstart.state.values import Tracked
from headstart.transfer.pipeline import Stored
from tests.kit.events import GuestWrite, OwnerStarts
from tests.kit.script import Outage, Script
from tests.kit.world import BLOCK, NAME, World
from tests.soak import plants

UNAUDITED = Options(audit=0)
#: More steps than a run has.
STEPS = range(1, 60)

Scenario = Callable[[World], None]


def new_world(folder: Path, kind: str) -> World:
    return World(MemoryVm({"a": 12 * BLOCK, "b": 12 * BLOCK}, BLOCK, checkpoints=kind == "checkpoints"), folder)


def written_at_any_step(world: World) -> None:
    """A block that was copied ahead is written again, at each step of a backup in turn."""
    for step in STEPS:
        world.vm.write("a", 3)
        world.precopy()
        assert world.backup(Script(((step, GuestWrite(0, 3)),)), UNAUDITED) is not None
        assert world.backup(options=UNAUDITED) is not None


def late_answer(world: World) -> None:
    """A reader of the last round comes with its block when the next round has begun and read it anew."""
    world.backup(options=UNAUDITED)
    world.vm.write("a", 3)
    world.precopy()
    round_id = world.journal.tracked(NAME)["a"].round
    old = dict(world.journal.copied_chunks(NAME, "a"))[3]
    world.vm.write("a", 3)
    world.precopy()
    with contextlib.suppress(errors.Locked):
        world.journal.copied(NAME, round_id, [Stored("a", 3, old)])
    assert world.backup(options=UNAUDITED) is not None


def lost_spool(world: World) -> None:
    """A backup that could not be published costs no comparison: the base bitmap of the last one still records."""
    world.backup()
    world.vm.write("a", 3)
    world.backup(Script(outage=Outage(2)), Options(plain=True))
    world.lose_spool()
    report = world.backup()
    assert report is not None
    assert not [disk.reason for disk in report.disks if disk.compared]


def put_back_after_an_offline_backup(world: World) -> None:
    """The image comes with the same base bitmap, and with less in it than the backup was made of."""
    world.backup(options=UNAUDITED)
    world.copy_images()
    world.vm.write("a", 3)
    world.turn_off()
    assert world.backup(options=UNAUDITED) is not None
    world.roll_back(0)
    assert world.backup(options=UNAUDITED) is not None


def written_before_the_end(world: World) -> None:
    """What was copied ahead is written again before the VM is shut down."""
    world.backup(options=UNAUDITED)
    world.vm.write("a", 3)
    world.precopy()
    world.vm.write("a", 3)
    world.turn_off()
    assert world.backup(options=UNAUDITED) is not None


def started_at_any_step(world: World) -> None:
    """While its images are read, and the guest writes at once."""
    world.backup(options=UNAUDITED)
    for step in range(1, 20):
        for block in (3, 5, 7, 9):
            world.vm.write("a", block)
        world.turn_off()
        between = (step, OwnerStarts()), (step + 1, GuestWrite(0, 3)), (step + 1, GuestWrite(0, 9))
        assert world.backup(Script(between), UNAUDITED) is not None
        world.heal()


def offline_backup_forgotten() -> Any:
    """What an offline backup was made of does not count afterwards, as after one of a running VM."""
    right = publish._follows_offline
    return mock.patch.object(publish, "_follows_offline", lambda *given: replace(right(*given), entire=Blocks()))


def rounds_not_read() -> Any:
    """What the marks of the rounds tell of a VM that is off does not leave the draft."""
    return mock.patch.object(Journal, "forget_copied", lambda *_: None)


def start_not_noticed() -> Any:
    return mock.patch.object(MemoryImages, "require_undisturbed", lambda _: None)


def killed_after_any_step(world: World) -> None:
    """Of a round, then of a backup: what was seen and not flushed is gone from the disk, and no overlay tells."""
    world.backup(options=UNAUDITED)
    for step in range(1, 40):
        again = Script(((step, GuestWrite(0, 3)),))
        for run in (lambda again=again: world.precopy(again), lambda again=again: world.backup(again, UNAUDITED)):
            world.vm.write("a", 3)
            assert run() is not None
            world.vm.kill()
            world.vm.start()
            report = world.backup(options=UNAUDITED)
            assert report is not None
            assert not [disk.reason for disk in report.disks if disk.compared]


def old_state(world: World) -> None:
    """Overlays that it does not know of were committed since, and told a newer one what was in them."""
    world.backup(options=UNAUDITED)
    world.copy_journal()
    world.vm.write("a", 3)
    world.precopy()
    world.put_back_journal(0)
    assert world.backup(options=UNAUDITED) is not None


def seen_before_lasting() -> Any:
    return mock.patch.object(Contact, "make_lasting", lambda *_: None)


def base_believed_by_itself() -> Any:
    """As if overlays kept what they recorded until they are removed."""
    right = plan.judge

    def planted(tracked: Tracked | None, disk: Disk, *rest: Any, **more: Any) -> plan.Verdict:
        return replace(right(tracked, replace(disk, recorder=Recorder.BITMAP), *rest, **more), disk=disk)

    return mock.patch.object(plan, "judge", planted)


LAYERED: list[tuple[Callable[[], Any], Scenario]] = [
    (seen_before_lasting, killed_after_any_step),
    (base_believed_by_itself, old_state),
]


@pytest.fixture
def layered(tmp_path: Path) -> Iterator[World]:
    """Raw disks on overlays of ours."""
    blind = comparison.Mismatch(Blocks(), Blocks(), Blocks())
    vm = MemoryVm({"a": 12 * BLOCK, "b": 12 * BLOCK}, BLOCK, raw=("a", "b"), overlays=("a", "b"))
    with mock.patch.object(comparison, "compare", lambda *_: blind):
        yield World(vm, tmp_path)


@pytest.mark.parametrize("scenario", [scenario for _, scenario in LAYERED])
def test_overlays_lose_nothing_without_a_bug(layered: World, scenario: Scenario) -> None:
    scenario(layered)


@pytest.mark.parametrize(("bug", "scenario"), LAYERED)
def test_a_planted_bug_of_overlays_is_found(layered: World, bug: Callable[[], Any], scenario: Scenario) -> None:
    with bug(), pytest.raises(AssertionError):
        scenario(layered)


PLANTED: list[tuple[Callable[[], Any], Scenario]] = [
    (plants.stale_blocks_kept, written_at_any_step),
    (plants.gap_between_bitmaps, written_at_any_step),
    (plants.stale_answers_accepted, late_answer),
    (plants.base_removed_before_publishing, lost_spool),
    (offline_backup_forgotten, put_back_after_an_offline_backup),
    (rounds_not_read, written_before_the_end),
    (start_not_noticed, started_at_any_step),
]


@pytest.fixture(params=["bitmaps", "checkpoints"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Nothing but bitmaps and journal stand between a bug and the backup: the audit sees nothing."""
    blind = comparison.Mismatch(Blocks(), Blocks(), Blocks())
    with mock.patch.object(comparison, "compare", lambda *_: blind):
        yield new_world(tmp_path, request.param)


@pytest.mark.parametrize("scenario", dict.fromkeys(scenario for _, scenario in PLANTED))
def test_nothing_is_found_without_a_bug(world: World, scenario: Scenario) -> None:
    scenario(world)


@pytest.mark.parametrize(("bug", "scenario"), PLANTED)
def test_a_planted_bug_is_found(world: World, bug: Callable[[], Any], scenario: Scenario) -> None:
    # A checkpoint goes on recording: there the old mark has what the new one comes too late for.
    harmless = bug is plants.gap_between_bitmaps and world.vm.checkpoints
    with bug(), contextlib.nullcontext() if harmless else pytest.raises(AssertionError):
        scenario(world)
