"""One VM from outside: its hypervisor, its disks, its bitmaps, and who else works on it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from headstart import units
from headstart.host.doctor.finding import Finding, Level
from headstart.host.doctor.subject import Subject
from headstart.hypervisor import names
from headstart.hypervisor.checkup import Checkup
from headstart.hypervisor.inventory import Disk
from headstart.hypervisor.qemu import checkup as qemu
from headstart.hypervisor.qemu import versions
from headstart.hypervisor.qemu.versions import Kind, Standing
from headstart.hypervisor.recording import OVERLAYS, Recording
from headstart.state.journal import Journal
from headstart.state.values import Vm
from headstart.tracking import choice
from headstart.tracking.choice import Way, Wish
from headstart.units import BLOCK_SIZE

#: Layers of a backing chain, above which each read and each look takes longer.
MANY_LAYERS = 8
#: What the owner of a host adds to what libvirt lets QEMU do.
APPARMOR = Path("/etc/apparmor.d/local/abstractions/libvirt-qemu")
_READ_WHOLE = "the next backup reads the whole disk and compares"


def look(vm: Vm, installation: str, scratch: Path) -> Checkup:
    """Raises ``Unreachable``, ``NotFound``, ``Usage``."""
    layered, prepared = vm.track in (Wish.AUTO, Wish.OVERLAY), vm.track is Wish.OVERLAY
    recording = Recording(installation, scratch / OVERLAYS, layered, prepared)
    if vm.domain is not None:
        from headstart.hypervisor.libvirt import checkup as libvirt

        return libvirt.look(vm.domain.uri, vm.domain.name, recording, vm.excluded)
    assert vm.monitor is not None, "either a domain or a monitor"
    return qemu.look(vm.monitor, recording, vm.excluded, BLOCK_SIZE)


def socket(check: str, path: Path, remedy: str, level: Level = Level.PROBLEM) -> Iterator[Finding]:
    """Why nobody can talk through this socket, as far as its file tells."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        yield Finding(check, level, f"{path} is in a folder that is closed to us", "Run as root, or open it.")
        return
    except OSError as error:
        yield Finding(check, level, f"{path} cannot be found: {error.strerror}", remedy)
        return
    if not stat.S_ISSOCK(mode):
        yield Finding(check, level, f"{path} is no socket", remedy)
    elif not os.access(path, os.W_OK):
        said = f"the socket {path} does not let us in: it takes the right to write"
        yield Finding(check, level, said, "Run as the user that QEMU runs as, or as root.")


def monitor(vm: Vm, seen: Checkup) -> Iterator[Finding]:
    check, release = "monitor", versions.told(seen.release)
    yield from _release(check, vm, seen)
    if seen.status in ("io-error", "internal-error", "guest-panicked"):
        said = f"the guest does not run: {seen.status}"
        yield Finding(check, Level.PROBLEM, said, "See QEMU's log, and whether the file system of its images is full.")
    elif seen.status not in ("running", "prelaunch", "off"):
        yield Finding(check, Level.NOTE, f"the guest does not run: {seen.status}", "It is backed up as it is.")
    yield Finding(check, Level.OK, f"QEMU {release if any(seen.release) else 'of unknown version'}, {seen.status}")


def _release(check: str, vm: Vm, seen: Checkup) -> Iterator[Finding]:
    """How well this QEMU is known, and what it is known to break."""
    release, newest = versions.told(seen.release), versions.told(versions.RUN[-1])
    match versions.standing(seen.release):
        case Standing.TOO_OLD:
            oldest = versions.told(versions.OLDEST[:2])
            said = f"QEMU is {release}: Headstart was never run with one older than {oldest}"
            # Without libvirt it is refused.
            level = Level.PROBLEM if vm.domain is None else Level.WARNING
            yield Finding(check, level, said, "Update QEMU, and start the VM anew.")
        case Standing.NEWER:
            said = f"QEMU is {release}: not tested, the newest one tested is {newest}"
            yield Finding(check, Level.NOTE, said, "Restore a backup once and look: 'headstart rehearse' does it.")
        case Standing.BETWEEN:
            tested = ", ".join(map(versions.told, versions.RUN))
            yield Finding(check, Level.NOTE, f"QEMU is {release}: not tested itself; tested are {tested}")
        case Standing.RUN | Standing.UNTOLD:
            pass
    for row, concerned in seen.faults:
        said = f"QEMU {release} {row.what}: {', '.join(concerned)}"
        if row.kind is Kind.REFUSED:
            yield Finding(check, Level.PROBLEM, said, versions.remedy(row))
        else:
            yield Finding(check, Level.WARNING, said, "Headstart never does that; let no other tool do it.")


def access(subject: Subject, vm: Vm, seen: Checkup) -> Iterator[Finding]:
    """Whether QEMU can use files of ours in the scratch directory; libvirt's driver gives them to it."""
    if seen.apparmor and not _let_by_apparmor(subject.scratch):
        said = f"AppArmor confines QEMU, and no line of {APPARMOR} lets it make a socket in the scratch directory"
        advice = f"Add '{subject.scratch}/*.libvirt/nbd rw,' to it: docs/libvirt.md, 'Files and permissions'."
        yield Finding("scratch", Level.WARNING, said, advice)
    if vm.domain is not None or seen.owner is None or seen.owner[0] in (0, os.geteuid()):
        return
    said = f"QEMU runs as user {seen.owner[0]}, and cannot open scratch files of user {os.geteuid()}"
    yield Finding("scratch", Level.PROBLEM, said, "Run Headstart as the same user as QEMU, or QEMU as root.")


def _let_by_apparmor(scratch: Path) -> bool:
    try:
        lines = APPARMOR.read_text().splitlines()
    except OSError:
        return False
    return any(f"{scratch}/" in line for line in lines if not line.lstrip().startswith("#"))


def disks(seen: Checkup, wish: Wish, *, has_agent: bool) -> Iterator[Finding]:
    check = "disks"
    for left in seen.inventory.left_out:
        yield Finding(check, Level.NOTE, f"{left.name} is left out: {left.reason}")
    if not seen.inventory.disks:
        yield Finding(check, Level.PROBLEM, "there is no disk that could be backed up")
    for disk in seen.inventory.disks:
        yield from _tracking(choice.choose(wish, disk), disk)
        yield from _disk(check, disk, in_iothread=disk.name in seen.iothreads, has_agent=has_agent)
    told = ", ".join(f"{disk.name} ({units.format_bytes(disk.size)} {disk.format})" for disk in seen.inventory.disks)
    if told:
        yield Finding(check, Level.OK, f"{told} {'is' if len(seen.inventory.disks) == 1 else 'are'} backed up")


def _tracking(chosen: choice.Choice, disk: Disk) -> Iterator[Finding]:
    """How its changes are learned, and why so."""
    said = f"{disk.name} is tracked by {chosen}"
    if chosen.way is Way.COMPARISON:
        if not disk.untracked:
            yield Finding("tracking", Level.NOTE, said, "It is read whole in the window of each backup.")
    elif disk.unlayered:
        advice = "Until then it is tracked by bitmaps. docs/overlays.md says how to start the VM."
        yield Finding("tracking", Level.WARNING, said, advice)
    else:
        yield Finding("tracking", Level.OK, said)


def _disk(check: str, disk: Disk, *, in_iothread: bool, has_agent: bool) -> Iterator[Finding]:
    if disk.untracked:
        said = f"{disk.name}: nothing records its changes: {disk.untracked}"
        advice = "It is read whole in the window of each backup. 'qemu-img convert -O qcow2', or leave it out."
        yield Finding(check, Level.WARNING, said, advice)
    elif not disk.persistent:
        said = f"{disk.name}: {disk.format} keeps no bitmaps: after each end of QEMU {_READ_WHOLE}"
        yield Finding(check, Level.NOTE, said, "'qemu-img convert -O qcow2' makes an image that keeps them.")
    if disk.unreadable or (in_iothread and disk.format != "raw"):
        level = Level.NOTE if has_agent or disk.glimpsed else Level.WARNING
        said = f"{disk.name}: the host cannot read it directly: {disk.unreadable or 'it is served by an iothread'}"
        advice = "The agent in the guest reads it ahead." if has_agent else "The agent in the guest can read it ahead."
        yield Finding(check, level, said, advice)
    missing = [layer.path for layer in disk.layers if not layer.inode]
    if missing:
        said = f"{disk.name}: cannot be found from here: {', '.join(missing)}"
        advice = "An image that is put back is known by its file: run on the host of QEMU, in its mount namespace."
        yield Finding(check, Level.NOTE, said, advice)
    count = len(disk.layers) - disk.overlays
    if count > 1:
        level = Level.WARNING if count > MANY_LAYERS else Level.NOTE
        said = f"{disk.name}: {count} images on top of each other, the newest is {disk.layers[disk.overlays].path}"
        advice = "Another one on top (an external snapshot) makes the next backup read all. 'block-commit' joins them."
        yield Finding(check, level, said, advice)


def bitmaps(journal: Journal, vm: Vm, seen: Checkup) -> Iterator[Finding]:
    """Ours; and whether those that the last backup left are there."""
    check, mine = "bitmaps", journal.installation
    sound: dict[str, set[str]] = {}
    for each in seen.traces:
        track = names.parse(each.name)
        if track is None or track.installation != mine:
            continue
        if each.fault:
            said = f"{each.disk}: {each.name} cannot be believed: {each.fault}"
            yield Finding(check, Level.WARNING, said, f"Nothing has to be done: {_READ_WHOLE}, and replaces it.")
        elif track.kind == "base":
            sound.setdefault(each.disk, set()).add(track.id)
    tracked = journal.tracked(vm.name)
    if not tracked:
        yield Finding(check, Level.NOTE, "there are none yet", "The first backup starts them.")
    recording = []
    for disk in seen.inventory.disks:
        known = tracked.get(disk.name)
        if known is None or disk.untracked:
            continue
        if known.base in sound.get(disk.name, ()):
            recording.append(disk.name)
        elif not any(each.disk == disk.name and each.fault for each in seen.traces) and seen.status != "off":
            said = f"{disk.name}: the bitmap of the last backup is not there"
            advice = f"Nothing has to be done: {_READ_WHOLE}. If it was not a restart of QEMU, see who removed it."
            yield Finding(check, Level.WARNING, said, advice)
    if recording:
        yield Finding(check, Level.OK, f"those of the last backup record on {', '.join(recording)}")


def others(installation: str, seen: Checkup) -> Iterator[Finding]:
    """Who else works on the VM, or has."""
    check = "other tools"
    for each in seen.works:
        yield Finding(check, Level.WARNING, each, "A backup waits 30 s for its end, and fails then.")
    for each in seen.others:
        whose = names.owner(each.partition(" ")[2])
        advice = "It is at work now, or died: its own next run takes that out. Two points in time do not stand at once."
        yield Finding(check, Level.WARNING, f"{each}, {whose}, stands in QEMU", advice)
    for each in seen.leftovers:
        said = f"a dead run of ours left behind: {each}"
        yield Finding(check, Level.NOTE, said, "Nothing has to be done: the next run takes it out.")
    strange: dict[str, list[str]] = {}
    for trace in seen.traces:
        track = names.parse(trace.name)
        if track is None:
            strange.setdefault("another tool", []).append(f"{trace.name} on {trace.disk}")
        elif track.installation != installation:
            whose = f"another Headstart, installation {track.installation}"
            strange.setdefault(whose, []).append(f"{trace.name} on {trace.disk}")
    for whose, found in strange.items():
        said = f"{whose} keeps {len(found)} bitmaps: {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}"
        yield Finding(check, Level.NOTE, said, "They are left alone. Each costs memory and a little of each write.")
