"""``headstart simulate``: what a head start would have been worth to a VM, by a trace of its writes."""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path
from typing import Any

from headstart import errors, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.simulation import load, replay, rows, trace, world
from headstart.simulation.world import Totals, World

DEADLINE = 86400.0
BANDWIDTH = 100 * units.MIB
#: More deadlines than this are a mistake: a trace of years, or a deadline of a second.
MOST_DEADLINES = 100_000

_UNITS = {"": 1, "KiB": units.KIB, "MiB": units.MIB, "GiB": units.GIB, "TiB": units.TIB}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|TiB|)")

COLUMNS = ("POLICY", "COPIED AHEAD", "WASTED", "UNDER LOAD", "RESIDUE", "WINDOW", "LONGEST")


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "simulate", run, "Replay a trace of writes and compare ways of copying ahead.")
    parser.add_argument("--trace", metavar="FILE", type=Path, required=True, help=f"CSV: {trace.MEANING}")
    parser.add_argument("--disk-size", metavar="SIZE", type=size, help="as 1TiB; by default what the writes need")
    parser.add_argument("--deadline", metavar="SECONDS", type=seconds, default=DEADLINE, help="a backup so often")
    parser.add_argument("--bandwidth", metavar="RATE", type=rate, default=BANDWIDTH, help="bytes a second, as 100MiB")
    parser.add_argument("--load", metavar="FILE", type=Path, help=f"CSV: {load.MEANING}; by default from the trace")
    parser.add_argument(
        "--plan", metavar="FILE", type=Path, help="write what was copied ahead: seconds, offset, length"
    )


def run(session: Session, given: argparse.Namespace) -> None:
    writes = trace.read(given.trace, given.disk_size)
    count = world.count_of_deadlines(writes, given.deadline)
    if count > MOST_DEADLINES:
        raise errors.Usage(f"A deadline every {given.deadline:g} s makes {count} of them: name a longer one.")
    end = count * given.deadline
    busy = load.read(given.load, end) if given.load else load.of_trace(writes, end)
    if given.plan:
        # Better refused now than after a minute of work.
        _write_plan(given.plan, Totals(), writes.disk_size)
    found = World(writes, busy, given.deadline, given.bandwidth)
    totals = replay.compare(found).totals
    if given.plan:
        _write_plan(given.plan, totals["headstart"], writes.disk_size)
    values = {
        "trace": str(given.trace),
        "disk_size": writes.disk_size,
        "deadline": given.deadline,
        "bandwidth": given.bandwidth,
        "backups": count,
        "policies": {name: _values(each, found) for name, each in totals.items()},
    }
    session.output.result(values, _text(values))


def size(told: str) -> int:
    """Bytes, as 1TiB. Raises ``argparse.ArgumentTypeError``."""
    matched = _AMOUNT.fullmatch(told.strip())
    found = float(matched[1]) * _UNITS[matched[2]] if matched else 0.0
    if not 1 <= found <= trace.LARGEST:
        most = units.format_bytes(trace.LARGEST)
        raise argparse.ArgumentTypeError(f"{told!r} is not a size, as 4096, 64KiB or 1.5TiB, of at most {most}")
    return int(found)


def rate(told: str) -> int:
    """Bytes a second, as 100MiB."""
    return size(told.removesuffix("/s"))


def seconds(told: str) -> float:
    """A thousandth to three years."""
    try:
        found = float(told)
    except ValueError:
        found = 0.0
    if not 1e-3 <= found <= rows.LATEST:
        raise argparse.ArgumentTypeError(f"{told!r} is not a number of seconds")
    return found


def _values(totals: Totals, played: World) -> dict[str, Any]:
    windows = played.windows(totals)
    return {
        "changed_bytes": totals.changed,
        "copied_bytes": totals.copied,
        "residue_bytes": totals.residue,
        "wasted_bytes": totals.wasted,
        "bytes_under_load": totals.under_load,
        "window_seconds": sum(windows) / len(windows),
        "longest_window_seconds": max(windows),
        "rounds": len(totals.rotations),
    }


def _text(values: dict[str, Any]) -> str:
    policies = values["policies"]
    changed = units.format_bytes(policies["deadline"]["changed_bytes"])
    backups = "1 backup" if values["backups"] == 1 else f"{values['backups']} backups"
    head = f"{backups}, {changed} changed in all, on a disk of {units.format_bytes(values['disk_size'])}"
    return head + "\n" + text.table(COLUMNS, [_row(name, each) for name, each in policies.items()])


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    told = [units.format_bytes(found[f"{key}_bytes"]) for key in ("copied", "wasted")]
    told += [units.format_bytes(found["bytes_under_load"]), units.format_bytes(found["residue_bytes"])]
    told += [units.format_seconds(found[key]) for key in ("window_seconds", "longest_window_seconds")]
    return (name, *told)


def _write_plan(path: Path, totals: Totals, disk_size: int) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            plan = csv.writer(file, lineterminator="\n")
            plan.writerow(("seconds", "offset", "length"))
            for portion in totals.copies:
                for copy in world.copies_of(portion, disk_size):
                    plan.writerow((f"{copy.moment:.3f}", copy.extent.start, copy.extent.length))
    except OSError as error:
        raise errors.Usage(f"The plan cannot be written to {path}: {error.strerror}.") from error
