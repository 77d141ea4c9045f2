"""When what was copied ahead counts, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart import blocks
from headstart.backup import fill, losses
from headstart.backup.complete import Options
from headstart.backup.fill import Filling
from headstart.extents import Extent
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.repository import layout
from headstart.transfer.pipeline import Pipeline, Stored
from tests.kit.events import GuestWrite
from tests.kit.script import AgentScript, Script
from tests.kit.world import BLOCK, CALM, NAME, World

COUNT = 1024
WAITING = 16


class Blockwise(Pipeline):
    """Each block is stored as soon as it is read."""

    def copy(self, disk: str, reader: Any, extents: Iterable[Extent], progress: Callable[[int], None] = print) -> int:
        for block in blocks.of_extents(extents, BLOCK):
            self._zeroes([Stored(disk, block, None)])
            progress(BLOCK)
        return 0


@pytest.mark.parametrize(
    ("script", "expected"), [(CALM, COUNT // WAITING), (Script(agent=AgentScript()), (COUNT // WAITING).bit_length())]
)
def test_what_the_agent_read_counts_ever_more_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Script, expected: int
) -> None:
    """Through libvirt each time costs an overlay more on the disk, of which there can be some 200."""
    flushed: list[Sequence[str]] = []
    monkeypatch.setattr(fill, "_WAITING", WAITING)
    monkeypatch.setattr(fill, "Pipeline", Blockwise)
    monkeypatch.setattr(MemoryMachine, "flush", lambda machine, disks: flushed.append(disks))
    vm = MemoryVm({"a": COUNT * BLOCK, "b": BLOCK}, BLOCK, raw=("a", "b"), overlays=("a", "b"))
    for block in range(COUNT):
        vm.write("a", block)
    report = World(vm, tmp_path).precopy(script)
    assert report is not None and report.transport == ("host" if script is CALM else "agent")
    assert flushed == [["a"]] * expected


@pytest.mark.parametrize("verb", [World.precopy, lambda world: world.backup(options=Options(plain=True))])
def test_a_run_of_many_days_is_not_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[[World], object]
) -> None:
    """A collector comes by twice between two portions, ten hours after the last time: each portion takes 19 hours."""
    monkeypatch.setattr(fill, "_LISTED_SECONDS", 0)
    monkeypatch.setattr(layout, "PACK_SIZE", 8 * BLOCK)
    vm = MemoryVm({"a": 64 * BLOCK}, BLOCK)
    world = World(vm, tmp_path)
    for block in range(0, 64, 2):
        GuestWrite(0, block, "fresh").happen(world)
    slow = Filling._progress

    def progress(filling: Filling, count: int) -> None:
        slow(filling, count)
        world.collect()
        world.collect()

    monkeypatch.setattr(Filling, "_progress", progress)
    assert verb(world) is not None
    assert not world.faults["drafts were revoked"] and not world.faults["packs were condemned"]
    monkeypatch.undo()
    with world.repository() as repo:
        for name in world.journal.tracked(NAME):
            assert not losses.missing(world._context(repo), NAME, name)
    assert world.backup() is not None
    world.check_everything()
