"""``headstart verify``: read everything back."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from headstart import errors, plain, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import snapshot, verify
from headstart.repository.verify import Report, Touched


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "verify", run, "Read back and check all that snapshots are made of.")
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT", help="only these; else the whole repository")


def run(session: Session, given: argparse.Namespace) -> None:
    begun = time.monotonic()
    with session.repository(to_mend=not given.snapshots) as repo, session.output.progress() as progress:

        def report(done: int, total: int) -> None:
            progress("verifying", done, total)

        if given.snapshots:
            chosen = {found.id: found for found in (snapshot.resolve(repo, name) for name in given.snapshots)}
            done = verify.verify(repo, list(chosen.values()), report)
        else:
            done = verify.verify_all(repo, report, session.remembered(repo))
    values = _values(done) | {"seconds": time.monotonic() - begun}
    session.output.result(values, "\n".join(_lines(done)))
    if done.findings:
        raise _damaged(done)


def _values(done: Report) -> dict[str, Any]:
    findings = [
        {"object": found.object, "message": found.message, "touched": [_place(each) for each in found.touched]}
        for found in done.findings
    ]
    return {"snapshots": done.snapshots, "chunks": done.chunks, "bytes": done.bytes, "findings": findings}


def _place(touched: Touched) -> dict[str, Any]:
    return dataclasses.asdict(touched)


def _lines(done: Report) -> Iterator[str]:
    for found in done.findings:
        yield plain.joined(found.message)
        yield from (f"  {plain.line(_described(each))}" for each in found.touched)
        if not found.touched:
            yield "  no snapshot that was verified needs it"
    yield f"Read {units.format_bytes(done.bytes)} of {done.snapshots} snapshots back: {_verdict(done)}."


def _verdict(done: Report) -> str:
    count = len(done.findings)
    return "everything is whole" if not count else f"{count} damaged object{'s' if count > 1 else ''}"


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
