"""Copies of the database in the store, and the way back: into another database, too.

::

    site/catalogue/<moment>/<number>    rows as lines of JSON: compressed, sealed under the server's key
    site/catalogue/<moment>/complete    how many of them there are; written last

What grows without end and can be done without is left out: figures, events, runs, sessions, jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy
import zstandard
from sqlalchemy import Connection, LargeBinary, Table, func, insert, select, true, update

from headstart import errors
from headstart.batches import batched
from headstart.server import approvals, tables
from headstart.server.site import Site
from headstart.store.contract import Store

PREFIX = "site/catalogue/"
_COMPLETE = "complete"
#: So many are kept.
KEPT = 14
#: Longer than making one takes.
_HALF_SECONDS = 86400
#: Rows of one object, and that are written at a time.
_ROWS, _BATCH = 20_000, 500
_LEFT_OUT = {"figures", "events", "runs", "sessions", "jobs", "attempts", "turns"}


def make(site: Site) -> str:
    """The name of a new one. Older ones than the newest ``KEPT`` go."""
    store, name = site.place(()), f"{int(site.clock()):012d}"
    number = 0
    with site.database.snapshot() as connection:
        for rows in batched(_lines(connection, site.database.revision(connection)), _ROWS):
            packed = zstandard.compress(b"\n".join(rows))
            store.create(f"{PREFIX}{name}/{number:06d}", site.sealer.seal(_purpose(name, number), packed))
            number += 1
    store.create(f"{PREFIX}{name}/{_COMPLETE}", json.dumps({"parts": number}).encode())
    _forget_old(store)
    return name


def names(site: Site) -> list[str]:
    """Those that are complete, oldest first."""
    return _names(site.place(()))


def _names(store: Store) -> list[str]:
    found = (key.removeprefix(PREFIX).split("/") for key, _ in store.list(PREFIX))
    return sorted(parts[0] for parts in found if parts[1:] == [_COMPLETE])


def _forget_old(store: Store) -> None:
    """And those that were never completed, once nobody can be at them any longer."""
    complete = _names(store)
    kept, left = set(complete[-KEPT:]), int(complete[-1]) - _HALF_SECONDS
    # The mark of being complete comes last in the order of names, and goes first.
    for key in sorted((key for key, _ in store.list(PREFIX)), reverse=True):
        name = key.removeprefix(PREFIX).partition("/")[0]
        if name not in kept and (name in complete or (name.isdecimal() and int(name) < left)):
            store.delete(key)


def restore(site: Site, name: str) -> dict[str, int]:
    """Rows by table. The database has to be empty. Raises ``NotFound``, ``TargetRefused``, ``Unsupported`` for one of
    another release, ``Damaged``."""
    if name not in names(site):
        raise errors.NotFound(
            f"There is no copy {name!r} of the catalogue: 'headstart server catalogue list' names them."
        )
    counts: dict[str, int] = {}
    with site.database.write() as connection:
        require_empty(connection)
        revision = site.database.revision(connection)
        for table, rows in _tables(_rows(site, name, revision)):
            for some in batched(rows, _BATCH):
                connection.execute(insert(table), some)
            counts[table.name] = len(rows)
        # Events begin anew, and so does what is told of them.
        again = {"cursor": 0, "upto": None, "remaining": None, "claimed": 0.0}
        connection.execute(update(tables.notices).values(again))
        _lapse(connection, site.clock())
        _go_on_counting(connection)
    return counts


def _lapse(connection: Connection, now: float) -> None:
    """What waited when the copy was made may have been rejected since, and would be done when its time comes."""
    approvals.lapse(connection, true(), now, "The database was restored from a copy. Ask for it again.")


def require_empty(connection: Connection) -> None:
    if any(connection.execute(select(table).limit(1)).first() for table in (tables.tenants, tables.users)):
        raise errors.TargetRefused("The database is not empty. Name another one, or begin with a new one.")


def _purpose(name: str, number: int) -> str:
    return f"catalogue {name} {number}"


def _lines(connection: Connection, revision: str) -> Iterator[bytes]:
    yield json.dumps({"revision": revision}).encode()
    for table in tables.metadata.sorted_tables:
        if table.name in _LEFT_OUT:
            continue
        rows = connection.execution_options(yield_per=_BATCH).execute(select(table))
        for row in rows:
            yield json.dumps([table.name, [_told(value) for value in row]]).encode()


def _told(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _rows(site: Site, name: str, revision: str) -> Iterator[tuple[str, list[Any]]]:
    store = site.place(())
    parts = json.loads(store.read(f"{PREFIX}{name}/{_COMPLETE}"))["parts"]
    for number in range(parts):
        sealed = store.read(f"{PREFIX}{name}/{number:06d}")
        lines = zstandard.decompress(site.sealer.open(_purpose(name, number), sealed)).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if isinstance(told, dict):
                if told["revision"] != revision:
                    raise errors.Unsupported(
                        f"The copy is of tables of version {told['revision']}, and these are of {revision}: restore it"
                        " with the release that made it, which can then be updated."
                    )
                continue
            yield told[0], told[1]


def _tables(rows: Iterable[tuple[str, list[Any]]]) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    """In an order in which each refers to what is there already: as they were written."""
    found: list[dict[str, Any]] = []
    table: Table | None = None
    for name, values in rows:
        if table is None or table.name != name:
            if table is not None:
                yield table, found
            table, found = tables.metadata.tables[name], []
        found.append({column.name: _value(column.type, each) for column, each in zip(table.c, values, strict=True)})
    if table is not None:
        yield table, found


def _value(kind: sqlalchemy.types.TypeEngine[Any], value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(kind, LargeBinary) and value is not None else value


def _go_on_counting(connection: Connection) -> None:
    """PostgreSQL does not look at the numbers that are there."""
    if connection.dialect.name != "postgresql":
        return
    for table in (tables.audit, tables.events):
        largest = connection.execute(select(func.max(table.c.id))).scalar()
        if largest is not None:
            connection.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), largest)))
