"""A simulated host: what the daemon of a real one would send, through the same client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.fleet.clock import Clock
from headstart import __version__
from headstart.repository import layout
from headstart.store.membership import Membership
from headstart.wire.https import Client

#: One object that a backup adds, beside its manifest.
PACK_BYTES = 256 * 1024
_NOISE = os.urandom(PACK_BYTES)


@dataclass(slots=True)
class Host:
    """``vms`` by name. ``client`` may be shared with others: whose requests they are is in each."""

    membership: Membership
    client: Client
    vms: list[str]
    clock: Clock
    policies: str = ""
    _runs: int = 0
    _cursor: int = 0
    _measured: int = field(default_factory=lambda: int(time.time()) // 60 * 60)

    def pulse(self) -> None:
        views = {name: view(name, self._runs) for name in self.vms}
        beat = self._call("pulse", "POST", "/v1/host/pulse", {"version": __version__, "state": {}, "vms": views})
        if beat["policies"] != self.policies:
            self.clock.time("policies", lambda: self.client.request("GET", "/v1/host/policies", None, self._headers))
            self.policies = beat["policies"]

    def figures(self, minutes: int) -> None:
        """Of each VM the last minutes."""
        moments = [self._measured + 60 * number for number in range(minutes)]
        self._measured += 60 * minutes
        row = {"load": 0.31, "latency": 0.0004, "state": "copying", "copied": 1 << 24, "remaining": 1 << 28}
        told = {name: [{**row, "moment": moment, "deferred": 0} for moment in moments] for name in self.vms}
        self._call("figures", "POST", "/v1/host/figures", {"vms": told})

    def back_up(self, name: str) -> None:
        """A pack, a manifest, and the report of the run."""
        self._runs += 1
        snapshot = secrets.token_hex(16)
        pack = layout.header(layout.Kind.PACK) + _NOISE[layout.HEADER_LENGTH :]
        self._put("put a pack", f"packs/{secrets.token_hex(16)}", pack)
        self._put("put a manifest", f"snapshots/{snapshot}", layout.header(layout.Kind.SNAPSHOT) + _NOISE[:4096])
        self._call("commit", "POST", "/v1/host/runs", {"runs": [run(self._runs, name, snapshot)]})

    def _put(self, what: str, key: str, data: bytes) -> None:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        headers = {**self._headers, "Content-Digest": f"sha-256=:{digest}:"}
        path = f"/v1/repositories/{self.membership.repository}/objects/{key}"
        self._require(self.clock.time(what, lambda: self.client.request("PUT", path, data, headers)))

    def _call(self, what: str, method: str, path: str, value: object) -> Any:
        body = json.dumps(value).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        answer = self.clock.time(what, lambda: self.client.request(method, path, body, headers))
        self._require(answer)
        return answer.json() if answer.data else None

    @staticmethod
    def _require(answer: Any) -> None:
        if answer.status >= 400:
            raise RuntimeError(f"{answer.status}: {answer.detail}")

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.membership.token}"}


def view(name: str, number: int) -> dict[str, Any]:
    """As ``headstart.host.view`` tells a VM that is being copied ahead."""
    figure = {"low": 1.0e8, "likely": 2.0e8, "high": 4.0e8}
    return {
        "policy": "nightly",
        "state": "copying",
        "reason": f"idle enough, after run {number} of {name}",
        "due": time.time() + 3600,
        "missed": False,
        "remaining_bytes": 3 << 28,
        "deferred_bytes": 1 << 24,
        "load": 0.22,
        "marks": {"low": 0.3, "high": 0.6},
        "rate": 2.5e7,
        "missing_sensors": [],
        "forecast": {
            **dict.fromkeys(("residue_bytes", "window_seconds", "scratch_bytes", "spool_bytes"), figure),
            "warnings": [],
        },
        "doing": {"verb": "precopy", "what": "copying", "done": 1 << 26, "total": 1 << 28},
    }


def run(number: int, name: str, snapshot: str) -> dict[str, Any]:
    """As the journal of a host keeps a backup of a VM with one disk."""
    now = time.time()
    disk = {
        "name": "vda",
        "size": 40 << 30,
        "changed_bytes": 1 << 31,
        "precopied_bytes": 31 << 26,
        "residue_bytes": 1 << 26,
        "stored_bytes": 1 << 25,
        "compared": False,
        "reason": "",
    }
    report = {
        "snapshot": snapshot,
        "vm": name,
        "created": now,
        "base": None,
        "consistency": "filesystem",
        "freeze_seconds": 0.05,
        "pause_seconds": 0.0,
        "window_seconds": 0.9,
        "seconds": 4.0,
        "audit": {},
        "disks": [disk],
        "failures": [],
        "notes": [],
        "volumes": [],
    }
    return {"number": number, "vm": name, "verb": "backup", "begun": now - 4, "ended": now, "report": report}


Work = Callable[[], None]
