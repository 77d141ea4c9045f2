"""What the tenant's policies say of VMs, as their hosts understand them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from headstart import errors
from headstart.host import policy
from headstart.host.policy import Policy
from headstart.server import keeping, policies


@dataclass(frozen=True, slots=True)
class Found:
    """By VM; ``unclear``: why nothing can be told of a VM."""

    policies: dict[str, Policy] = field(default_factory=dict)
    unclear: dict[str, str] = field(default_factory=dict)


def of_vms(connection: Connection, tenant: str, vms: Iterable[str]) -> Found:
    whole = keeping.whole_of(policies.readable(connection, tenant), policies.assigned(connection, tenant))
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
