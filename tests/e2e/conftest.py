"""Guests that write all the time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headstart.units import KIB, MIB
from tests.kit import workloads
from tests.kit.domain import Domain
from tests.kit.vm import Vm


@pytest.fixture
def churn(machine: Vm | Domain) -> Iterator[workloads.Churn]:
    """Writes of a quarter of a block, synced, half of them again and again to the same places."""
    regions = [
        workloads.Region("/mnt/churn", 0, 12 * MIB),
        workloads.Region(machine.device("data"), 4 * MIB, 12 * MIB),
    ]
    with workloads.churn(machine.guest, regions, rate=6 * MIB, write_size=16 * KIB, sync_every=4) as running:
        yield running
