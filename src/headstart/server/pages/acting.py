"""Acts that may have to wait for a second person or a delay, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from headstart.server import hosts, policies, vms
from headstart.server.call import Call

_ACTS: dict[str, Callable[..., object]] = {
    "vm.remove": lambda connection, call, vm: vms.remove(connection, call, vm),
    "host.remove": lambda connection, call, host: hosts.remove(connection, call, host),
    "policy.put": lambda connection, call, name, text: policies.put(connection, call, name, text),
    "policy.remove": lambda connection, call, name: policies.remove(connection, call, name),
    "policy.assign": lambda connection, call, pattern, policy: policies.assign(connection, call, pattern, policy),
    "policy.unassign": lambda connection, call, pattern: policies.unassign(connection, call, pattern),
}


def ask(connection: Connection, call: Call, name: str, **arguments: Any) -> bool:
    """Whether it is done: else it waits for somebody, or for its time. Raises what the act raises."""
    _ACTS[name](connection, call, **arguments)
    return True
