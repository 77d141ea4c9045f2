"""What may have to wait for a second person or a delay: a table of acts by name.

``is_destructive`` refuses what could not be done anyway, in the words of the act itself, and tells whether it would
have to wait; ``do`` does it. Arguments are plain JSON, and hold no secret but what ``hidden`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from headstart.server import (
    audit,
    caution,
    hosts,
    jobs,
    kinds,
    policies,
    repositories,
    snapshots,
    structure,
    tenants,
    users,
    vms,
)
from headstart.server.call import Call
from headstart.server.caution import Caution
from headstart.server.jobs import Wish
from headstart.server.roles import Right, Role

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    is_destructive: Callable[[Connection, Call, Arguments], bool]
    do: Callable[[Connection, Call, Arguments], object]
    hidden: tuple[str, ...] = ()


def _vm(connection: Connection, call: Call, given: Arguments) -> bool:
    call.who.of(Right.DELETE)
    vms.get(connection, call, given["vm"])
    return True


def _host(connection: Connection, call: Call, given: Arguments) -> bool:
    hosts.require_known(connection, call, given["host"])
    return True


def _policy(connection: Connection, call: Call, given: Arguments) -> bool:
    policies.require_removable(connection, call, given["name"])
    return True


def _snapshots(connection: Connection, call: Call, given: Arguments) -> bool:
    call.who.of(Right.DELETE)
    place = repositories.get(connection, call.who, given["repository"])
    for snapshot in given["snapshots"]:
        snapshots.require_in(connection, call, place.id, snapshot)
    structure.require_given(place)
    return True


def forget(connection: Connection, call: Call, given: Arguments) -> None:
    """A job of the kind ``forget``: it has the key of the structure."""
    _snapshots(connection, call, given)
    caution.require_approved(connection, call)
    place = repositories.get(connection, call.who, given["repository"])
    wish = Wish(kinds.FORGET.name, place.tenant, place.id, {"snapshots": list(given["snapshots"])}, call.who.name)
    job = jobs.add(connection, wish, call.now)
    audit.note(connection, call, "snapshot.forget", place.id, snapshots=list(given["snapshots"]), job=job)


def _days(connection: Connection, call: Call, given: Arguments) -> bool:
    call.who.of(Right.CONFIGURE)
    place = repositories.get(connection, call.who, given["repository"])
    return bool(given["immutable_days"] < place.immutable_days)


def _repository(connection: Connection, call: Call, given: Arguments) -> bool:
    repositories.require_removable(connection, call, given["repository"])
    return True


def _caution(connection: Connection, call: Call, given: Arguments) -> bool:
    wanted = Caution(given["second_person"], given["delay"])
    tenants.require_can_wait(connection, call, wanted)
    return wanted.is_weaker_than(caution.of(connection, call.who.tenant))


def _role(connection: Connection, call: Call, given: Arguments) -> bool:
    found = users.get(connection, call, given["user"])
    return bool(given["role"] == Role.ADMIN and found["role"] != Role.ADMIN)


def _enable(connection: Connection, call: Call, given: Arguments) -> bool:
    found = users.get(connection, call, given["user"])
    return bool(not given["disabled"] and found["disabled"] and found["role"] == Role.ADMIN)


def _reset(connection: Connection, call: Call, given: Arguments) -> bool:
    found = users.get(connection, call, given["user"])
    return bool(found["role"] == Role.ADMIN and found["id"] != call.who.person)


def is_about(name: str, given: Arguments, person: str | None) -> bool:
    """Whether it hands the account of ``person`` over to whoever asks for it."""
    return name == "user.reset" and person is not None and given.get("user") == person


ALL: dict[str, Act] = {
    "vm.remove": Act(_vm, lambda connection, call, given: vms.remove(connection, call, given["vm"])),
    "host.remove": Act(_host, lambda connection, call, given: hosts.remove(connection, call, given["host"])),
    "snapshot.forget": Act(_snapshots, forget),
    "policy.put": Act(
        lambda connection, call, given: policies.shortens(connection, call, given["name"], given["text"]),
        lambda connection, call, given: policies.put(connection, call, given["name"], given["text"]),
    ),
    "policy.remove": Act(_policy, lambda connection, call, given: policies.remove(connection, call, given["name"])),
    "policy.assign": Act(
        lambda connection, call, given: policies.assignment_shortens(
            connection, call, given["pattern"], given["policy"]
        ),
        lambda connection, call, given: policies.assign(connection, call, given["pattern"], given["policy"]),
    ),
    "policy.unassign": Act(
        lambda connection, call, given: policies.unassignment_shortens(connection, call, given["pattern"]),
        lambda connection, call, given: policies.unassign(connection, call, given["pattern"]),
    ),
    "repository.configure": Act(
        _days,
        lambda connection, call, given: repositories.configure(
            connection, call, given["repository"], given["immutable_days"]
        ),
    ),
    "repository.remove": Act(
        _repository, lambda connection, call, given: repositories.remove(connection, call, given["repository"])
    ),
    "tenant.caution": Act(
        _caution,
        lambda connection, call, given: tenants.set_caution(
            connection, call, Caution(given["second_person"], given["delay"])
        ),
    ),
    "user.role": Act(
        _role, lambda connection, call, given: users.set_role(connection, call, given["user"], Role(given["role"]))
    ),
    "user.disabled": Act(
        _enable, lambda connection, call, given: users.set_disabled(connection, call, given["user"], given["disabled"])
    ),
    "user.reset": Act(
        _reset,
        lambda connection, call, given: users.reset(connection, call, given["user"], given["password"]),
        hidden=("password",),
    ),
}
