"""Which tables there are, told without alembic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from headstart import errors
from headstart.server import revisions
from headstart.server.database import Database


def test_the_newest_is_that_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(revisions.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [revisions.NEWEST]


def test_tables_are_made_once_and_those_of_a_newer_release_are_refused(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'server.db'}")
    with database.read() as connection:
        assert revisions.found(connection) is None
    for _ in range(2):
        database.migrate()
        with database.read() as connection:
            assert Database.revision(connection) == revisions.NEWEST
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(errors.Unsupported, match=r"newer release .*9999"):
        database.migrate()
    database.close()


def test_where_nothing_is_to_be_made_alembic_is_not_loaded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'server.db'}"
    Database(url).migrate()
    told = (
        "import sys; from headstart.server.database import Database;"
        f" Database({url!r}).migrate(); assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", told], check=True, timeout=60)
