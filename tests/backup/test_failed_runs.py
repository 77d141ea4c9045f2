"""What is told of a backup that failed."""

from __future__ import annotations

from pathlib import Path

from headstart.hypervisor.memory import MemoryVm
from headstart.state.runs import Runs
from tests.kit.events import OwnerDoes
from tests.kit.script import Script
from tests.kit.world import BLOCK, NAME, World


def test_the_freeze_stands_in_the_report(tmp_path: Path) -> None:
    """Wherever it failed; the guest was frozen all the same."""
    vm = MemoryVm({"a": 8 * BLOCK}, BLOCK)
    vm.agent = "answers"
    world = World(vm, tmp_path)
    world.backup()
    froze = []
    for step in range(1, 50):
        vm.write("a", step % 8)
        if world.backup(Script(((step, OwnerDoes("take filters out")),))) is None:
            (run,) = Runs(world.journal).newest(NAME, 1)
            assert run.report["error"]
            froze.append(run.report["freeze_seconds"])
    assert froze and all(seconds > 0 for seconds in froze)
    vm.migrating = True
    assert world.backup() is None
    (run,) = Runs(world.journal).newest(NAME, 1)
    assert run.report["freeze_seconds"] == 0
