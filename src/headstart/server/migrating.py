"""The tables, made or brought up to date by alembic."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from headstart import errors
from headstart.server import revisions


def upgrade(connection: Connection) -> None:
    """In the transaction of the connection. Raises ``Unsupported`` for the tables of a newer release."""
    config = _config(connection)
    known = {each.revision for each in ScriptDirectory.from_config(config).walk_revisions()}
    found = revisions.found(connection)
    if found is not None and found not in known:
        raise errors.Unsupported(
            f"The database was written by a newer release (its tables are of version {found}). Install that one."
        )
    command.upgrade(config, "head")


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
