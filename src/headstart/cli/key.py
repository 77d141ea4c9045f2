"""``headstart key``: the passwords of a repository, and its key on paper."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from headstart import errors, repository, store
from headstart.cli import arguments, password, streams, text
from headstart.cli.session import Session
from headstart.repository import keyring, layout, paper
from headstart.repository.keyring import Listed
from headstart.repository.keys import Secrets

#: A file of lines that is longer is no paper key.
_LONGEST = 1 << 16


def add(verbs: arguments.Verbs) -> None:
    group = arguments.add_group(verbs, "key", "The passwords of a repository, and its key on paper.")
    arguments.add_verb(group, "list", run_list, "List the keys, and which one opened the repository now.")
    adding = arguments.add_verb(group, "add", run_add, "Let one more password open the repository.")
    adding.add_argument(
        "--structure-only",
        action="store_true",
        help="it verifies, and can read no content: for a server that keeps the repository",
    )
    adding.add_argument(
        "--from-paper",
        metavar="FILE",
        help="open the repository with a paper key in place of a password: a file, or - to type it",
    )
    removing = arguments.add_verb(group, "remove", run_remove, "Let a password open the repository no longer.")
    removing.add_argument("key", metavar="KEY", help="an id of 'key list', or the beginning of one")
    arguments.add_verb(group, "passwd", run_passwd, "Set another password in place of the one that is given.")
    arguments.add_verb(group, "export", run_export, "Print a paper key: whoever has it can read everything.")


def run_list(session: Session, given: argparse.Namespace) -> None:
    with session.repository(structure_is_enough=True, every_key=True) as repo:
        found = keyring.listed(repo)
    rows = [_row(each) for each in found]
    table = text.table(("KEY", "OPENS", "COST OF A GUESS", "MADE", ""), rows)
    session.output.result({"keys": [_values(each) for each in found]}, table)


def _values(listed: Listed) -> dict[str, Any]:
    key, cost = listed.key, listed.key.argon2
    return {
        "id": key.name.removeprefix(layout.KEYS),
        "opens": _opens(listed),
        "kdf": "none" if cost is None else "argon2id",
        "memory_kib": None if cost is None else cost.memory_kib,
        "passes": None if cost is None else cost.passes,
        "lanes": None if cost is None else cost.lanes,
        "created": key.created,
        "now": listed.now,
    }


def _row(listed: Listed) -> tuple[str, ...]:
    key, cost = listed.key, listed.key.argon2
    told = "nothing: it is not wrapped" if cost is None else f"{cost.memory_kib} KiB, {cost.passes} passes"
    made = "-" if key.created is None else text.moment(key.created)
    return (text.short(_values(listed)["id"]), _opens(listed), told, made, "opened it now" if listed.now else "")


def _opens(listed: Listed) -> str:
    return "everything" if listed.key.opens_content else "structure"


def run_add(session: Session, given: argparse.Namespace) -> None:
    if given.from_paper is None:
        with session.repository() as repo:
            _add(session, repo, given.structure_only)
        return
    # Asked for last: typing all of it for nothing would be a pity.
    place = store.open_store(session.settings.repository)
    with repository.open_with(place, _typed() if given.from_paper == "-" else _of_file(given.from_paper)) as repo:
        _add(session, repo, given.structure_only)


def _add(session: Session, repo: repository.Repository, structure_alone: bool) -> None:
    chosen = password.ask_for_new(os.environ, password.NEW)
    added = keyring.add(repo, chosen, time.time(), structure_alone=structure_alone)
    values = {"added": added, "opens": "structure" if structure_alone else "everything"}
    session.output.result(values, f"Added key {text.short(added)}, which opens the {_WHAT[values['opens']]}.")


_WHAT = {"everything": "whole repository", "structure": "structure of the repository, and no content"}


def _of_file(told: str) -> Secrets:
    path = Path(told)
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST).decode(errors="replace")
    except OSError as error:
        raise errors.Usage(
            f"{path} cannot be read: {error.strerror}. Name the file, or - to type the lines."
        ) from error
    return paper.secrets_of(_lines_in(content))


def _lines_in(content: str) -> list[str]:
    """Those after a number and a colon, and what else is printed does not matter; without any, all lines."""
    lines = [line for line in content.splitlines() if line.strip()]
    numbered = [line.partition(":") for line in lines]
    return [line for number, colon, line in numbered if colon and number.strip().isdecimal()] or lines


def _typed() -> Secrets:
    """At a terminal line by line, each until it is right. It shows: nobody types this without looking."""
    if not sys.stdin.isatty():
        return paper.secrets_of(_lines_in(sys.stdin.read(_LONGEST)))
    parts: list[bytes] = []
    while len(parts) < paper.LINES:
        sys.stderr.write(f"Line {len(parts) + 1} of {paper.LINES}: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            raise errors.Usage("The paper key was not typed to its end. Start again.")
        try:
            parts.append(paper.part_of(len(parts), line))
        except errors.Usage as error:
            streams.tell(str(error))
    return Secrets.of(b"".join(parts))


def run_remove(session: Session, given: argparse.Namespace) -> None:
    with session.repository(every_key=True) as repo:
        removed = keyring.remove(repo, given.key, time.time())
    session.output.result(
        {"removed": removed},
        f"Removed key {text.short(removed)}. Whoever kept a copy of it can still use that with its password.",
    )


def run_passwd(session: Session, given: argparse.Namespace) -> None:
    with session.repository(structure_is_enough=True, every_key=True) as repo:
        added, removed = keyring.replace(repo, password.ask_for_new(os.environ, password.NEW), time.time())
    session.output.result(
        {"added": added, "removed": removed}, "The new password opens the repository, the old one not."
    )


def run_export(session: Session, given: argparse.Namespace) -> None:
    with session.repository() as repo:
        lines = paper.lines(repo.secrets)
        values = {"repository": repo.id, "lines": lines}
        place = f"{repo.store!r}"
    shown = "\n".join(f"  {number}: {line}" for number, line in enumerate(lines, 1))
    session.output.result(
        values,
        f"Paper key of the Headstart repository {values['repository']}\n"
        f"made {text.moment(time.time())}, in {place}\n\n{shown}\n\n"
        "Whoever has this can read everything in the repository, without a password.\n"
        "To use it: headstart key add --from-paper FILE (or - to type it), which sets a new password.",
    )
