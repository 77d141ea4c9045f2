"""Of the tables: which there is, and the newest that this release knows. Told without alembic, which takes long to
load and is needed once a release."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")
#: The name of a step's file begins with its revision.
NEWEST = max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def found(connection: Connection) -> str | None:
    """As alembic keeps it. None: there are no tables yet."""
    if not sqlalchemy.inspect(connection).has_table("alembic_version"):
        return None
    told: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return told
