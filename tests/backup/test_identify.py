"""Marks that begin, where a hypervisor does not begin them at one moment, or cannot tell what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Action, Start
from headstart.hypervisor.memory import MemoryMachine, MemoryVm
from tests.kit.world import BLOCK, NAME, World


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


def test_marks_that_cannot_be_read_do_not_become_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrong before they are: QEMU runs as another user, say, and we may not open its socket."""
    vm = MemoryVm({"a": 12 * BLOCK}, BLOCK)
    world = World(vm, tmp_path)
    assert world.backup() is not None
    vm.write("a", 3)
    recorded = MemoryMachine.recorded

    def denied(self: MemoryMachine, wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Blocks]]:
        if any(wanted.values()):
            raise errors.Unreachable("Permission denied")
        return recorded(self, wanted)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryMachine, "recorded", denied)
        patch.setattr(World, "troubles", ["it cannot be read"])
        for _ in range(5):
            assert world.precopy() is None
    bitmaps = [name for drive in vm.drives.values() for _, name, _ in drive.records()]
    assert len(bitmaps) == 3, "the base, the round, and one that was begun"
    draft = world.journal.draft(NAME)
    assert draft is not None and len(draft.next_rounds) == 1
    assert world.precopy() is not None and world.backup() is not None
