"""The repository as this host reaches it: place, rights, password, and whether it is the one of the last backups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from headstart import errors, repository, store, units
from headstart.host.doctor import places
from headstart.host.doctor.finding import Finding, Level, of_error
from headstart.host.doctor.subject import Subject
from headstart.hypervisor import space
from headstart.repository import Repository, config, layout, snapshot
from headstart.store import address
from headstart.store.contract import Store

_LOW_BYTES = 10 * units.GIB
_LOW_SHARE = 20
_SKEW_SECONDS = 120.0
_UNNAMED = "Name it with --repository, HEADSTART_REPOSITORY or 'repository' in [host]."
#: The store's folders that backups make objects in.
_FOLDERS = ("packs", "indexes", "snapshots", "drafts", ".tmp")


class _Unnamed(errors.Usage):
    """Nobody named a password."""


def place(subject: Subject) -> Iterator[Finding]:
    check = "repository"
    if subject.url is None:
        yield Finding(check, Level.PROBLEM, "nobody named a repository", _UNNAMED)
        return
    opened = store.open_store(subject.url)
    # Raises what is wrong: none there, somebody else's, of a newer version.
    config.read(opened)
    folder = address.local_directory(subject.url)
    said = f"{opened!r} can be reached"
    if folder is not None:
        wrong = list(_rights(check, folder))
        yield from wrong
        free, low = space.free(folder), _low(folder)
        said += f", {units.format_bytes(free)} free"
        if free < low:
            full = f"{folder} has {units.format_bytes(free)} free"
            yield Finding(check, Level.WARNING, full, "Make room before backups fail: they wait in the spool then.")
        said += "" if wrong else f", {places.us()} may write there"
        yield from _same_disk(check, subject, folder)
    else:
        yield from _clock(check, subject, opened)
    yield Finding(check, Level.OK, said)


def _clock(check: str, subject: Subject, opened: Store) -> Iterator[Finding]:
    """A server refuses who is a quarter of an hour off."""
    ahead = subject.clock() - opened.clock()
    if abs(ahead) > _SKEW_SECONDS:
        where = "ahead of" if ahead > 0 else "behind"
        said = f"this host's clock is {units.format_seconds(abs(ahead))} {where} the store's"
        yield Finding(check, Level.WARNING, said, "Set the clock, best by NTP: far off, all requests are refused.")


def _low(folder: Path) -> int:
    facts = os.statvfs(folder)
    return min(_LOW_BYTES, facts.f_blocks * facts.f_frsize // _LOW_SHARE)


def _rights(check: str, root: Path) -> Iterator[Finding]:
    """Whether new objects can be made. Nothing is written to find out."""
    for folder in (root, *(root / name for name in _FOLDERS if (root / name).exists())):
        if reason := places.unwritable(folder):
            advice = f"Run as {places.owner(folder)}, correct its rights, or see how it is mounted."
            yield Finding(check, Level.PROBLEM, reason, advice)
            return
    strangers = {places.owner(path) for path in (root / layout.PACKS).glob("*") if path.stat().st_uid != os.geteuid()}
    if strangers:
        said = f"some of {root / layout.PACKS} belongs to {', '.join(sorted(strangers))}, and this is {places.us()}"
        advice = "Objects can be read by their owner only: use one user for all commands and the daemon."
        yield Finding(check, Level.WARNING, said, advice)


def _same_disk(check: str, subject: Subject, root: Path) -> Iterator[Finding]:
    if root.stat().st_dev == places.existing(subject.scratch).stat().st_dev:
        said = "it is on the same file system as the scratch space: one disk that fails, or is full, takes both"
        yield Finding(check, Level.NOTE, said, "Put the repository on another disk, better another machine.")


def password(subject: Subject) -> Iterator[Finding]:
    """Whether it opens the repository; and whether that is the repository of the last backups."""
    check = "password"
    if subject.url is None:
        return
    if (file := subject.password_file) is not None and file.exists() and file.stat().st_mode & 0o077:
        yield Finding(check, Level.WARNING, f"{file} can be read by others", f"chmod 600 {file}")
    try:
        with repository.open(store.open_store(subject.url), lambda: _password(subject)) as repo:
            if repo.encrypted:
                yield Finding(check, Level.OK, "it opens the repository")
            else:
                advice = "Whoever can read the place can read all disks. A new one is encrypted: 'headstart init'."
                yield Finding(check, Level.NOTE, "the repository is not encrypted: none is needed", advice)
            yield from _immutable(repo)
            yield from _snapshots(subject, repo)
    except _Unnamed as error:
        yield of_error(check, error, Level.WARNING)
    except (errors.NoRepository, errors.Unsupported):
        return  # told by ``place``


def _immutable(repo: Repository) -> Iterator[Finding]:
    if not repo.promised_days:
        return
    locks = repo.store.locks()
    made = f"it was made to be immutable for {repo.promised_days} days"
    if repo.immutable_days < repo.promised_days:
        said = f"{made}, and the server keeps its objects for {repo.immutable_days}"
        yield Finding(
            "repository", Level.WARNING, said, "An admin of the tenant can raise the repository's days again."
        )
    elif locks is None or not locks.available():
        said = f"{made}, and is in a place that cannot lock objects"
        yield Finding("repository", Level.PROBLEM, said, "Use the bucket with object lock that it was made in.")
    else:
        yield Finding("repository", Level.OK, f"what snapshots need is immutable for {repo.immutable_days} days")


def _password(subject: Subject) -> bytes:
    found = subject.password()
    if found is None:
        raise _Unnamed(
            "nobody named a password, so that none was tried. Set HEADSTART_PASSWORD_FILE (or password_file in [host]):"
            " the daemon has no terminal to ask at."
        )
    return found


def _snapshots(subject: Subject, repo: Repository) -> Iterator[Finding]:
    if not subject.there:
        return
    with subject.journal() as journal:
        points = {vm.name: journal.point(vm.name) for vm in journal.vms()}
    for vm, point in points.items():
        if point is None:
            continue
        try:
            snapshot.load(repo, point.snapshot)
        except errors.NotFound:
            said = f"the newest snapshot of {vm}, {point.snapshot[:12]}, is not in this repository"
            advice = "Is it another repository than that of the last backup? The next one reads all disks."
            yield Finding("repository", Level.WARNING, said, advice)
        except errors.Damaged as error:
            yield of_error("repository", error)
