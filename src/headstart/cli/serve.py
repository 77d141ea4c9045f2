"""``headstart serve``: the disks of a snapshot over NBD."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart import errors, plain, units
from headstart.cli import arguments
from headstart.cli.session import Session
from headstart.repository import lease, snapshot
from headstart.repository.manifest import Manifest
from headstart.restore import runfolder
from headstart.restore.serving import places
from headstart.restore.serving.places import Place, Tcp, Unix
from headstart.restore.serving.serving import Serving, Source

#: Between two looks at whether the servers are there.
_LOOK_SECONDS = 1.0


def add(verbs: arguments.Verbs) -> None:
    parser = arguments.add_verb(verbs, "serve", run, "Offer the disks of a snapshot over NBD, until it is interrupted.")
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="an id, the beginning of one, or NAME@latest")
    parser.add_argument("--disk", metavar="DISK", action="append", default=[], help="only this disk; may be repeated")
    parser.add_argument(
        "--writable",
        action="store_true",
        help="clients may write; what they wrote is gone at the end. Until then it is in the scratch directory",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--socket", metavar="PATH", type=Path, help="the unix socket to make; if not given, a new one")
    where.add_argument("--listen", metavar="HOST[:PORT]", help="TCP instead; without TLS on loopback alone")
    tls = parser.add_mutually_exclusive_group()
    tls.add_argument(
        "--tls-certificates",
        metavar="DIR",
        type=Path,
        help="TLS with ca-cert.pem, server-cert.pem and server-key.pem; clients need a certificate, too",
    )
    tls.add_argument("--tls-psk", metavar="FILE", type=Path, help="TLS with keys of clients, a line USER:KEY for each")


def run(session: Session, given: argparse.Namespace) -> None:
    place = _place(given)
    with session.repository() as repo:
        found = snapshot.resolve(repo, given.snapshot)
        disks = _chosen(found, given.disk)
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(lease.reading_snapshot(repo, "serve", found))
            if not held:
                session.output.note(
                    "the repository cannot be written to: if the snapshot is forgotten meanwhile, its data is kept for "
                    "a day only"
                )
            source = Source(repo, session.settings.repository, found, session.settings.cache)
            scratch = _scratch(session) if given.writable else None
            served = [
                stack.enter_context(Serving(source, together, at, scratch=scratch))
                for together, at in stack.enter_context(_places(disks, place, given.writable))
            ]
            with contextlib.suppress(KeyboardInterrupt):  # that is how it is meant to end
                _tell(session, found, served, given.writable)
                _watch(served)


def _place(given: argparse.Namespace) -> Place | None:
    tls: places.Tls | None = None
    if given.tls_certificates is not None:
        tls = places.Certificates(given.tls_certificates)
    elif given.tls_psk is not None:
        tls = places.SharedKeys(given.tls_psk)
    if given.listen is not None:
        return Tcp.parse(given.listen, tls)
    if tls is not None:
        raise errors.Usage("TLS is for TCP: say with --listen where. A unix socket is for this machine's users alone.")
    return None if given.socket is None else Unix(given.socket)


def _chosen(found: Manifest, wanted: Sequence[str]) -> list[str]:
    names = [disk.name for disk in found.disks]
    for name in wanted:
        if name not in names:
            raise errors.NotFound(
                f"Snapshot {found.id} has no disk {plain.line(name)!r}; it has: {plain.line(', '.join(names))}.",
                disk=name,
            )
    if not names:
        raise errors.NotFound(f"Snapshot {found.id} has no disks.", snapshot=found.id)
    return [name for name in names if not wanted or name in wanted]


@contextlib.contextmanager
def _places(disks: Sequence[str], place: Place | None, writable: bool) -> Iterator[list[tuple[Sequence[str], Place]]]:
    """Which disks are offered together, and where."""
    if not writable or len(disks) == 1:
        groups = [list(disks)]
    elif place is not None:
        raise errors.Usage(f"One place is for one writable disk: name it with --disk, of {', '.join(disks)}.")
    else:
        groups = [[disk] for disk in disks]
    if place is not None:
        yield [(groups[0], place)]
        return
    with tempfile.TemporaryDirectory(prefix="serve-", dir=_runtime()) as folder:
        yield [(group, Unix(Path(folder) / f"nbd{number}.sock")) for number, group in enumerate(groups)]


def _runtime() -> Path | None:
    """Where sockets of this user belong; None: where temporary files do."""
    try:
        return runfolder.ensure(os.environ)
    except OSError:
        return None


def _scratch(session: Session) -> Path:
    scratch = session.settings.scratch
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.TargetRefused(f"{scratch} cannot be made: {error.strerror}. Name one with --scratch.") from error
    return scratch


def _tell(session: Session, found: Manifest, served: Sequence[Serving], writable: bool) -> None:
    sizes = {disk.name: disk.size for disk in found.disks}
    uris = {name: uri for each in served for name, uri in each.uris.items()}
    lines = [f"{uri}  {plain.line(name)}, {units.format_bytes(sizes[name])}" for name, uri in uris.items()]
    lines.append(f"Serving snapshot {found.id} of {plain.line(found.vm)} until this is interrupted (Ctrl-C).")
    told = [{"name": name, "uri": uri, "size": sizes[name]} for name, uri in uris.items()]
    session.output.result({"snapshot": found.id, "vm": found.vm, "writable": writable, "disks": told}, "\n".join(lines))
    if writable:
        session.output.note("what clients write is gone when this ends: copy away what you want to keep")


def _watch(served: Sequence[Serving]) -> None:
    """Until one ends by itself, which is an error."""
    while True:
        for each in served:
            each.wait(_LOOK_SECONDS / len(served))
