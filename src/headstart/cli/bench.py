"""``headstart bench``: measure what this host can do with a VM."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from headstart import units
from headstart.appliance import addresses
from headstart.backup import trial
from headstart.backup.trial import Figures
from headstart.cli import arguments, simulate, text
from headstart.cli.session import Session

_COUNT = 256 * units.MIB


def add(verbs: arguments.Verbs) -> None:
    group = arguments.add_group(verbs, "bench", "Measure what this host can do with a VM.")
    comparing = arguments.add_verb(
        group, "transports", run_transports, "Compare agent, host and appliances at reading a VM. Nothing is kept."
    )
    comparing.add_argument("name", metavar="NAME")
    comparing.add_argument(
        "--size", metavar="SIZE", type=simulate.size, default=_COUNT, help="so much is read by each (default: 256MiB)"
    )
    comparing.add_argument(
        "--appliance",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="tcp:HOST:PORT[,monitor=PATH],keys=DIR; may be repeated",
    )


def run_transports(session: Session, given: argparse.Namespace) -> None:
    chosen = tuple(addresses.parse(each).text for each in given.appliance)
    with session.local() as context:
        found = trial.compare(replace(context, appliances=chosen), given.name, given.size)
    session.output.result({"vm": given.name, "trials": [each.json() for each in found]}, _table(found))
    for each in found:
        if each.why:
            session.output.note(f"{each.by}: {each.why}")


def _table(found: Sequence[Figures]) -> str:
    head = ("", "MB/s", "host", "QEMU", "vCPUs", "appliance", "write latency")
    told = "Processor time in seconds for each GiB (idle: for each second); QEMU without its vCPUs."
    return f"{text.table(head, [_row(each) for each in found if not each.why])}\n{told}"


def _row(each: Figures) -> tuple[str, ...]:
    rate = f"{each.read_bytes / each.seconds / 1e6:.0f}" if each.read_bytes else "-"
    per = each.read_bytes / units.GIB if each.read_bytes else each.seconds
    spent = (each.host_cpu_seconds, each.qemu_cpu_seconds, each.guest_cpu_seconds, each.appliance_cpu_seconds)
    latency = "-" if each.latency is None else f"{each.latency * 1000:.1f} ms"
    return (each.by, rate, *("-" if value is None else f"{value / per:.2f}" for value in spent), latency)
