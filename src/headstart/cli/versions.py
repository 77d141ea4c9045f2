"""``headstart versions``: which snapshots have a file, and in which state."""

from __future__ import annotations

import argparse
from typing import Any

from headstart import errors, units
from headstart.cli import arguments, filerow, text
from headstart.cli.session import Session
from headstart.repository import lease, snapshot
from headstart.repository.root import Root
from headstart.restore.files import guestpath, versions
from headstart.restore.files.versions import Version

_SAID = {
    "new": "new",
    "same": "the same",
    "metadata": "the same content",
    "changed": "changed",
    "absent": "not there",
    "unreadable": "cannot be read",
}


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(
        verbs, "versions", run, "Tell which snapshots of a VM have a file, and where it changed."
    )
    parser.add_argument("path", metavar="NAME:/PATH", help="as web:/etc/hosts; NAME:VOLUME:/PATH names a volume, too")


def run(session: Session, given: argparse.Namespace) -> None:
    vm, colon, _ = given.path.partition(":")
    if not colon or "@" in vm:
        raise errors.Usage(f"{given.path!r} names no file of a VM: that is NAME:/PATH, as web:/etc/hosts.")
    path = guestpath.parse(given.path.replace(":", "@latest:", 1))
    with session.repository() as repo:
        listing = snapshot.all_manifests(repo)
        manifests = [each for each in listing.manifests if each.vm == vm]
        if not manifests:
            raise errors.NotFound(f"There is no snapshot of {vm!r} in this repository.", vm=vm)
        roots = [Root(each.id, disk.name, disk.size, disk.root) for each in manifests for disk in each.disks]
        with lease.reading(repo, "versions", roots, ()):
            found = list(versions.of(repo, manifests, path))
    values = {"vm": vm, "path": path.path, "versions": [_values(each) for each in found]}
    shown = text.table(("SNAPSHOT", "POINT IN TIME", "SIZE", "MODIFIED", "CONTENT"), [_row(each) for each in found])
    session.output.result(values, shown)
    for each in found:
        if each.state == "unreadable":
            session.output.note(f"{text.short(each.manifest.id)}: {each.why}")
    if listing.damaged:
        raise errors.Incomplete(f"{' '.join(map(str, listing.damaged))} Left out of the list.")
    if all(each.state == "absent" for each in found):
        raise errors.NotFound(f"No snapshot of {vm} has this file. {found[-1].why}", vm=vm, path=path.path)


def _row(version: Version) -> tuple[str, ...]:
    node = version.node
    size = units.format_bytes(node.size) if node else "-"
    return (
        text.short(version.manifest.id),
        text.moment(version.manifest.created),
        size,
        filerow.when(node) if node else "-",
        _SAID[version.state],
    )


def _values(version: Version) -> dict[str, Any]:
    node = version.node
    return {
        "snapshot": version.manifest.id,
        "created": version.manifest.created,
        "state": version.state,
        "kind": node.kind if node else None,
        "size": node.size if node else None,
        "mtime": node.mtime / 10**9 if node else None,
        "compared_bytes": version.read_bytes,
        "why": version.why or None,
    }
