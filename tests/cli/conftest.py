"""An installation in a folder, and snapshots in its repository that were made without a VM."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import repository
from headstart.store.local import LocalStore
from tests.cli.shelf import Shelf
from tests.kit import stores
from tests.kit.cli import Cli, QuickCli


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Nothing is there yet."""
    return QuickCli(tmp_path)


@pytest.fixture
def shelf(cli: Cli) -> Shelf:
    """A repository; opening it costs no time."""
    repository.create(LocalStore(cli.repository), stores.PASSWORD, cost=stores.QUICK).close()
    return Shelf(cli)
