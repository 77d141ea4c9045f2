"""What hosts say of their VMs, as it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from headstart.server import hosts, repositories, tables, tenants, vms
from headstart.server.call import Call
from headstart.server.principal import Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site

NOW = 1_000_000.0


def site_with_host(folder: Path) -> tuple[Site, Principal]:
    site = open_site(Settings(folder, f"sqlite:///{folder / 'server.db'}", str(folder / "objects")))
    with site.database.write() as connection:
        tenant = tenants.create(connection, Call(Principal("root", "root", Role.SITE, None), NOW), "acme", None, None)
        admin = Call(Principal("ann", "ann", Role.ADMIN, tenant), NOW)
        repository = repositories.create(connection, admin, "main")
        values = {"id": "alpha", "tenant": tenant, "repository": repository, "name": "alpha", "installation": "x"}
        connection.execute(insert(tables.hosts).values(**values, version="1", created=NOW, state={}))
    return site, Principal("token", "alpha", Role.HOST, tenant, host="alpha", repository=repository)


def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    site, host = site_with_host(tmp_path)

    def tell(now: float, **views: dict[str, Any] | None) -> dict[str, float]:
        """Of each VM, when it was written last."""
        with site.database.write() as connection:
            vms.seen(connection, Call(host, now), views)
        with site.database.read() as connection:
            return {row.name: row.seen for row in connection.execute(select(tables.vms.c.name, tables.vms.c.seen))}

    one: dict[str, Any] = {"state": "idle", "load": 0.25, "due": NOW + 60}
    assert tell(NOW, a=one, b=None) == {"a": NOW, "b": NOW}
    assert tell(NOW + 15, a=dict(one), b=None) == {"a": NOW, "b": NOW}
    assert tell(NOW + 30, a={**one, "load": 0.5}, b=None) == {"a": NOW + 30, "b": NOW}
    assert tell(NOW + 45, a={**one, "load": 0.5}, b=one) == {"a": NOW + 30, "b": NOW + 45}
    later = NOW + 45 + vms.SEEN_SECONDS
    assert tell(later, a={**one, "load": 0.5}, b=one) == {"a": later, "b": NOW + 45}
    with site.database.read() as connection:
        due = select(tables.vms.c.name, tables.vms.c.due)
        assert {row.name: row.due for row in connection.execute(due)} == {"a": NOW + 60, "b": NOW + 60}
    site.database.close()


def test_a_token_that_never_came_is_revoked_and_that_is_written_down(tmp_path: Path) -> None:
    site, host = site_with_host(tmp_path)
    with site.database.write() as connection:
        row = {"id": "token", "tenant": host.tenant, "host": "alpha", "repository": host.repository, "name": "alpha"}
        fixed = {"kind": "host", "hash": "", "created": NOW, "expires": NOW + 1e6, "used": NOW, "revoked": False}
        connection.execute(insert(tables.tokens).values(**row, **fixed))
        lost, _ = hosts.renew(connection, Call(host, NOW))
        hosts.renew(connection, Call(host, NOW + 1))
        hosts.renew(connection, Call(host, NOW + 2))
        its = tables.audit.c
        query = select(its.object).where(its.act == "token.revoke").order_by(its.id)
        revoked = connection.execute(query).scalars().all()
    assert revoked[0] == lost.id
    assert len(revoked) == len(set(revoked)) == 2
    site.database.close()
