"""``headstart tag``: words by which snapshots are found again."""

from __future__ import annotations

import argparse

from headstart import errors
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.repository import label, snapshot


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "tag", run, "Give snapshots tags, or take them away.")
    parser.add_argument("snapshots", nargs="+", metavar="SNAPSHOT")
    parser.add_argument("--add", metavar="TAG", action="append", default=[], help="may be repeated")
    parser.add_argument("--remove", metavar="TAG", action="append", default=[], help="may be repeated")


def run(session: Session, given: argparse.Namespace) -> None:
    added, removed = ([label.check_tag(each) for each in tags] for tags in (given.add, given.remove))
    if not added and not removed:
        raise errors.Usage("Say which tags: --add TAG or --remove TAG.")
    with session.repository(structure_is_enough=True) as repo:
        ids = [snapshot.resolve(repo, name).id for name in given.snapshots]
        for each in ids:
            label.untag(repo, each, removed)
            label.tag(repo, each, added)
        tags = {each: sorted(label.of(repo, each).tags) for each in ids}
    lines = [f"{each}: {', '.join(found) or 'no tags'}" for each, found in tags.items()]
    session.output.result(
        {"snapshots": [{"id": each, "tags": found} for each, found in tags.items()]}, "\n".join(lines)
    )
