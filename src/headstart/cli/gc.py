"""``headstart gc``: free the space of what nobody needs any longer."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator

from headstart import errors, plain, units
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.host import notation
from headstart.repository import collect
from headstart.repository.collect import Order, Report


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs,
        "gc",
        run,
        "Free the space of forgotten snapshots and dead drafts, in two runs with a quarantine between.",
    )
    parser.add_argument(
        "--quarantine",
        metavar="TIME",
        type=_duration,
        default=collect.QUARANTINE,
        help="from when data is condemned until it is deleted, such as 12h (default: 1d)",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and write nothing")


def _duration(given: str) -> float:
    try:
        return notation.duration(given)
    except ValueError:
        raise errors.Usage(f"--quarantine takes a time like 12h or 1d, not {given!r}.") from None


def run(session: Session, given: argparse.Namespace) -> None:
    begun = time.monotonic()
    with session.repository(structure_is_enough=True) as repo:
        done = collect.collect(repo, Order(given.quarantine, given.dry_run))
    values = dataclasses.asdict(done) | {"seconds": time.monotonic() - begun}
    session.output.result(values, "\n".join(_lines(done)))
    if done.kept:
        names = ", ".join(sorted(done.kept)[:10])
        raise errors.Incomplete(
            f"{len(done.kept)} packs could not be deleted yet ({names}): {next(iter(done.kept.values()))}"
        )


def _lines(done: Report) -> Iterator[str]:
    size = units.format_bytes
    would = "Would have" if done.dry_run else "Has"
    yield f"There are {_packs(done.packs, done.bytes)}, for {done.snapshots} snapshots and {done.drafts} drafts."
    for each in done.revoked:
        yield plain.line(f"Draft {each} was not heard of for too long: its head start is given up.")
    yield f"{would} deleted {_packs(done.deleted_packs, done.freed_bytes)}."
    if done.repacked_bytes:
        yield f"{would} copied {size(done.repacked_bytes)} of what is still needed into new packs."
    yield (
        f"{would} condemned {_packs(done.condemned_packs, done.condemned_bytes)}: the first gc after "
        f"{units.format_seconds(done.quarantine)} deletes them."
    )
    if done.waiting_packs:
        yield (
            f"{_packs(done.waiting_packs, done.waiting_bytes)} condemned before can be deleted in "
            f"{units.format_seconds(max(0.0, done.waiting_seconds))}."
        )


def _packs(count: int, size: int) -> str:
    return f"{count} pack{'' if count == 1 else 's'} of {units.format_bytes(size)}"
