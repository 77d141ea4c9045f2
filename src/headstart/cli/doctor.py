"""``headstart doctor``: what stands in the way of backups, and what to change."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import errors
from headstart.cli import arguments, config, password, settings
from headstart.cli.session import Session

if TYPE_CHECKING:
    from headstart.host.doctor.finding import Finding
    from headstart.host.doctor.subject import Subject
    from headstart.host.policy import Config


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "doctor", run, "Tell what stands in the way of backups of this host's VMs, and what to change."
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="look at this VM only")
    config.add_option(parser)


def run(session: Session, given: argparse.Namespace) -> None:
    from headstart.host.doctor import rounds
    from headstart.host.doctor.finding import Level

    found = rounds.examine(_subject(given, os.environ), given.name)
    count = {level: sum(each.level is level for each in found) for level in Level}
    values = {
        "findings": [asdict(each) | {"level": each.level.name.lower(), "vm": each.vm or None} for each in found],
        "problems": count[Level.PROBLEM],
        "warnings": count[Level.WARNING],
    }
    session.output.result(values, _text(found, count[Level.PROBLEM], count[Level.WARNING]))
    if count[Level.PROBLEM]:
        raise errors.NotReady(f"{_counted(count[Level.PROBLEM], 'problem')} to be mended.", problems=values["problems"])


def _subject(given: argparse.Namespace, environment: Mapping[str, str]) -> Subject:
    from headstart.host.doctor.subject import Subject

    file = config.named(given, environment)
    found = _config(given, environment, file)
    beneath = dict(environment)
    if found is not None and not isinstance(found, errors.HeadstartError):
        beneath = config.beneath(environment, found.host)
    chosen = settings.settings(given, beneath)
    secret = None if beneath.get(password.PASSWORD) else beneath.get(password.FILE)
    return Subject(
        chosen.state,
        chosen.scratch,
        _place(chosen),
        lambda: password.named(beneath),
        Path(secret) if secret else None,
        file,
        found,
    )


def _place(chosen: settings.Settings) -> str | None:
    try:
        return chosen.place
    except errors.HeadstartError:
        return None  # told of by the check of the server


def _config(
    given: argparse.Namespace, environment: Mapping[str, str], file: Path
) -> Config | errors.HeadstartError | None:
    """None: there is none, and nobody asked for one."""
    try:
        nobody_asked = given.config is None and not environment.get(config.VARIABLE)
        if nobody_asked and not file.exists() and not settings.settings(given, environment).joined.exists():
            return None
        return config.whole(given, environment, datetime.now(UTC))
    except errors.HeadstartError as error:
        return error
    except OSError as error:
        return errors.Usage(f"{file} cannot be read: {error.strerror}. Run as a user who may.")


def _text(found: Sequence[Finding], problems: int, warnings: int) -> str:
    lines: list[str] = []
    for each in found:
        where = f"{each.vm}, {each.check}" if each.vm else each.check
        lines.append(f"{each.level.name.lower():<8} {where}: {each.what}")
        if each.advice:
            lines.append(f"{'':<8}   {each.advice}")
    lines += ["", f"{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}."]
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count or 'No'} {what}{'' if count == 1 else 's'}"
