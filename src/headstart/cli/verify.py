"""``headstart verify``: read everything back, or a part of it each time."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from headstart import errors, plain, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import Repository, snapshot, verify
from headstart.repository.selection import Everything, Rolling, Sample, Selection, Share, Since
from headstart.repository.verify import Report, Touched
from headstart.state.verified import Verified

DAYS = 30
MOST_DAYS = 3650


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "verify", run, "Read back and check all that snapshots are made of.")
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT", help="only these; else the whole repository")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--read-data", action="store_true", help="everything; goes on where an earlier --read-data was interrupted"
    )
    how.add_argument(
        "--sample", metavar="N|PERCENT%", type=share, help="read so many packs, or this share of them, drawn at random"
    )
    how.add_argument(
        "--rolling",
        metavar="DAYS",
        type=days,
        nargs="?",
        const=DAYS,
        help=f"read what is due, so that daily runs read everything once in DAYS days (default: {DAYS})",
    )


def share(told: str) -> Share:
    """Raises ``argparse.ArgumentTypeError``."""
    number = told.removesuffix("%")
    with contextlib.suppress(ValueError):
        if number == told and told.isascii() and told.isdecimal() and len(told) < 10 and int(told):
            return Share(int(told))
        if number != told and 0 < float(number) <= 100:
            return Share(part=float(number) / 100)
    raise argparse.ArgumentTypeError(f"{told!r} is neither a number of packs, as 20, nor a share of them, as 5%")


def days(told: str) -> int:
    """Raises ``argparse.ArgumentTypeError``."""
    found = int(told) if told.isascii() and told.isdecimal() and len(told) < 9 else 0
    if not 1 <= found <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{told!r} is not a number of days from 1 to {MOST_DAYS}")
    return found


def run(session: Session, given: argparse.Namespace) -> None:
    in_parts = given.read_data or given.sample or given.rolling
    if given.snapshots and in_parts:
        raise errors.Usage("--read-data, --sample and --rolling are for the whole repository: name no snapshots.")
    begun = time.monotonic()
    with (
        session.repository(to_mend=not given.snapshots, structure_is_enough=True) as repo,
        session.output.progress() as progress,
    ):

        def report(done: int, total: int) -> None:
            progress("verifying", done, total)

        if given.snapshots:
            chosen = {found.id: found for found in (snapshot.resolve(repo, name) for name in given.snapshots)}
            done = verify.verify(repo, list(chosen.values()), report)
        else:
            with _selection(session, given, repo) as (selection, end):
                done = verify.verify_all(repo, report, session.remembered(repo), selection)
                end()
        values = _values(done) | {"content": repo.secrets.opens_content, "seconds": time.monotonic() - begun}
    session.output.result(values, "\n".join(_lines(done)))
    if done.findings:
        raise _damaged(done)


@contextlib.contextmanager
def _selection(
    session: Session, given: argparse.Namespace, repo: Repository
) -> Iterator[tuple[Selection, Callable[[], None]]]:
    """What is read, and what is to be done when it was."""
    if given.sample is not None:
        yield Sample(given.sample, random.SystemRandom()), _nothing
    elif not given.rolling and not given.read_data:
        yield Everything(), _nothing
    else:
        now = time.time()
        with session.journal() as journal:
            memory = Verified(journal, repo.id)
            if given.rolling:
                yield Rolling(memory, given.rolling, now), _nothing
            else:
                since = memory.begin(now)
                if since < now:
                    session.output.note(f"this goes on with the reading that began on {text.moment(since)}")
                yield Since(memory, since, now), memory.end


def _nothing() -> None:
    pass


def _values(done: Report) -> dict[str, Any]:
    findings = [
        {"object": found.object, "message": found.message, "touched": [_place(each) for each in found.touched]}
        for found in done.findings
    ]
    return {
        "snapshots": done.snapshots,
        "chunks": done.chunks,
        "bytes": done.bytes,
        "packs": done.packs,
        "packs_there": done.packs_there,
        "findings": findings,
    }


def _place(touched: Touched) -> dict[str, Any]:
    return dataclasses.asdict(touched)


def _lines(done: Report) -> Iterator[str]:
    for found in done.findings:
        yield plain.joined(found.message)
        yield from (f"  {plain.line(_described(each))}" for each in found.touched)
        if not found.touched:
            yield "  no snapshot that was verified needs it"
    part = f", {done.packs} of {done.packs_there} packs" if done.packs < done.packs_there else ""
    yield f"Read {units.format_bytes(done.bytes)} of {done.snapshots} snapshots{part} back: {_verdict(done)}."


def _verdict(done: Report) -> str:
    count = len(done.findings)
    if count:
        return f"{count} damaged object{'s' if count > 1 else ''}"
    return "everything is whole" if done.packs == done.packs_there else "all of that is whole"


def _described(touched: Touched) -> str:
    length = sum(extent.length for extent in touched.extents)
    where = f"{units.format_bytes(length)} from byte {touched.extents[0].start} on" if touched.extents else "all of it"
    return f"{touched.vm}, snapshot {text.short(touched.snapshot)}, {touched.name}: {where}"


def _damaged(done: Report) -> errors.Damaged:
    names = _joined(sorted({found.object for found in done.findings}))
    hurt = _joined(sorted({each.snapshot for found in done.findings for each in found.touched}))
    rest = f"These snapshots are hurt: {hurt}. Restore others." if hurt else "No snapshot that was verified is hurt."
    return errors.Damaged(
        f"Damaged: {names}. {rest} Look at the disk under the repository, then use 'headstart repair'.",
        objects=[found.object for found in done.findings],
    )


def _joined(names: list[str], limit: int = 10) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
