"""A tenant with one of everything, and what of it stands in the server's database and store."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import JSON, Boolean, Float, Integer, Table, create_engine, insert, or_, select, update

from headstart.repository import layout
from headstart.server import tables
from headstart.wire.https import Answer, Identity
from tests.kit.server import PASSWORD, Person, Server, Tenant

POLICY = '[schedule]\ncalendar = "daily"\n[retention]\nkeep_daily = 7\n'


@dataclass(slots=True)
class Estate:
    """``names``: by what a route calls it, how the thing can be named: its id, and its name where it has one."""

    server: Server
    tenant: Tenant
    mark: str
    names: dict[str, list[str]]
    people: dict[str, Person] = field(default_factory=dict)

    @property
    def admin(self) -> Person:
        return self.tenant.admin


def settle(server: Server, mark: str) -> Estate:
    """A tenant whose every name has ``mark`` in it."""
    tenant = server.tenant(f"t-{mark}")
    repository = tenant.repository(f"vault-{mark}")
    joined = tenant.host(f"hv-{mark}", f"vault-{mark}")
    host = Person(Identity(joined.url, joined.token, joined.fingerprint))
    vm_name, snapshot = f"db-{mark}", secrets.token_hex(16)
    host.post("/v1/host/pulse", {"version": "1", "vms": {vm_name: {"state": "idle"}}})
    host.post("/v1/host/runs", {"runs": [_run(1, vm_name, snapshot)]})
    key = f"packs/{secrets.token_hex(16)}"
    put_object(host, repository, key)
    admin = tenant.admin
    admin.put(f"/v1/policies/gold-{mark}", {"text": POLICY})
    admin.put(f"/v1/assignments?pattern={vm_name}", {"policy": f"gold-{mark}"})
    people = {"admin": admin, "host": host, "program": tenant.program("admin")}
    users = {}
    for role in ("viewer", "operator"):
        users[role] = server.user(tenant, f"{role}-{mark}", role)
        people[role] = server.person(f"{role}-{mark}")
    people["bound"] = tenant.program("admin", f"vault-{mark}")
    token = admin.post("/v1/tokens", {"kind": "api", "name": f"token-{mark}", "role": "viewer"})["id"]
    estate = Estate(
        server,
        tenant,
        mark,
        {
            "tenant": [tenant.id],
            "repository": [repository, f"vault-{mark}"],
            "host": [joined.host, f"hv-{mark}"],
            "vm": [admin.get("/v1/vms")[0]["id"], vm_name],
            "snapshot": [snapshot],
            "user": [users["viewer"]],
            "token": [token],
            "policy": [f"gold-{mark}"],
            "key": [key],
            "session": [each["id"] for each in admin.get("/v1/me/sessions")][:1],
        },
        people,
    )
    # Straight into the tables: what otherwise takes a machine, or a while.
    for table, name in ((tables.approvals, "approval"), (tables.jobs, "job"), (tables.orders, "order")):
        known = {"tenant": tenant.id, "repository": repository, "host": joined.host, "state": "done"}
        estate.names[name] = [add_row(server, table, **known, actor=mark, asker=mark)]
    return estate


def give_key(estate: Estate) -> None:
    """As if the server had a key of the repository's structure: it takes orders then, and opens nothing with it."""
    change = update(tables.repositories).where(tables.repositories.c.id == estate.names["repository"][0])
    with create_engine(database(estate.server)).begin() as connection:
        connection.execute(change.values(structure=b"nothing"))


def create_user(admin: Person, name: str, role: str) -> str:
    return str(admin.post("/v1/users", {"name": name, "password": PASSWORD, "role": role})["id"])


def _run(number: int, vm: str, snapshot: str) -> dict[str, Any]:
    disk = {"size": 1 << 30, "changed_bytes": 1, "residue_bytes": 1, "stored_bytes": 1}
    report = {"snapshot": snapshot, "vm": vm, "created": 1000.0, "consistency": "crash", "window_seconds": 1.0}
    return {
        "number": number,
        "vm": vm,
        "verb": "backup",
        "begun": 1.0,
        "ended": 2.0,
        "report": {**report, "disks": [disk]},
    }


def body_of_object() -> tuple[bytes, dict[str, str]]:
    data = layout.header(layout.Kind.PACK) + b"sealed"
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return data, {"Content-Digest": f"sha-256=:{digest}:", "Content-Type": "application/octet-stream"}


def put_object(person: Person, repository: str, key: str) -> Answer:
    data, headers = body_of_object()
    return person.client.request(
        "PUT", f"/v1/repositories/{repository}/objects/{key}", data, {**person.headers, **headers}
    )


def add_row(server: Server, table: Table, **values: Any) -> str:
    """What is not given gets something of its type. The id of the row."""
    row: dict[str, Any] = {"id": secrets.token_hex(16)}
    for column in table.columns:
        if column.name in values:
            row[column.name] = values[column.name]
        elif column.name not in row and not column.nullable:
            row[column.name] = _something(column.type)
    with create_engine(database(server)).begin() as connection:
        connection.execute(insert(table).values(row))
    return str(row["id"])


def _something(kind: object) -> Any:
    if isinstance(kind, JSON):
        return {}
    if isinstance(kind, Boolean):
        return False
    return 0 if isinstance(kind, Integer | Float) else "x"


def database(server: Server) -> str:
    if "--database" in server.options:
        url = server.options[server.options.index("--database") + 1]
        return url.replace("postgresql://", "postgresql+psycopg://")
    return f"sqlite:///{server.folder / 'server.db'}"


def rows(server: Server, table: Table, *conditions: Any) -> list[dict[str, Any]]:
    with create_engine(database(server)).connect() as connection:
        return [dict(row) for row in connection.execute(select(table).where(*conditions)).mappings()]


def holdings(estate: Estate) -> dict[str, Any]:
    """Every row in which something of this tenant's is named, and its objects."""
    own = {name for names in estate.names.values() for name in names}
    found: dict[str, Any] = {}
    for table in tables.metadata.sorted_tables:
        # Others may write our names into what is theirs.
        whose = [column == estate.tenant.id for column in table.columns if column.name == "tenant"]
        of = [column.in_(own) for column in table.columns if column.foreign_keys]
        if whose or of:
            found[table.name] = sorted(
                json.dumps(row, default=repr) for row in rows(estate.server, table, or_(*(whose or of)))
            )
    found["tenants"] = [
        json.dumps(row) for row in rows(estate.server, tables.tenants, tables.tenants.c.id == estate.tenant.id)
    ]
    folder = estate.server.folder / "objects" / estate.tenant.id
    found["objects"] = sorted((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    return found
