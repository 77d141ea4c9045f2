"""``python -m bench.fleet``: writes build/bench/fleet.json and the table of docs/fleet.md."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.fleet import load, site
from bench.fleet.clock import Clock
from bench.fleet.hosts import PACK_BYTES, Host
from bench.fleet.load import Load
from headstart.wire.https import Client, Identity

RESULT = Path(__file__).parents[2] / "build" / "bench" / "fleet.json"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tenants", type=int, default=10)
    parser.add_argument("--hosts", type=int, default=100, help="of each tenant")
    parser.add_argument("--vms", type=int, default=10, help="of each host")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each load")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headstart-fleet-") as folder, site.running(Path(folder)) as running:
        began = time.monotonic()
        members = site.join(running, given.tenants, given.hosts)
        joined = time.monotonic() - began
        clients = [Client(Identity(each.identity.url, "", each.identity.fingerprint)) for each in running.servers]
        vms = [f"vm{number}" for number in range(given.vms)]
        hosts = [Host(each, clients[number % 2], vms, Clock()) for number, each in enumerate(members)]
        for host in hosts:
            host.pulse()  # the first one makes the VMs
        total = len(hosts) * given.vms
        results = [
            _measure(running, "steady", hosts, Load(given.seconds)),
            # All VMs in one hour.
            _measure(running, "nightly peak", hosts, Load(given.seconds, total / 3600.0)),
        ]
        found = {
            "tenants": given.tenants,
            "hosts": len(hosts),
            "vms": total,
            "pack_bytes": PACK_BYTES,
            "postgresql": site.version(),
            "join_seconds": joined,
            "loads": results,
            "memory": running.memory(),
            "tables": running.tables(),
        }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


def _measure(running: site.Site, name: str, hosts: list[Host], wanted: Load) -> dict[str, Any]:
    clock = Clock()
    for host in hosts:
        host.clock = clock
    before = running.cpu_seconds()
    began = time.monotonic()
    late = load.run(hosts, wanted, clock)
    seconds = time.monotonic() - began
    after = running.cpu_seconds()
    return {
        "name": name,
        "seconds": seconds,
        "commits_per_second": wanted.commits,
        "late_seconds": late,
        "cpu_share": {each: (after[each] - before[each]) / seconds for each in after},
        "latencies": [asdict(each) for each in clock.latencies()],
        "failures": len(clock.failures),
        "first_failures": clock.failures[:5],
    }


if __name__ == "__main__":
    main()
