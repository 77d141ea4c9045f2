"""Whose is what in the store: names of tenants and repositories beside their objects, for when the database is lost.

::

    site/tenants/<id>         {"name": ...}
    site/repositories/<id>    {"tenant": <id>, "name": ..., "immutable_days": ...}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, select

from headstart import errors
from headstart.server import ids, tables
from headstart.server.site import Site
from headstart.store.contract import Exists, Store

TENANTS, REPOSITORIES = "site/tenants/", "site/repositories/"


@dataclass(frozen=True, slots=True)
class Tenant:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Repository:
    id: str
    tenant: str
    name: str
    immutable_days: int


def put(site: Site) -> int:
    """Those that are not there yet, and those whose days have changed; how many. Names never change."""
    with site.database.read() as connection:
        tenants, repositories = list(_tenants(connection)), list(_repositories(connection))
    store = site.place(())
    known = {key for prefix in (TENANTS, REPOSITORIES) for key, _ in store.list(prefix)}
    wanted: dict[str, object] = {TENANTS + each.id: each for each in tenants}
    wanted |= {REPOSITORIES + each.id: each for each in repositories}
    old = {key for each in repositories if (key := REPOSITORIES + each.id) in known and not _says(store, key, each)}
    new = {key: each for key, each in wanted.items() if key not in known or key in old}
    for key, each in new.items():
        if key in old:
            store.delete(key)  # killed here, it is put by the next one
        _put(store, key, each)
    return len(new)


def _says(store: Store, key: str, repository: Repository) -> bool:
    try:
        return bool(json.loads(store.read(key)) == asdict(repository))
    except (errors.Damaged, ValueError):
        return False


def _put(store: Store, key: str, what: object) -> None:
    try:
        store.create(key, json.dumps(asdict(what)).encode())  # type: ignore[call-overload]
    except Exists:
        return


def take_away(site: Site, repository: str) -> None:
    """Of a repository that is not to be found again."""
    site.place(()).delete(REPOSITORIES + repository)


def read(site: Site) -> tuple[list[Tenant], list[Repository]]:
    """What stands in the store; what cannot be read is passed over."""
    store = site.place(())
    tenants = [Tenant(**told) for told in _told(store, TENANTS)]
    repositories = [Repository(**told) for told in _told(store, REPOSITORIES)]
    return tenants, repositories


def _told(store: Store, prefix: str) -> Iterator[dict[str, Any]]:
    for key, _ in store.list(prefix):
        if ids.is_id(key.removeprefix(prefix)):
            yield json.loads(store.read(key))


def _tenants(connection: Connection) -> Iterator[Tenant]:
    its = tables.tenants.c
    for row in connection.execute(select(its.id, its.name)):
        yield Tenant(row.id, row.name)


def _repositories(connection: Connection) -> Iterator[Repository]:
    its = tables.repositories.c
    there = its.removed.is_(None)
    for row in connection.execute(select(its.id, its.tenant, its.name, its.immutable_days).where(there)):
        yield Repository(row.id, row.tenant, row.name, row.immutable_days)
