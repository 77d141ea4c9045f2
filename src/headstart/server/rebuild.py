"""The database made anew from the store alone: tenants and repositories as they are named there, with their objects.

People, tokens, policies and hosts are gone with the database: the site's admin makes the first admins again, hosts join
again, and go on in the same repositories. Snapshots come into the catalogue by the job ``catalogue``, once the tenant
has given the password of the structure again.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import insert

from headstart.server import dumps, ids, signposts, tables
from headstart.server.signposts import Repository, Tenant
from headstart.server.site import Site


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """``unnamed``: what only its objects tell of; it is called by its id."""

    tenants: int
    repositories: int
    unnamed: int


def rebuild(site: Site) -> Rebuilt:
    """Raises ``TargetRefused`` where the database is not empty."""
    tenants, repositories = signposts.read(site)
    sizes = _sizes(site)
    named = {each.id for each in repositories}
    lost = [Repository(each, tenant, each, 0) for tenant, each in sizes if each not in named]
    known = {each.id for each in tenants}
    orphans = {each.tenant for each in [*repositories, *lost]} - known
    tenants += [Tenant(each, each) for each in sorted(orphans)]
    now = site.clock()
    with site.database.write() as connection:
        dumps.require_empty(connection)
        for tenant in tenants:
            values = {"id": tenant.id, "name": tenant.name, "created": now}
            connection.execute(insert(tables.tenants).values(**values, second_person=False, delay_seconds=0.0))
        for each in [*repositories, *lost]:
            size, count = sizes.get((each.tenant, each.id), (0, 0))
            used = {"used_bytes": size, "objects": count, "immutable_days": each.immutable_days, "created": now}
            connection.execute(
                insert(tables.repositories).values(id=each.id, tenant=each.tenant, name=each.name, **used)
            )
    return Rebuilt(len(tenants), len(repositories) + len(lost), len(lost) + len(orphans))


def _sizes(site: Site) -> dict[tuple[str, str], tuple[int, int]]:
    """By tenant and repository: bytes, and objects."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for key, size in site.place(()).list(""):
        tenant, _, rest = key.partition("/")
        repository = rest.partition("/")[0]
        if ids.is_id(tenant) and ids.is_id(repository):
            before = found.get((tenant, repository), (0, 0))
            found[tenant, repository] = before[0] + size, before[1] + 1
    return found
