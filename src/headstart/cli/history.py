"""``headstart history``: what has been with a VM."""

from __future__ import annotations

import argparse
import errno
import os
import secrets
import time
from pathlib import Path
from typing import Any

from headstart import errors, plain, units
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.host import account, picture
from headstart.host.account import Account
from headstart.host.picture import History
from headstart.state.runs import Runs
from headstart.state.series import KEPT_SECONDS, Minute, Series
from headstart.state.values import Run

HOURS = 24
MOST_HOURS = KEPT_SECONDS // 3600
_HEADINGS = ("TIME", "VERB", "DIRTY", "COPIED", "REMAINING", "WINDOW", "BY", "RESULT")


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "history", run, "Tell, or draw, what has been with a VM.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--hours",
        metavar="N",
        type=hours,
        default=HOURS,
        help=f"so far back, 1 to {MOST_HOURS}: older figures are not kept (default: %(default)s)",
    )
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw it; an older picture is replaced")


def hours(told: str) -> int:
    """Raises ``argparse.ArgumentTypeError``."""
    found = int(told) if told.isascii() and told.isdecimal() and len(told) < 9 else 0
    if not 1 <= found <= MOST_HOURS:
        raise argparse.ArgumentTypeError(f"{told!r} is not a number of hours from 1 to {MOST_HOURS}")
    return found


def run(session: Session, given: argparse.Namespace) -> None:
    history = _history(session, given.name, given.hours)
    if given.svg is not None:
        write(given.svg, picture.draw(history))
    values = {
        "vm": history.vm,
        "since": history.since,
        "until": history.until,
        "minutes": [_minute(each) for each in history.minutes],
        "runs": [_run(each) for each in history.runs],
        "svg": None if given.svg is None else str(given.svg),
    }
    drawn = f"Drew {given.hours} h of {history.vm}: {given.svg}"
    session.output.result(values, _table(history) if given.svg is None else drawn)


def _history(session: Session, name: str, back: int) -> History:
    until = time.time()
    since = until - back * 3600
    with session.journal() as journal:
        vm = journal.vm(name)
        minutes = Series(journal).minutes(vm.name, since, until)
        return History(vm.name, since, until, minutes, Runs(journal).between(vm.name, since, until))


def _minute(minute: Minute) -> dict[str, Any]:
    return {
        "moment": minute.moment,
        "load": minute.load,
        "latency": minute.latency,
        "state": minute.state,
        "copied_bytes": minute.copied,
        "remaining_bytes": minute.remaining,
        "deferred_bytes": minute.deferred,
    }


def _run(run: Run) -> dict[str, Any]:
    known = {"verb": run.verb, "begun": run.begun, "ended": run.ended, "error": run.report.get("error")}
    return known | {key: value for key, value in run.report.items() if key not in known}


# -- for people


def _table(history: History) -> str:
    return text.table(_HEADINGS, [_row(account.of(each)) for each in history.runs])


def _row(each: Account) -> tuple[str, ...]:
    return (
        text.moment(each.begun),
        each.verb,
        *(_size(size) for size in (each.dirty, each.copied, each.remaining)),
        "-" if each.window is None else units.format_seconds(each.window),
        each.by or "-",
        plain.joined(each.result),
    )


def _size(count: float | None) -> str:
    return "-" if count is None else units.format_bytes(round(count))


# -- the picture


def write(path: Path, drawn: str) -> None:
    """Whole or not at all. Replaces a picture of ours, or an empty file; raises ``TargetRefused`` for anything else."""
    try:
        if not path.parent.is_dir():
            raise errors.Usage(f"There is no folder {path.parent} for the picture: make it, or name a file elsewhere.")
        if os.path.lexists(path) and not _may_be_replaced(path):
            raise errors.TargetRefused(
                f"{path} is there already, and is no picture of Headstart's: name another file.", target=str(path)
            )
        _replace(path, drawn)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Make room there, or name a file elsewhere." if full else "Name a file in a folder that can be."
        kind = errors.NoSpace if full else errors.TargetRefused
        raise kind(f"{path} cannot be written: {error.strerror}. {advice}", target=str(path)) from error


def _may_be_replaced(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    head = picture.HEAD.encode()
    with path.open("rb") as file:
        # A power cut may leave an empty one: pictures are not synced, the next one is better.
        return file.read(len(head)) in (b"", head)


def _replace(path: Path, drawn: str) -> None:
    temporary = path.with_name(f".headstart-{secrets.token_hex(8)}.svg")
    try:
        # As the umask wants it: others may be meant to see it.
        with temporary.open("x", encoding="utf-8") as file:
            file.write(drawn)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
