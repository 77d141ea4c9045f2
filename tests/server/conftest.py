"""Servers that the tests of a module share: one with SQLite, and a pair on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.postgres import Postgres
from tests.kit.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With SQLite and a local directory, for a module."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def pair(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two processes with one database on PostgreSQL and one place for objects."""
    folder = tmp_path_factory.mktemp("pair")
    options = ("--database", postgres.new_database(), "--store", str(folder / "objects"))
    with Server(folder / "server", options) as one, Server(folder / "server", options) as two:
        yield one, two
