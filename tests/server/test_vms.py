"""What hosts say of their VMs, as it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from headstart.server import hosts, repositories, runs, tables, tenants, vms
from headstart.server.call import Call
from headstart.server.principal import NobodyKnown, Principal
from headstart.server.roles import Role
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site
from tests.kit import machine

NOW, YEAR = 1_000_000.0, 365 * 86400.0


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


class Reports:
    """What a host tells of its VM ``web``, and what is known of that then."""

    def __init__(self, folder: Path) -> None:
        self.site, self.host = site_with_host(folder)
        self.now = NOW
        self.number = 0
        with self.site.database.write() as connection:
            vms.seen(connection, self.call, {"web": {}})

    @property
    def call(self) -> Call:
        return Call(self.host, self.now)

    def ran(self, verb: str, ended: float, report: dict[str, Any]) -> None:
        self.number += 1
        with self.site.database.write() as connection:
            runs.take(connection, self.call, [runs.Run(self.number, "web", verb, ended - 60, ended, report)])

    def published(self, report: dict[str, Any]) -> None:
        with self.site.database.write() as connection:
            runs.take_snapshots(connection, self.call, [report])

    def set(self, **values: object) -> None:
        with self.site.database.write() as connection:
            connection.execute(update(tables.vms).values(**values))

    def known(self) -> tuple[float | None, str | None]:
        """The newest backup that went well; why the newest one did not."""
        with self.site.database.read() as connection:
            row = connection.execute(select(tables.vms)).one()
            return row.last_success, row.last_error


@pytest.fixture
def reports(tmp_path: Path) -> Iterator[Reports]:
    made = Reports(tmp_path)
    yield made
    made.site.database.close()


FAILED = {"error": "The store is away."}


def good(created: float) -> dict[str, Any]:
    return machine.backup("web", created, 10, 5, 1.0)


def test_a_clock_that_was_ahead_hides_nothing(reports: Reports) -> None:
    early = good(NOW + 10 * YEAR)
    reports.published(early)
    reports.ran("backup", NOW + 10 * YEAR, early)
    assert reports.known() == (NOW, None), "it was made by now"
    reports.now = NOW + 3600
    reports.published(early)
    assert reports.known() == (NOW, None), "what is told again is no newer"
    reports.ran("backup", NOW + 3500, FAILED)
    assert reports.known() == (NOW, FAILED["error"])
    reports.now = NOW + 7200
    reports.published(good(NOW + 7000))
    assert reports.known() == (NOW + 7000, None)
    reports.ran("backup", NOW + 10 * YEAR, FAILED)
    assert reports.known() == (NOW + 7000, FAILED["error"])
    reports.now = NOW + 9000
    reports.published(good(NOW + 8000))
    assert reports.known() == (NOW + 8000, None)


def test_moments_ahead_of_now_that_are_known_are_replaced(reports: Reports) -> None:
    """This server's own clock may have been wrong."""
    reports.set(last_success=NOW + YEAR, last_failure=NOW + YEAR, last_error="of the future")
    reports.published(good(NOW - 60))
    assert reports.known() == (NOW - 60, None)
    reports.set(last_success=NOW + YEAR, last_failure=NOW + YEAR)
    reports.ran("backup", NOW - 30, FAILED)
    assert reports.known() == (None, FAILED["error"])


def test_what_fails_on_the_way_to_publishing_is_over_once_it_is_published(reports: Reports) -> None:
    """Its point in time is before the failure."""
    made = good(NOW - 2400)
    reports.ran("backup", NOW - 600, FAILED)
    assert reports.known() == (None, FAILED["error"])
    reports.published(made)
    reports.ran("publish", NOW - 300, {"notes": ["given up"]})
    assert reports.known() == (NOW - 2400, FAILED["error"]), "nobody said that it was this one"
    reports.ran("publish", NOW - 60, {"notes": [], "snapshot": made["snapshot"]})
    assert reports.known() == (NOW - 2400, None)


def test_failures_that_are_told_late_are_of_the_past(reports: Reports) -> None:
    reports.published(good(NOW - 600))
    reports.ran("backup", NOW - 1200, FAILED)
    assert reports.known() == (NOW - 600, None)
    reports.ran("backup", NOW - 300, FAILED)
    assert reports.known() == (NOW - 600, FAILED["error"])
    reports.ran("backup", NOW - 900, {"error": "older"})
    assert reports.known() == (NOW - 600, FAILED["error"])


def test_rounds_are_in_the_way_of_no_backup(reports: Reports) -> None:
    """A week of rounds has more than a page holds."""
    with reports.site.database.write() as connection:
        told = [("beta", 1, "backup", NOW - 60), ("alpha", 1, "backup", NOW - 7 * 86400)]
        told += [("alpha", 2 + number, "precopy", NOW - number * 900) for number in range(672)]
        connection.execute(insert(tables.hosts), [_host(reports, "beta")])
        fixed: dict[str, Any] = {"tenant": reports.host.tenant, "vm": "web", "report": {}}
        names = ("host", "number", "verb", "begun")
        connection.execute(insert(tables.runs), [{**fixed, **dict(zip(names, each, strict=True))} for each in told])
    with reports.site.database.read() as connection:
        web = dict(connection.execute(select(tables.vms)).mappings().one())
        rounds, others = runs.rounds_and_others(connection, web, NOW - 8 * 86400)
        listed = runs.of_vm(connection, web, 0.0)
    assert len(rounds) == 672 and [each["begun"] for each in others] == [NOW - 7 * 86400]
    assert {each["host"] for each in (*rounds, *others, *listed)} == {"alpha"}, "another host has one of that name"


def _host(reports: Reports, name: str) -> dict[str, Any]:
    values = {"id": name, "tenant": reports.host.tenant, "repository": reports.host.repository, "name": name}
    return {**values, "installation": name, "version": "1", "created": NOW, "state": {}}


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
        # What was under way when it left does not bring it back.
        hosts.leave(connection, Call(host, NOW + 3))
        with pytest.raises(NobodyKnown):
            hosts.pulse(connection, Call(host, NOW + 4), "1", {"clock": NOW})
        assert connection.execute(select(tables.hosts.c.state)).scalars().all() == [{"left": NOW + 3}]
    assert revoked[0] == lost.id
    assert len(revoked) == len(set(revoked)) == 2
    site.database.close()
