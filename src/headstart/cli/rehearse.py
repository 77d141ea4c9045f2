"""``headstart rehearse``: show that a snapshot starts."""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path

from headstart import errors, plain, units
from headstart.cli import arguments
from headstart.cli.boot import memory
from headstart.cli.session import Session
from headstart.repository import lease, proof, snapshot
from headstart.restore.rehearsing import checks, rehearsal, signs
from headstart.restore.rehearsing.rehearsal import Order, Shown
from headstart.restore.rehearsing.signs import Awaited
from headstart.restore.serving.serving import Source


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
    parser.add_argument("--screenshot", metavar="FILE", type=Path, help="also put the picture of the screen there")


def run(session: Session, given: argparse.Namespace) -> None:
    order = _order(given)
    if given.screenshot is not None and given.screenshot.exists():
        raise errors.TargetRefused(f"{given.screenshot} exists and is not overwritten. Name another file.")
    with session.repository() as repo:
        found = snapshot.resolve_or_latest(repo, given.snapshot)
        with lease.reading_snapshot(repo, "rehearse", found):
            source = Source(repo, session.settings.repository, found, session.settings.cache)
            shown = rehearsal.rehearse(source, order, session.settings.scratch, time.time)
        proof.record(repo, found.id, shown.proof, shown.evidence)
    if given.screenshot is not None and shown.evidence.screenshot:
        _write(given.screenshot, shown.evidence.screenshot)
    values = {
        "snapshot": found.id,
        "vm": found.vm,
        **dataclasses.asdict(shown.proof),
        "answers": dict(shown.evidence.answers),
        "screenshot": bool(shown.evidence.screenshot),
        "notes": list(shown.notes),
    }
    session.output.result(values, _told(found.vm, shown))
    for note in shown.notes:
        session.output.note(note)
    if not shown.proof.passed:
        raise errors.NotProven(f"The rehearsal of snapshot {found.id} has not passed: {shown.proof.reason}")


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
    return Order(awaited, signs.compiled(given.pattern or ""), given.timeout, names, given.memory, given.libvirt)


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            path.chmod(0o600)
            file.write(content)
    except OSError as error:
        raise errors.TargetRefused(f"{path} cannot be written: {error.strerror}. Name another file.") from error


def _told(vm: str, shown: Shown) -> str:
    found = shown.proof
    lines = [
        f"{'passed' if check.passed else 'FAILED'}  {check.name}: {shown.evidence.answers.get(check.name, '')}"
        for check in found.checks
    ]
    verdict = "It lives" if found.passed else "It has NOT passed"
    lines.append(f"{verdict}: {plain.line(vm)}, after {units.format_seconds(found.seconds)} ({found.awaited}).")
    return "\n".join(lines)
