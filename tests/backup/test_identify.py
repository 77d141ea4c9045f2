"""Marks that begin, where a hypervisor does not begin them at one moment, or cannot tell what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from headstart.hypervisor.contract import Action, Start
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from tests.kit.world import BLOCK, World


def test_what_a_new_round_records_its_base_does_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a discard between the two looks as if the base were not to be believed."""
    vm = MemoryVm({"a": 12 * BLOCK}, BLOCK)
    for block in range(12):
        vm.write("a", block)
    transact, between = MemoryMachine.transact, iter(range(3, 6))

    def one_by_one(self: MemoryMachine, actions: Sequence[Action]) -> None:
        for action in actions:
            transact(self, [action])
            if isinstance(action, Start):
                vm.discard("a", next(between, 11))

    world = World(vm, tmp_path)
    monkeypatch.setattr(MemoryMachine, "transact", one_by_one)
    for _ in range(2):
        assert world.precopy() is not None
    made = world.backup()
    assert made is not None
    [disk] = made.disks
    assert not any("read whole" in note for note in made.notes), made.notes
    assert disk.residue_bytes < 12 * BLOCK
