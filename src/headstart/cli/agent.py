"""``headstart agent``: the program that runs in a guest."""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart import units
from headstart.agentd import release
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.guest import package


def add(verbs: arguments.Verbs) -> None:
    group = arguments.add_group(verbs, "agent", "Make the agent that runs in a guest, and put it there.")
    building = arguments.add_verb(group, "build", run_build, "Write the agent, one file for Python 3.6 or newer.")
    building.add_argument("file", metavar="FILE", type=Path, help="an older one is replaced, anything else is not")


def run_build(session: Session, given: argparse.Namespace) -> None:
    content = package.write(given.file)
    digest = package.digest(package.sources())
    session.output.result(
        {"path": str(given.file), "release": release.RELEASE, "sources": digest, "size": len(content)},
        f"Wrote {given.file}: release {release.RELEASE}, {units.format_bytes(len(content))}. "
        "It is started in the guest, as root, by: python3 FILE",
    )
