"""Policies: what they say, which VMs have them, and every mistake in them."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import Connection, select

from headstart import errors
from headstart.host import contradictions, keys, locate, mistakes, validation
from headstart.host import tables as toml
from headstart.host.policy import Policy
from headstart.server import hosts, policies, tables
from headstart.server.api.request import Here
from headstart.server.call import Call
from headstart.server.pages import complaints, render, stores, waits
from headstart.server.pages.forms import Sent
from headstart.server.pages.visitor import Visitor
from headstart.server.roles import Right

router = APIRouter(include_in_schema=False, route_class=render.PageRoute)

#: What a new policy begins with.
EXAMPLE = """\
# What every key means: docs/policies.md
[schedule]
calendar = "Mon..Sun 02:00"
timezone = "Europe/Berlin"
random_delay = "15 min"

[head_start]
interval = "15 min"

[retention]
keep_daily = 14
keep_weekly = 8
keep_monthly = 12
"""

Name = Annotated[str, Query(max_length=255)]


@dataclass(frozen=True, slots=True)
class Mistake:
    """``line`` 0: of the whole."""

    line: int
    key: str
    message: str


def find(name: str, text: str, now: float) -> tuple[Policy | None, list[Mistake]]:
    """The policy, and all that is wrong with it."""
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [Mistake(getattr(error, "lineno", 0) or 0, "", f"This is not TOML: {error}.")]
    found: list[tuple[locate.Path, str]] = []
    if policies.HOOKS in told:
        found.append(((policies.HOOKS,), "a policy of the server's has none: they run as root, and stand on hosts"))
        told = {key: value for key, value in told.items() if key != policies.HOOKS}
    table, wrong = validation.validate(toml.PolicyTable, told)
    found += [(each.path, each.message) for each in wrong]
    found += contradictions.find_beside(wrong, table, told, datetime.fromtimestamp(now, UTC), written=True)
    lines = locate.lines(text)
    listed = [Mistake(locate.line_of(lines, path), mistakes.key_of(path), message) for path, message in found]
    policy = table.value(name) if table is not None and not listed else None
    return policy, sorted(listed, key=lambda each: each.line)


@dataclass(frozen=True, slots=True)
class Assigned:
    """``vms``: how many the pattern is the one for."""

    pattern: str
    policy: str | None
    vms: int


@router.get("/policies")
def show(request: Request, here: Here, call: Visitor, vm: Name = "") -> Response:
    with here.database.read() as connection:
        listed = policies.listed(connection, call)
        assigned = policies.assigned(connection, call.who.of(Right.SEE))
        names = _names(connection, call)
        shut = stores.shut(connection, call)
        known = hosts.listed(connection, call)
    whose = _by_pattern(names, assigned)
    counts = {each["name"]: 0 for each in listed}
    for pattern, policy in assigned.items():
        if policy is not None:
            counts[policy] += whose[pattern]
    return render.page(
        request,
        call,
        "policies.html",
        policies=[{**each, "vms": counts[each["name"]]} for each in listed],
        assigned=[Assigned(pattern, policy, whose[pattern]) for pattern, policy in assigned.items()],
        shut=shut,
        complaints=list(complaints.of(known).values()),
        vm=vm,
        names=sorted(set(names))[:500],
    )


def _names(connection: Connection, call: Call) -> list[str]:
    its = tables.vms.c
    return list(connection.execute(select(its.name).where(its.tenant == call.who.of(Right.SEE))).scalars())


def _by_pattern(names: list[str], assigned: Mapping[str, str | None]) -> dict[str, int]:
    """How many VMs each pattern is for: the exact name wins, and what nothing names has the empty one."""
    counts = dict.fromkeys(assigned, 0)
    patterns = [each for each in assigned if each]
    for name in names:
        fits = [name] if name in assigned else [each for each in patterns if fnmatch.fnmatchcase(name, each)]
        for pattern in fits or ([""] if "" in assigned else []):
            counts[pattern] += 1
    return counts


@router.get("/policies/{name}")
def edit(request: Request, here: Here, call: Visitor, name: str) -> Response:
    with here.database.read() as connection:
        known = get(connection, call, name)
    return _editor(request, call, name, EXAMPLE if known is None else known["text"], [], is_new=known is None)


def get(connection: Connection, call: Call, name: str) -> dict[str, Any] | None:
    """None for a name that a new one could have. Raises ``NotFound`` for others."""
    found = next((each for each in policies.listed(connection, call) if each["name"] == name), None)
    if found is None and (not toml.NAME.fullmatch(name) or name == keys.NONE):
        raise errors.NotFound(f"There is no policy {name!r} here.")
    return found


def _editor(
    request: Request, call: Call, name: str, text: str, found: list[Mistake], *, is_new: bool, is_good: bool = False
) -> Response:
    values = {"name": name, "text": text, "mistakes": found, "is_new": is_new, "is_good": is_good}
    return render.page(request, call, "policy.html", 400 if found else 200, **values)


@router.post("/policies")
def begin(call: Visitor, form: Sent) -> Response:
    """To where a new one is written."""
    call.who.require(Right.CONFIGURE)
    return render.go(f"/policies/{form.line('name', 64)}")


@router.post("/policies/{name}")
def save(request: Request, here: Here, call: Visitor, form: Sent, name: str) -> Response:
    """With mistakes, the page tells all of them, and keeps what was written."""
    call.who.require(Right.CONFIGURE)
    text = form.text("text", policies.LONGEST).replace("\r\n", "\n")
    with here.database.read() as connection:
        is_new = get(connection, call, name) is None
    _, found = find(name, text, call.now)
    if found or "check" in form:
        return _editor(request, call, name, text, found, is_new=is_new, is_good=not found)
    with here.database.write() as connection:
        return waits.do(connection, call, "policy.put", "/policies", "saved", name=name, text=text)


@router.post("/policies/{name}/remove")
def remove(here: Here, call: Visitor, name: str) -> Response:
    with here.database.write() as connection:
        return waits.do(connection, call, "policy.remove", "/policies", "removed", name=name)


@router.post("/assignments")
def assign(here: Here, call: Visitor, form: Sent) -> Response:
    """The policy ``none``: not backed up."""
    policy: str | None = form.line("policy", 64)
    with here.database.write() as connection:
        policy = None if policy == keys.NONE else policy
        pattern = form.line("pattern")
        return waits.do(connection, call, "policy.assign", "/policies", "saved", pattern=pattern, policy=policy)


@router.post("/assignments/remove")
def unassign(here: Here, call: Visitor, form: Sent) -> Response:
    with here.database.write() as connection:
        pattern = form.text("pattern")
        return waits.do(connection, call, "policy.unassign", "/policies", "removed", pattern=pattern)
