"""Hosts of a tenant: they join, and from then on say how they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from headstart import errors
from headstart.server import audit, caution, ids, tables, tokens
from headstart.server.call import Call
from headstart.server.credentials import Kind, Token
from headstart.server.events import Event
from headstart.server.principal import NobodyKnown, Principal, note_use
from headstart.server.roles import Right, Role
from headstart.server.tokens import Wish

#: A host that was not heard of for so long is away.
AWAY_SECONDS = 180.0
#: A host's token is replaced after this share of its life; the one before ends so long after the new one came.
RENEWED_AFTER = 0.4
LAST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Joined:
    """``tenant`` and ``repository`` by their names."""

    token: Token
    expires: float
    host: str
    tenant: str
    repository: str


@dataclass(frozen=True, slots=True)
class Newcomer:
    name: str
    installation: str
    version: str


def join(connection: Connection, token: Token, host: Newcomer, now: float, address: str, request: str) -> Joined:
    """Raises ``WrongPassword``; ``TargetRefused`` where another machine has that name."""
    if not ids.is_name(host.name):
        raise errors.Usage(f"{host.name!r} cannot be the name of a host: give another one with --name.")
    row = tokens.spend(connection, token, now)
    who = Principal(row["id"], f"join:{row['name']}", Role.HOST, row["tenant"], repository=row["repository"])
    call = Call(who, now, address, request)
    host_id = _upsert(connection, call, host)
    seconds = tokens.LONGEST[Kind.HOST]
    own = tokens.insert_token(
        connection, call, Wish(Kind.HOST, host.name, seconds), row["tenant"], row["repository"], host_id
    )
    names = (
        select(tables.tenants.c.name, tables.repositories.c.name)
        .join_from(tables.repositories, tables.tenants, tables.repositories.c.tenant == tables.tenants.c.id)
        .where(tables.repositories.c.id == row["repository"])
    )
    tenant, repository = connection.execute(names).one()
    return Joined(own, now + seconds, host_id, tenant, repository)


def _upsert(connection: Connection, call: Call, host: Newcomer) -> str:
    """One that joins again keeps its id; its older tokens end."""
    its = tables.hosts.c
    found = connection.execute(
        select(its.id, its.installation).where(its.tenant == call.who.tenant, its.name == host.name)
    ).first()
    if found is not None and found.installation != host.installation:
        raise errors.TargetRefused(
            f"Another machine has joined as {host.name!r}. Give this one another name with --name, or remove the other."
        )
    values = {"version": host.version, "repository": call.who.repository}
    if found is not None:
        connection.execute(update(tables.hosts).where(its.id == found.id).values(values))
        connection.execute(update(tables.tokens).where(tables.tokens.c.host == found.id).values(revoked=True))
        audit.note(connection, call, "host.rejoin", found.id, name=host.name)
        return str(found.id)
    host_id = ids.new()
    fixed = {"id": host_id, "tenant": call.who.tenant, "name": host.name, "installation": host.installation}
    connection.execute(insert(tables.hosts).values(**fixed, **values, created=call.now, state={}))
    audit.note(connection, call, "host.join", host_id, name=host.name)
    return host_id


def listed(connection: Connection, call: Call) -> list[dict[str, Any]]:
    tenant = call.who.of(Right.SEE)
    its = tables.hosts.c
    count = select(func.count()).select_from(tables.vms).where(tables.vms.c.host == its.id).scalar_subquery()
    query = select(tables.hosts, count.label("vms")).where(its.tenant == tenant).order_by(its.name)
    return [
        {**row, "away": row["seen"] is None or row["seen"] < call.now - AWAY_SECONDS}
        for row in connection.execute(query).mappings()
    ]


def remove(connection: Connection, call: Call, host: str) -> None:
    """Its VMs and tokens go with it, its snapshots stay. Raises ``NotFound``."""
    name = require_known(connection, call, host)
    caution.require_approved(connection, call)
    its = tables.hosts.c
    connection.execute(delete(tables.hosts).where(its.id == host, its.tenant == call.who.tenant))
    audit.note(connection, call, "host.remove", host, name=name)


def require_known(connection: Connection, call: Call, host: str) -> str:
    """Its name, for who may remove it. Raises ``NotFound``."""
    tenant = call.who.of(Right.DELETE)
    its = tables.hosts.c
    name = connection.execute(select(its.name).where(its.id == host, its.tenant == tenant)).scalar()
    if name is None:
        raise errors.NotFound(f"There is no host {host!r} here.")
    return str(name)


def pulse(connection: Connection, call: Call, version: str, state: Mapping[str, Any]) -> list[Event]:
    """A host is there, and says how it is; returns what it says for the first time. Raises ``NobodyKnown``."""
    call.who.require(Right.REPORT)
    its, token = tables.hosts.c, tables.tokens.c
    known = select(its.state).where(its.id == call.who.host)
    before = connection.execute(known.with_for_update(key_share=True)).scalar()
    # It may have left since we looked whose token that is, and is not back by that.
    if connection.execute(select(token.revoked).where(token.id == call.who.id)).scalar():
        raise NobodyKnown("The token was revoked. Get a new one.")
    values = {"seen": call.now, "version": version, "state": dict(state)}
    connection.execute(update(tables.hosts).where(its.id == call.who.host).values(values))
    return _news(before or {}, state)


def _news(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Event]:
    known, refused = before.get("refused", {}), now.get("refused", {})
    found = [Event("vm.refused", vm, {"error": why}) for vm, why in refused.items() if vm not in known]
    old, new = before.get("policies"), now.get("policies")
    if isinstance(new, dict) and new.get("refused") and not (isinstance(old, dict) and old.get("refused")):
        found.append(Event("policies.refused", None, {"error": str(new["refused"])}))
    return found


def leave(connection: Connection, call: Call) -> None:
    """Its tokens end. What it has done stays, until somebody removes it."""
    call.who.require(Right.REPORT)
    its = tables.hosts.c
    connection.execute(update(tables.hosts).where(its.id == call.who.host).values(state={"left": call.now}))
    connection.execute(update(tables.tokens).where(tables.tokens.c.host == call.who.host).values(revoked=True))
    audit.note(connection, call, "host.leave", call.who.host or "")


# tokens of hosts


def renew(connection: Connection, call: Call) -> tuple[Token, float]:
    """A new token for a host, and when it ends. The one that it has stays good until it comes with the new one: the
    answer may be lost."""
    call.who.require(Right.REPORT)
    its = tables.tokens.c
    own = connection.execute(select(tables.tokens).where(its.id == call.who.id)).mappings().one()
    # Those that never came to be used were lost on their way.
    unused = (its.host == call.who.host, its.used.is_(None), its.id != call.who.id, its.revoked.is_(False))
    for lost in connection.execute(select(its.id).where(*unused)).scalars().all():
        connection.execute(update(tables.tokens).where(its.id == lost).values(revoked=True))
        audit.note(connection, call, "token.revoke", lost, reason="it never came to be used")
    wish = Wish(Kind.HOST, own["name"], tokens.LONGEST[Kind.HOST])
    token = tokens.insert_token(connection, call, wish, own["tenant"], own["repository"], own["host"])
    return token, call.now + wish.seconds


def comes_with(connection: Connection, call: Call) -> bool:
    """Whether the token with which a host came is to be replaced. If it is a new one, those before it end soon:
    what runs on the host may have one of them still."""
    its = tables.tokens.c
    own = connection.execute(select(its.created, its.expires, its.used).where(its.id == call.who.id)).one()
    if own.used is None:
        older = (its.host == call.who.host) & (its.id != call.who.id) & (its.created <= own.created)
        ends = call.now + LAST_SECONDS
        connection.execute(update(tables.tokens).where(older, its.expires > ends).values(expires=ends))
    note_use(connection, call.who.id, call.now)
    return bool(call.now > own.created + (own.expires - own.created) * RENEWED_AFTER)
