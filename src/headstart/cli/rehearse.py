"""``headstart rehearse``: show that a snapshot starts; ``headstart proof``: what was shown."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

from headstart import errors, plain, units
from headstart.cli import arguments, text
from headstart.cli.boot import definition_from, memory
from headstart.cli.session import Session
from headstart.repository import Repository, lease, proof, snapshot
from headstart.repository.manifest import Manifest
from headstart.repository.proof import Evidence, Proof
from headstart.restore.rehearsing import checks, rehearsal, signs
from headstart.restore.rehearsing.rehearsal import Order, Shown
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.serving import Source

#: Of the console, for people.
_CONSOLE_LINES = 20


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "rehearse", run, "Start a snapshot apart from everything, see whether it lives, and note that with it."
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT|NAME", help="a snapshot, or a VM: its latest one")
    parser.add_argument(
        "--wait-for",
        choices=[each.value for each in Awaited],
        help="the sign of life: an agent answers, the console asks for a login, or words come there (--pattern). "
        "If not given, the agent where the VM has a channel for one, else the console",
    )
    parser.add_argument("--pattern", metavar="REGEX", help="words on the console, a regular expression")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=rehearsal.SECONDS, help="until the sign of life"
    )
    parser.add_argument(
        "--check",
        metavar="CHECK",
        action="append",
        default=[],
        help="filesystems, file:/PATH, port:NUMBER or service:NAME, asked through qemu-guest-agent; may be repeated",
    )
    parser.add_argument(
        "--libvirt",
        metavar="URI",
        default=rehearsal.LIBVIRT,
        help=f"where a domain of libvirt's is started; if not given, {rehearsal.LIBVIRT}",
    )
    parser.add_argument("--memory", metavar="SIZE", type=memory, help="in place of what the VM had, as 4G")
    parser.add_argument(
        "--definition",
        metavar="FILE",
        type=Path,
        help="a QEMU command line, or libvirt's XML, in place of the snapshot's",
    )
    _add_screenshot(parser)
    parser = arguments.add_verb(verbs, "proof", run_proof, "Tell what the last rehearsal of a snapshot has shown.")
    parser.add_argument("snapshot", metavar="SNAPSHOT|NAME", help="a snapshot, or a VM: its latest one")
    _add_screenshot(parser)


def _add_screenshot(parser: arguments.Parser) -> None:
    parser.add_argument("--screenshot", metavar="FILE", type=Path, help="put the picture of the screen there")


def run(session: Session, given: argparse.Namespace) -> None:
    order = _order(given)
    _check_place(given.screenshot)
    with session.repository() as repo:
        found = snapshot.resolve_or_latest(repo, given.snapshot)
        with lease.reading_snapshot(repo, "rehearse", found):
            source = Source(repo, session.settings.repository, found, session.settings.cache)
            shown = rehearsal.rehearse(source, order, session.settings.scratch, time.time)
        unnoted = _record(repo, found, shown)
    _tell(session, found, shown.proof, shown.evidence, given.screenshot)
    for note in shown.notes:
        session.output.note(note)
    if not shown.proof.passed:
        failed = errors.NotProven(f"The rehearsal of snapshot {found.id} has not passed: {shown.proof.reason}")
        if unnoted is not None:
            failed.add_note(f"This was not noted with the snapshot: {unnoted}")
        raise failed
    if unnoted is not None:
        raise errors.Incomplete(
            f"The rehearsal of snapshot {found.id} has passed, and this was not noted with it: {unnoted}"
        )


def _record(repo: Repository, found: Manifest, shown: Shown) -> errors.HeadstartError | None:
    """What kept it from being done, if something did."""
    try:
        proof.record(repo, found.id, shown.proof, shown.evidence)
    except errors.HeadstartError as error:
        return error
    return None


def run_proof(session: Session, given: argparse.Namespace) -> None:
    _check_place(given.screenshot)
    with session.repository() as repo:
        found = snapshot.resolve_or_latest(repo, given.snapshot)
        last = proof.latest(repo, found.id)
    if last is None:
        raise errors.NotFound(
            f"Snapshot {found.id} of {plain.line(found.vm)} was never rehearsed: 'headstart rehearse {found.id}' does.",
            snapshot=found.id,
        )
    _tell(session, found, *last, given.screenshot)


def _check_place(screenshot: Path | None) -> None:
    """Before minutes are spent."""
    if screenshot is not None and screenshot.exists():
        raise errors.TargetRefused(f"{screenshot} exists and is not overwritten. Name another file.")
    if screenshot is not None and not screenshot.parent.is_dir():
        raise errors.TargetRefused(f"{screenshot.parent} is no directory. Name another file.")


def _order(given: argparse.Namespace) -> Order:
    awaited = Awaited(given.wait_for) if given.wait_for else None
    if given.pattern is not None:
        if awaited not in (None, Awaited.PATTERN):
            raise errors.Usage("--pattern is what is waited for: leave --wait-for out.")
        awaited = Awaited.PATTERN
    elif awaited is Awaited.PATTERN:
        raise errors.Usage("Say which words: --pattern REGEX.")
    if not given.timeout > 0:
        raise errors.Usage("--timeout takes seconds, more than 0.")
    names = tuple(map(checks.check_name, given.check))
    return Order(
        awaited,
        "" if given.pattern is None else signs.compiled(given.pattern),
        given.timeout,
        names,
        given.memory,
        given.libvirt,
        definition_from(given.definition),
    )


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            file.write(content)
    except OSError as error:
        raise errors.TargetRefused(f"{path} cannot be written: {error.strerror}. Name another file.") from error


def _tell(session: Session, found: Manifest, shown: Proof, seen: Evidence, screenshot: Path | None) -> None:
    if screenshot is not None and seen.screenshot:
        _write(screenshot, seen.screenshot)
    elif screenshot is not None:
        session.output.note("there is no picture of a screen")
    values = {
        "snapshot": found.id,
        "vm": found.vm,
        **dataclasses.asdict(shown),
        "answers": dict(seen.answers),
        "console": seen.console,
        "screenshot": bool(seen.screenshot),
    }
    session.output.result(values, "\n".join(_lines(found, shown, seen)))


def _lines(found: Manifest, shown: Proof, seen: Evidence) -> Iterator[str]:
    if seen.console and not shown.passed:
        yield "The end of its console:"
        yield from (f"    {plain.line(line)}" for line in seen.console.splitlines()[-_CONSOLE_LINES:])
    for check in shown.checks:
        yield f"{'passed' if check.passed else 'FAILED'}  {check.name}: {plain.line(seen.answers.get(check.name, ''))}"
    verdict = "It lives" if shown.passed else "It has NOT passed"
    yield (
        f"{verdict}: {plain.line(found.vm)}, {text.moment(shown.time)}, after {units.format_seconds(shown.seconds)}"
        f" ({plain.line(shown.awaited)}). {plain.line(shown.reason)}".rstrip()
    )
