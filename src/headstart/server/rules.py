"""What the tenant's policies say of VMs, as their hosts understand them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select

from headstart import errors
from headstart.host import config, policy, validation
from headstart.host import tables as toml
from headstart.host.policy import Assignment, Config, Policy
from headstart.server import policies, tables


@dataclass(frozen=True, slots=True)
class Found:
    """By VM; ``unclear``: why nothing can be told of a VM."""

    policies: dict[str, Policy] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)


def of_vms(connection: Connection, tenant: str, vms: Iterable[str]) -> Found:
    whole = _config(connection, tenant)
    found = Found()
    for vm in vms:
        try:
            its = policy.policy_of(whole, vm)
        except errors.Usage as error:
            found.unclear[vm] = str(error)
            continue
        except KeyError as error:
            found.unclear[vm] = f"Its policy {error} cannot be read by this version."
            continue
        if its is not None:
            found.policies[vm] = its
    return found


def _config(connection: Connection, tenant: str) -> Config:
    its = tables.policies.c
    rows = connection.execute(select(its.name, its.text).where(its.tenant == tenant)).all()
    known: dict[str, Policy] = {}
    for name, text in rows:
        table, wrong = validation.validate(toml.PolicyTable, tomllib.loads(text))
        if table is not None and not wrong:
            known[name] = table.value(name)
    assigned = policies.assigned(connection, tenant)
    default = assigned.pop("", config.DEFAULT_POLICY if config.DEFAULT_POLICY in known else None)
    named = tuple(Assignment(pattern, name, "the server") for pattern, name in assigned.items())
    return Config(Path(), (), policies=known, assignments=named, default=default)
