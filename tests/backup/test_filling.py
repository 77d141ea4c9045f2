"""When what was copied ahead counts, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from headstart import blocks
from headstart.backup import fill
from headstart.extents import Extent
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from headstart.transfer.pipeline import Pipeline, Stored
from tests.kit.script import AgentScript, Script
from tests.kit.world import BLOCK, CALM, World

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
