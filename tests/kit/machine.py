"""A host without a machine behind it: it says what one would say."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart import units
from headstart.store.membership import Membership
from headstart.wire.https import Client, Identity


@dataclass(slots=True)
class Machine:
    joined: Membership
    client: Client = field(init=False)
    runs: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = Client(Identity(self.joined.url, self.joined.token, self.joined.fingerprint))

    def pulse(self, **vms: Mapping[str, Any] | None) -> None:
        self.tell(vms)

    def tell(
        self, vms: Mapping[str, Mapping[str, Any] | None], orders: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Any:
        """Of VMs whose names are no words, and of orders in hand; the server's answer."""
        told = {"version": "1", "state": self.state, "vms": dict(vms), "orders": dict(orders or {})}
        return self.client.call("POST", "/v1/host/pulse", told)

    def ran(self, vm: str, verb: str, begun: float, report: Mapping[str, Any], seconds: float = 20.0) -> None:
        self.runs += 1
        run = {"number": self.runs, "vm": vm, "verb": verb, "begun": begun, "ended": begun + seconds}
        self.client.call("POST", "/v1/host/runs", {"runs": [{**run, "report": dict(report)}]})

    def measured(self, vm: str, minutes: Sequence[Mapping[str, Any]]) -> None:
        self.client.call("POST", "/v1/host/figures", {"vms": {vm: list(minutes)}})


def view(**changes: object) -> dict[str, Any]:
    """Of a VM that is well, as ``host/view`` has it."""
    told: dict[str, Any] = {
        "policy": "nightly",
        "state": "waiting",
        "reason": "next round in 9 min 0 s",
        "due": time.time() + 7200.0,
        "missed": False,
        "remaining_bytes": 120 * units.MIB,
        "deferred_bytes": 30 * units.MIB,
        "load": 0.17,
        "marks": {"low": 0.3, "high": 0.7},
        "rate": 0.0,
        "missing_sensors": [],
        "forecast": {
            "residue_bytes": {"low": 8e6, "likely": 2.1e7, "high": 6e7},
            "window_seconds": {"low": 0.4, "likely": 1.1, "high": 3.2},
            "scratch_bytes": {"low": 0, "likely": 1e6, "high": 4e6},
            "spool_bytes": {"low": 0, "likely": 2e7, "high": 6e7},
            "warnings": [],
        },
        "doing": None,
    }
    return {**told, **changes}


def doing(verb: str, done: int, total: int, what: str = "copying") -> dict[str, Any]:
    return {"verb": verb, "since": time.time() - 30, "what": what, "done": done, "total": total, "quiet": 0.2}


def backup(
    vm: str, created: float, changed: int, residue: int, window: float, size: int = 40 * units.GIB
) -> dict[str, Any]:
    """The report of one."""
    disk = {"name": "vda", "size": size, "changed_bytes": changed, "precopied_bytes": changed - residue}
    return {
        "snapshot": secrets.token_hex(16),
        "vm": vm,
        "created": created,
        "consistency": "filesystem",
        "window_seconds": window,
        "disks": [{**disk, "residue_bytes": residue, "stored_bytes": changed // 2}],
        "failures": [],
        "notes": [],
    }
