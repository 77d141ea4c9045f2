"""``headstart forget``: take snapshots back, by rules or by name."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, tzinfo
from typing import Any

from headstart import errors
from headstart.cli import arguments, text
from headstart.cli.session import Session
from headstart.host import notation
from headstart.repository import forget, label, retention, snapshot
from headstart.repository.forget import Order, Report, Verdict
from headstart.repository.retention import Rules, Span

_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "forget", run, "Take snapshots back, by rules or by name. 'headstart gc' frees their space."
    )
    parser.add_argument("snapshots", nargs="*", metavar="SNAPSHOT", help="forget these; else by the rules")
    for name in _COUNTS:
        period = "newest snapshots" if name == "last" else f"newest of the last N {_PLURALS[name]} that have one"
        parser.add_argument(f"--keep-{name}", metavar="N", type=_count, default=0, help=f"keep the N {period}")
    parser.add_argument(
        "--keep-within", metavar="TIME", type=_span, default=Span(), help="keep all of so long, such as 2y5m7d3h"
    )
    parser.add_argument("--vm", metavar="NAME", action="append", default=[], help="of this VM only; may be repeated")
    parser.add_argument("--tag", metavar="TAG", action="append", default=[], help="with this tag only; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and delete nothing")


_PLURALS = {"hourly": "hours", "daily": "days", "weekly": "weeks", "monthly": "months", "yearly": "years"}


def _count(given: str) -> int:
    if not given.isascii() or not given.isdecimal() or not 1 <= int(given) < 1 << 31:
        raise errors.Usage(f"--keep-... takes a whole number, 1 or more, not {given!r}.")
    return int(given)


def _span(given: str) -> Span:
    try:
        return retention.span(given)
    except ValueError as error:
        raise errors.Usage(f"--keep-within {error}.") from None


def run(session: Session, given: argparse.Namespace) -> None:
    rules = Rules(**{name: getattr(given, f"keep_{name}") for name in _COUNTS}, within=given.keep_within)
    _check(given, rules)
    with session.repository(structure_is_enough=True) as repo:
        ids = tuple(snapshot.resolve(repo, name).id for name in given.snapshots)
        order = Order(
            now=time.time(),
            zone=_zone() if rules else UTC,
            rules=rules,
            vms=given.vm,
            tags=[label.check_tag(each) for each in given.tag],
            ids=ids,
            dry_run=given.dry_run,
        )
        done = forget.forget(repo, order)
    unknown = f"There is no snapshot of {', '.join(done.unknown)}." if done.unknown else ""
    if unknown and not done.verdicts and not done.damaged:
        raise errors.NotFound(f"{unknown} 'headstart snapshots' tells which VMs have some.", vms=list(done.unknown))
    session.output.result(_values(done), _text(done))
    if done.damaged:
        raise errors.Incomplete(
            f"{' '.join(map(str, done.damaged))} Nothing was decided on it. 'headstart verify' tells all damage."
        )
    if unknown:
        raise errors.Incomplete(unknown, vms=list(done.unknown))
    if given.snapshots and done.kept:
        stayed = ", ".join(each.manifest.id for each in done.kept)
        raise errors.Incomplete(f"Somebody has protected meanwhile, and they stay: {stayed}.")


def _zone() -> tzinfo:
    """Of this host, in which days and weeks are counted."""
    try:
        return notation.zone(None)
    except ValueError:
        said = "Rules count days by the time zone of this host, which is not clear: set TZ to a name, as Europe/Berlin."
        raise errors.Usage(said) from None


def _check(given: argparse.Namespace, rules: Rules) -> None:
    if given.snapshots and (rules or given.vm or given.tag):
        raise errors.Usage("Name snapshots, or give rules: not both.")
    if not given.snapshots and not rules:
        raise errors.Usage(
            "Say what to keep, such as --keep-daily 14 --keep-monthly 12, or name the snapshots to forget."
        )


def _values(done: Report) -> dict[str, Any]:
    return {
        "forgotten": [_told(each) for each in done.verdicts if not each.reasons],
        "kept": [_told(each) | {"reasons": list(each.reasons)} for each in done.kept],
        "damaged": [{"object": error.facts["object"], "message": str(error)} for error in done.damaged],
        "dry_run": done.dry_run,
    }


def _told(verdict: Verdict) -> dict[str, Any]:
    found = verdict.manifest
    return {"id": found.id, "vm": found.vm, "created": found.created}


def _text(done: Report) -> str:
    rows = [
        (text.short(each.manifest.id), each.manifest.vm, text.moment(each.manifest.created), *_said(each, done.dry_run))
        for each in done.verdicts
    ]
    count = len(done.forgotten)
    what = f"{count} snapshot{'' if count == 1 else 's'}"
    said = f"Would forget {what}." if done.dry_run else f"Forgot {what}. 'headstart gc' frees what only they needed."
    return "\n".join([text.table(("SNAPSHOT", "VM", "POINT IN TIME", "", "BECAUSE OF"), rows), said])


def _said(verdict: Verdict, dry_run: bool) -> tuple[str, str]:
    if verdict.reasons:
        return "kept", ", ".join(verdict.reasons)
    return ("would be forgotten" if dry_run else "forgotten"), ""
