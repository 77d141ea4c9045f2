"""Directories of this host: state, scratch space, and the file systems below them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from headstart import units
from headstart.host.doctor.finding import Finding, Level
from headstart.host.doctor.subject import DATABASE, Subject
from headstart.hypervisor import space
from headstart.hypervisor.qemu.exports import SOCKET_PATH_LIMIT
from headstart.state.journal import Journal
from headstart.state.runs import Runs

#: Less than this is no room for a database that grows.
STATE_BYTES = 256 * units.MIB
#: Of scratch, where no backup has told yet how much one takes.
SCRATCH_BYTES = units.GIB
#: Runs that are looked at for how much a backup took.
_RUNS = 50

_ADVICE = "Name a directory on a local disk (ext4, XFS) with --scratch, HEADSTART_SCRATCH or 'scratch' in [host]."
#: What a type of file system means for scratch files and the spool.
_KINDS = {
    "tmpfs": "in the host's memory: scratch files take it from the VMs, and a backup that waits there to be published"
    " is lost when the host stops",
    "ramfs": "in the host's memory, which it can fill up",
    "overlay": "of a container: slow to write, and a backup that waits there to be published is lost with it",
    "btrfs": "copy-on-write: each write to a scratch file or an image becomes another extent, and guests wait for it",
    "zfs": "copy-on-write: it reserves no room for scratch files, and small writes rewrite whole records",
    "bcachefs": "copy-on-write: each write to a scratch file becomes another extent, and guests wait for it",
}
_COW_ADVICE = {
    "btrfs": "Use ext4 or XFS, or 'chattr +C' on the (empty) directory.",
    "zfs": "Use ext4 or XFS (also on a zvol), or a dataset with recordsize=64K and free room.",
}


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists():
        path = path.parent
    return path


def owner(path: Path) -> str:
    user = path.stat().st_uid
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def us() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"


def unwritable(path: Path) -> str:
    """Why nothing can be made in this folder; empty if it can. Nothing is written to find out."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is mounted read-only"
    if not path.is_dir():
        return f"{path} is no directory"
    if not os.access(path, os.W_OK | os.X_OK):
        return f"{path} belongs to {owner(path)}, and {us()} may not write there"
    return ""


def state(subject: Subject) -> Iterator[Finding]:
    check, path = "state", subject.state
    near = existing(path)
    if reason := unwritable(near):
        advice = f"Run as {owner(near)}, correct the rights or the mount, or name another place with --state."
        yield Finding(check, Level.PROBLEM, reason, advice)
        return
    if not subject.there:
        advice = "'headstart vm add' makes it. If there should be one, name it with --state or HEADSTART_STATE."
        yield Finding(check, Level.NOTE, f"{path} has no state yet: no VM was added", advice)
        return
    # Raises what is wrong with it: damaged, of a newer version.
    with subject.journal() as journal:
        who = f"installation {journal.installation}, {len(journal.vms())} VMs"
    yield from _rights(check, path / DATABASE)
    free = space.free(path)
    if free < STATE_BYTES:
        yield Finding(
            check, Level.WARNING, f"{path} has {units.format_bytes(free)} free", "Make room: it grows with each backup."
        )
    yield Finding(check, Level.OK, f"{path}, {who}, {units.format_bytes(free)} free")


def _rights(check: str, database: Path) -> Iterator[Finding]:
    if database.stat().st_uid != os.geteuid():
        said = f"{database} belongs to {owner(database)}, and this is {us()}"
        yield Finding(check, Level.WARNING, said, "Use one user for all commands and the daemon.")
    if database.stat().st_mode & 0o077:
        yield Finding(check, Level.WARNING, f"{database} can be read by others", f"chmod 600 {database}")


def scratch(subject: Subject) -> Iterator[Finding]:
    check, path = "scratch", subject.scratch
    near = existing(path)
    if reason := unwritable(near):
        yield Finding(check, Level.PROBLEM, reason, f"Run as {owner(near)}, or correct the rights. {_ADVICE}")
        return
    kind, found = space.file_system_type(near), False
    for found_kind in kind_of_place(check, path, kind):
        found = True
        yield found_kind
    needed, why = _needed(subject)
    free = space.free(near)
    if free < needed + space.MARGIN:
        level = Level.PROBLEM if free < 2 * space.MARGIN else Level.WARNING
        said = f"{path} has {units.format_bytes(free)} free, and {units.format_bytes(needed)} may be needed ({why})"
        yield Finding(check, level, said, f"Make room. {_ADVICE}")
    elif not found:
        yield Finding(check, Level.OK, f"{path} is on {kind}, {units.format_bytes(free)} free")
    yield from _socket_paths(check, subject)


def kind_of_place(check: str, path: Path, kind: str) -> Iterator[Finding]:
    """What is to be said of the type of file system that scratch files are on."""
    if kind in space.NETWORK_TYPES:
        said = f"{path} is on a network file system ({kind}): when it hangs, so do the VMs; no backup is begun there"
        yield Finding(check, Level.PROBLEM, said, _ADVICE)
    elif kind in _KINDS:
        yield Finding(check, Level.WARNING, f"{path} is on {kind}, {_KINDS[kind]}", _COW_ADVICE.get(kind, _ADVICE))
    elif kind.startswith("fuse"):
        said = f"{path} is on {kind}: a program serves it, and when that hangs, so do the VMs"
        yield Finding(check, Level.WARNING, said, _ADVICE)
    elif not kind:
        said = f"of which type the file system of {path} is cannot be told"
        yield Finding(check, Level.NOTE, said, "It must be on a local disk.")


def _needed(subject: Subject) -> tuple[int, str]:
    """Bytes for the largest backup so far: what it copied of overwritten blocks, and its spool."""
    found: list[int] = []
    if subject.there:
        with subject.journal() as journal:
            found = [taken for vm in journal.vms() for taken in _taken(journal, vm.name)]
    if not found:
        return SCRATCH_BYTES, "no backup has told yet"
    return 2 * max(found), "twice the largest residue of the last backups"


def _taken(journal: Journal, vm: str) -> Iterator[int]:
    for run in Runs(journal).newest(vm, _RUNS):
        if run.verb == "backup" and "error" not in run.report:
            yield sum(disk["residue_bytes"] for disk in run.report.get("disks", ()))


def _socket_paths(check: str, subject: Subject) -> Iterator[Finding]:
    for vm in subject.vms():
        path = subject.scratch / (f"{vm.name}.libvirt/nbd" if vm.domain else f"{vm.name}.nbd")
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            said = f"{path} is too long for a socket ({SOCKET_PATH_LIMIT} bytes at most)"
            yield Finding(check, Level.PROBLEM, said, "Choose a shorter --scratch, or a shorter name for the VM.")
