"""A repository in memory, and packs so small that a few chunks fill many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headstart import units
from headstart.repository import layout
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore


@pytest.fixture
def repo() -> Iterator[Repository]:
    with stores.new_repository() as fresh:
        yield fresh


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes of a pack, for tests that need many."""
    size = 256 * units.KIB
    monkeypatch.setattr(layout, "PACK_SIZE", size)
    return size


@pytest.fixture
def faulty() -> FaultyStore:
    return FaultyStore(MemoryStore())
