"""What waits for an admin's consent, in words that can be judged: names in place of ids, and all of a policy's text."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, or_, select

from headstart import plain
from headstart.server import acts, policies, tables
from headstart.server.call import Call
from headstart.server.pages import words

#: Restore points that are named.
_POINTS = 20
#: Lines of texts that are compared: it takes the square of their number at worst.
_LINES = 300

TITLES = {
    "vm.remove": "Take a VM off the lists",
    "host.remove": "Remove a host",
    "snapshot.forget": "Forget restore points",
    "policy.put": "Change a policy",
    "policy.remove": "Remove a policy",
    "policy.assign": "Assign a policy",
    "policy.unassign": "Take an assignment away",
    "repository.configure": "Change for how long objects are immutable",
    "repository.remove": "Remove a repository and all that is in it",
    "tenant.caution": "Change what destructive acts wait for",
    "user.role": "Give somebody another role",
    "user.disabled": "Let somebody in again, or no longer",
    "user.reset": "Give somebody a new way in: it takes the password, the second factor and the account away",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """``facts``: titles and what they say. ``lines`` of a policy: ``+`` or ``-`` for what comes or goes, else a blank,
    and the text. ``mine``: whoever looks must not approve it, as it is about that person."""

    title: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, str], ...]
    mine: bool


def of(connection: Connection, call: Call, asked: Mapping[str, Any]) -> Wish:
    """Of one of ``approvals.listed``."""
    act, given = asked["act"], asked["arguments"]
    facts = [(key, text) for key, value in given.items() for text in _texts(connection, call, act, key, value)]
    lines = _compared(_present(connection, call, str(given.get("name"))), given["text"]) if act == "policy.put" else ()
    return Wish(TITLES.get(act, act), tuple(facts), lines, acts.is_about(act, given, call.who.person))


def _texts(connection: Connection, call: Call, act: str, key: str, value: Any) -> list[str]:
    if (act, key) == ("policy.put", "text"):
        return []
    if key == "snapshots" and isinstance(value, list):
        return _points(connection, call, value)
    if key in _TABLES:
        return [_named(connection, call, _TABLES[key], str(value))]
    if key == "delay" and isinstance(value, int | float):
        return [words.seconds(value) if value else "none"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if key == "pattern":
        return [str(value) or "all that nothing names"]
    return ["none: not backed up" if value is None else str(value)]


_TABLES = {"vm": tables.vms, "host": tables.hosts, "repository": tables.repositories, "user": tables.users}


def _named(connection: Connection, call: Call, table: Table, its: str) -> str:
    """Repositories are also called by their names."""
    key = table.c.id == its
    if table is tables.repositories:
        key = or_(key, table.c.name == its)
    columns = [table.c.name, table.c.role] if table is tables.users else [table.c.name]
    row = connection.execute(select(*columns).where(key, table.c.tenant == call.who.tenant)).first()
    if row is None:
        return f"{its} (gone)"
    if table is not tables.users:
        return str(row.name)
    return f"{row.name} ({row.role}){', who is you' if its == call.who.person else ''}"


def _points(connection: Connection, call: Call, wanted: Sequence[Any]) -> list[str]:
    its = tables.snapshots.c
    query = select(its.id, its.vm, its.created).where(its.tenant == call.who.tenant, its.id.in_(wanted[:_POINTS]))
    told = {row.id: f"{row.vm}, {words.when(row.created)} ({row.id[:12]})" for row in connection.execute(query)}
    found = [told.get(each, f"{each} (gone)") for each in wanted[:_POINTS]]
    more = len(wanted) - len(found)
    return [*found, f"and {more} more"] if more else found


def _present(connection: Connection, call: Call, name: str) -> str:
    return next((each["text"] for each in policies.listed(connection, call) if each["name"] == name), "")


def _compared(before: str, after: str) -> tuple[tuple[str, str], ...]:
    """The whole text, each line of it."""
    old, new = (_lines(before), _lines(after))
    longest = max(len(old), len(new))
    # All of it is one hunk; three lines say so.
    told = list(difflib.unified_diff(old, new, n=longest))[3:] if longest <= _LINES else []
    return tuple((each[0], each[1:]) for each in told) or tuple((" ", each) for each in new)


def _lines(text: str) -> list[str]:
    """As TOML has them: what else breaks lines somewhere must not put the end of a comment on a line of its own."""
    return [plain.line(each.rstrip("\r"), len(each) + 1) for each in text.rstrip("\n").split("\n")] if text else []
