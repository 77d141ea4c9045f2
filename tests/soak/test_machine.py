"""A share of the soak on a real VM; ``make soak`` goes on with other seeds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.soak.machine import FAULTS, Machine

pytestmark = pytest.mark.vm

CYCLES = 20


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("soak"), seed=1) as made:
        yield made


@pytest.mark.parametrize("number", range(1, CYCLES + 1))
def test_a_fault_harms_neither_the_guest_nor_the_next_backup(machine: Machine, number: int) -> None:
    print(machine.cycle())


def test_enough_of_what_can_break_did(machine: Machine) -> None:
    assert machine.endured.cycles == CYCLES
    assert len(machine.endured.faults) >= len(FAULTS) - 2
    assert machine.endured.freeze < 10
