"""``headstart repair``: put right what is damaged in the repository, and note what is lost."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from headstart import errors, units
from headstart.backup.context import Context
from headstart.backup.livedonor import LiveVm
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.repository import Repository, repair
from headstart.repository.donor import Donor, Second
from headstart.repository.loss import Hurt
from headstart.repository.repair import Order, Report, Sources
from headstart.state.database import DATABASE


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "repair", run, "Put right what is damaged, and note what is lost.")
    parser.add_argument(
        "--from",
        metavar="URL",
        dest="second",
        action="append",
        default=[],
        help="heal from this repository: a copy of this one, or another one of the same VMs; may be repeated",
    )
    parser.add_argument(
        "--vm",
        metavar="NAME",
        action="append",
        default=[],
        help="heal from this running VM only; may be repeated. If not given, from every VM of this host",
    )
    parser.add_argument("--no-vm", action="store_true", help="ask no VM")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and write nothing")


def run(session: Session, given: argparse.Namespace) -> None:
    if given.vm and given.no_vm:
        raise errors.Usage("--vm and --no-vm cannot be used together.")
    with (
        session.repository(to_mend=True) as repo,
        session.output.progress() as progress,
        _sources(session, given, repo) as sources,
    ):
        order = Order(time.time(), session.remembered(repo), sources, given.dry_run)
        done = repair.run(repo, order, lambda count, total: progress("verifying", count, total))
    session.output.result(_values(done), "\n".join(_lines(done)))
    for note in done.notes:
        session.output.note(note)
    if done.hurt or done.open:
        raise _left(done)


@contextlib.contextmanager
def _sources(session: Session, given: argparse.Namespace, repo: Repository) -> Iterator[Sources]:
    mirrors: list[Repository] = []
    donors: list[Donor] = []
    with contextlib.ExitStack() as stack:
        for url in given.second:
            second = stack.enter_context(session.second_repository(url, to_mend=True))
            if second.id == repo.id:
                mirrors.append(second)
            donors.append(Second(second))
        if not given.no_vm and (given.vm or (session.settings.state / DATABASE).exists()):
            context = stack.enter_context(session.local())
            donors += [LiveVm(context, name) for name in given.vm or _known(context)]
        yield Sources(mirrors, donors)


def _known(context: Context) -> list[str]:
    return [vm.name for vm in context.journal.vms()]


def _values(done: Report) -> dict[str, Any]:
    return {
        "dry_run": done.dry_run,
        "findings": [{"object": found.object, "message": found.message} for found in done.findings],
        "mended": [dataclasses.asdict(each) for each in done.mended],
        "healed": [dataclasses.asdict(each) for each in done.healed],
        "lost": [lost_values(each) for each in done.hurt],
        "lost_snapshots": done.lost_snapshots,
        "open": done.open,
        "loss": done.loss,
        "notes": done.notes,
    }


def lost_values(hurt: Hurt) -> dict[str, Any]:
    extents = [dataclasses.asdict(extent) for extent in hurt.extents]
    return {"snapshot": hurt.snapshot, "vm": hurt.vm, "name": hurt.name, "extents": extents}


def _lines(done: Report) -> Iterator[str]:
    for mended in done.mended:
        yield f"{mended.object}: {mended.how}"
    for healed in done.healed:
        yield f"healed {healed.chunks} chunks ({units.format_bytes(healed.bytes)}) from {healed.source}"
    for hurt in done.hurt:
        yield f"lost: {described(hurt)}"
    for each in done.lost_snapshots:
        yield f"lost: snapshot {text.short(each)}, all of it: neither its manifest nor the twin can be read"
    if not done.findings:
        yield "Nothing is damaged."
    elif done.dry_run:
        yield "Nothing was written: without --dry-run this is what would be done."


def described(hurt: Hurt) -> str:
    length = sum(extent.length for extent in hurt.extents)
    where = ", ".join(f"{extent.start} to {extent.end - 1}" for extent in hurt.extents[:4])
    more = f" and {len(hurt.extents) - 4} more" if len(hurt.extents) > 4 else ""
    what = f"{units.format_bytes(length)}: bytes {where}{more}" if hurt.extents else "all of it"
    return f"{hurt.vm}, snapshot {text.short(hurt.snapshot)}, {hurt.name}: {what}"


def _left(done: Report) -> errors.Damaged:
    snapshots = sorted({each.snapshot for each in done.hurt} | set(done.lost_snapshots))
    parts = []
    if done.hurt or done.lost_snapshots:
        parts.append(
            f"Parts of {len(snapshots)} snapshots are lost: {', '.join(snapshots[:10])}. All others can be restored. "
            "The next backup reads again what it needs of that."
        )
    undecided = [name for name in done.open if not done.lost_snapshots or name.partition("/")[2] not in snapshots]
    if undecided:
        parts.append(f"What cannot be put right: {', '.join(undecided)}. Put it back from a copy of the repository.")
    return errors.Damaged(" ".join(parts), snapshots=snapshots, objects=done.open)
