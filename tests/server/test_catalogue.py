"""The database is lost: from a copy in the store, into another kind, or from the objects alone; backups go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from headstart import errors, repository
from headstart.server import approvals, dumps, rebuild, signposts, tables
from headstart.server.settings import Settings
from headstart.server.site import Site, open_site
from headstart.store.server import ServerStore
from headstart.wire.https import Client
from tests.kit import shop as kit
from tests.kit.cli import Cli
from tests.kit.postgres import Postgres
from tests.kit.server import SITE, SITE_PASSWORD, Person, Server
from tests.kit.stores import PASSWORD


def site_of(server: Server, database: str = "") -> Site:
    data = server.folder
    return open_site(Settings(data, database or f"sqlite:///{data / 'server.db'}", str(data / "objects")))


def lose_database(server: Server) -> None:
    server.stop()
    for path in server.folder.glob("server.db*"):
        path.unlink()


def catalogue(server: Server, *arguments: str, expect: int = 0, database: str = "") -> Any:
    more = ("--database", database) if database else ()
    cli = Cli(server.folder / "cli")
    done = cli.run("server", "catalogue", *arguments, "--data", str(server.folder), *more, expect=expect)
    return done.json if expect == 0 else done.error


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """With a tenant's snapshot in it; it is running."""
    return Server(tmp_path / "server")


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_from_a_copy_everything_is_as_it_was(into: str, server: Server, request: pytest.FixtureRequest) -> None:
    with server:
        shop = kit.shop_of(site_of(server), server.tenant("copied"))
        made = shop.add(1, 1000.0)
        host = shop.tenant.host("alpha")
        name = catalogue(server, "copy")["name"]
        lose_database(server)
        database = ""
        if into == "postgresql":
            postgres: Postgres = request.getfixturevalue("postgres")
            database = postgres.new_database()
            server.options = ("--database", database)
        # The server has made one by itself before.
        assert catalogue(server, "list", database=database)["copies"][-1] == name
        assert catalogue(server, "restore", database=database)["rows"]["hosts"] == 1
        refused = catalogue(server, "restore", database=database, expect=24)
        assert "not empty" in refused["error"]["message"]
        server.start()
        # The host's token, the site's password, the sealed key of the structure.
        ServerStore(Client(host.identity), "main").read("config")
        assert [each["name"] for each in server.site().get("/v1/tenants")] == ["copied"]
        shop.require(made, 1)
        # And it goes on: numbers of the audit log are given out anew.
        Person(server.identity, SITE, SITE_PASSWORD).post("/v1/tenants", {"name": "another"})


def test_without_any_copy_the_objects_tell(server: Server) -> None:
    with server:
        site = site_of(server)
        shop = kit.shop_of(site, server.tenant("rebuilt"))
        made = shop.add(2, 1000.0)
        signposts.put(site)  # the server may have done so already
        site.database.close()
        lose_database(server)
        assert catalogue(server, "rebuild") == {"tenants": 1, "repositories": 1, "unnamed": 0}
        server.make_admin()
        server.start()
        tenant = server.site().get("/v1/tenants")[0]
        assert (tenant["id"], tenant["name"]) == (shop.tenant.id, "rebuilt") and tenant["used_bytes"] > 0
        user = {"name": "again", "password": "a password again", "role": "admin", "tenant": tenant["id"]}
        server.site().post("/v1/users", user)
        shop.tenant.admin = Person(server.identity, "again", "a password again")
        shop.store = ServerStore(shop.tenant.program("admin").client, "main")
        shop.require(made, 2)
        # The catalogue is filled by the repository itself, once the server may read its structure.
        password = {"password": kit.STRUCTURE.decode()}
        shop.tenant.admin.put("/v1/repositories/main/structure", password)
        shop.done("catalogue")
        assert [each["id"] for each in shop.tenant.admin.get("/v1/snapshots")] == [made.id]
        # A host joins again, and adds to the same repository.
        joined = shop.tenant.host("alpha")
        with repository.open(ServerStore(Client(joined.identity), "main"), lambda: PASSWORD) as repo:
            assert repo.id


def test_days_that_were_changed_are_as_they_were(tmp_path: Path) -> None:
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    site = open_site(settings)
    with site.database.write() as connection:
        values = {"id": "1" * 32, "name": "one", "created": 1.0, "second_person": False, "delay_seconds": 0.0}
        connection.execute(insert(tables.tenants).values(values))
        values = {"id": "2" * 32, "tenant": "1" * 32, "name": "main", "created": 1.0, "immutable_days": 0}
        connection.execute(insert(tables.repositories).values(**values, used_bytes=0, objects=0))
    assert signposts.put(site) == 2
    with site.database.write() as connection:
        connection.execute(update(tables.repositories).values(immutable_days=30))
    assert (signposts.put(site), signposts.put(site)) == (1, 0)
    assert [each.immutable_days for each in signposts.read(site)[1]] == [30]


def test_what_has_lost_its_name_is_called_by_its_id(tmp_path: Path) -> None:
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    site = open_site(settings)
    tenant, place = "1" * 32, "2" * 32
    site.place((tenant, place)).create("packs/x", b"12345")
    assert rebuild.rebuild(site) == rebuild.Rebuilt(1, 1, 2)
    with pytest.raises(errors.TargetRefused):
        rebuild.rebuild(site)


def test_copies_are_kept_for_a_while_and_half_ones_do_not_count(tmp_path: Path) -> None:
    now = [1_000_000.0]
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    site = open_site(settings, lambda: now[0])
    made = []
    for _ in range(dumps.KEPT + 2):
        now[0] += 86400
        made.append(dumps.make(site))
    assert dumps.names(site) == made[2:]
    store = site.place(())
    store.delete(f"{dumps.PREFIX}{made[-1]}/complete")
    assert dumps.names(site) == made[2:-1]
    # Somebody may be at it still; a day before the newest one nobody is.
    for passed, there in ((43200, True), (43201, False)):
        now[0] += passed
        dumps.make(site)
        assert bool(list(store.list(f"{dumps.PREFIX}{made[-1]}/"))) is there
    assert len(dumps.names(site)) == dumps.KEPT == len({key.split("/")[2] for key, _ in store.list(dumps.PREFIX)})


def test_what_waited_when_a_copy_was_made_is_not_done_after_it_is_restored(tmp_path: Path) -> None:
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    site = open_site(settings, lambda: 1000.0)
    tenant = {"id": "1" * 32, "name": "one", "created": 1.0, "second_person": False, "delay_seconds": 60.0}
    wanted = {"act": "user.reset", "arguments": {"user": "x", "password": "secret"}}
    asked = {"tenant": "1" * 32, **wanted, "asker": "ann", "asker_id": "2" * 32}
    with site.database.write() as connection:
        connection.execute(insert(tables.tenants).values(tenant))
        for state in ("waiting", "approved", "rejected"):
            row = {**asked, "id": state, "state": state, "second_person": False, "created": 1.0, "due": 61.0}
            connection.execute(insert(tables.approvals).values(row))
    name = dumps.make(site)
    restored = open_site(Settings(tmp_path, f"sqlite:///{tmp_path / 'other'}", settings.store), lambda: 2000.0)
    dumps.restore(restored, name)
    assert approvals.due(restored) == 0
    with restored.database.read() as connection:
        rows = connection.execute(select(tables.approvals)).all()
    states = {row.id: row.state for row in rows}
    assert states == {"waiting": "lapsed", "approved": "lapsed", "rejected": "rejected"}
    assert [row.id for row in rows if "password" in row.arguments] == ["rejected"]


def test_a_copy_opens_with_the_servers_key_alone(tmp_path: Path) -> None:
    settings = Settings(tmp_path, f"sqlite:///{tmp_path / 'db'}", str(tmp_path / "objects"))
    name = dumps.make(open_site(settings))
    settings.key_file.unlink()
    with pytest.raises(errors.Damaged, match="key file"):
        dumps.restore(open_site(settings), name)
