"""``headstart backup`` extends the locks of an immutable repository where no daemon does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.backup.context import Context
from headstart.cli import backup
from headstart.state.journal import Journal
from tests.kit import stores
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

DAY = 86400.0
NOW = 1_800_000_000.0


@pytest.fixture
def store() -> stores.LockingStore:
    return stores.LockingStore(lambda: NOW)


@pytest.fixture
def context(tmp_path: Path, store: stores.LockingStore) -> Iterator[Context]:
    """A week after the first snapshot there is another one, of the same."""
    repo = repository.create(store, stores.PASSWORD, cost=stores.QUICK, immutable_days=8)
    for created in (NOW, NOW + 7 * DAY):
        samples.add_snapshot(repo, {"vda": Image(100 * BLOCK, {1: noise(1)})}, created=created)
    with Journal.open(tmp_path / "state") as journal:
        yield Context(journal, repo, tmp_path, clock=lambda: NOW + 7 * DAY)


def test_a_backup_extends_locks_that_are_due(context: Context, store: stores.LockingStore) -> None:
    assert store.until["config"] < NOW + 15 * DAY
    assert backup.extend_locks(context) is None
    assert store.until["config"] >= NOW + 15 * DAY


def test_what_keeps_it_from_being_done(
    context: Context, store: stores.LockingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(key: str, until: float) -> None:
        raise errors.StoreFailed("503")

    monkeypatch.setattr(store, "extend", fail)
    assert str(backup.extend_locks(context)) == "503"
