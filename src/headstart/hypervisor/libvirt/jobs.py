"""Pull-mode backup jobs, of which a domain has one at a time: libvirt's only way to read anything of it.

::

    guest device ---> disk  <--- backing --- scratch file  <--- NBD export, read only
                       copies what the guest overwrites ^

A job protects everything, and cannot be told to protect less. If its scratch file had no room, QEMU would pause the
guest: so room is reserved on the file system, the watch ends the job when most of it is used, and no job stands
without the watch.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import operator
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from headstart import errors, units
from headstart.blocks import Blocks
from headstart.hypervisor.libvirt.place import Place
from headstart.hypervisor.libvirt.watch import Watch
from headstart.wire import nbd
from headstart.wire.libvirt import Domain, Failed, Gone, LinkLost

#: A job that waits behind a guest's port that was opened: libvirt waits 30 s for that before it goes on.
END_SECONDS = 60.0
LOOK_SECONDS = 1.0
#: The share of what is reserved at which a job is ended.
FULL = 0.8
#: An empty scratch file (qcow2: header, tables) beside what it holds.
OVERHEAD = units.MIB
#: fallocate(2): room beyond the end of a file, which stays as long as it is.
FALLOC_FL_KEEP_SIZE = 1
#: Whatever a job may need at least, and what it gets where there is room.
LEAST_RESERVE, USUAL_RESERVE = 64 * units.MIB, units.GIB


@dataclass(frozen=True, slots=True)
class Part:
    """A disk in a job: what was written since ``bitmap`` began is told; None: nothing is."""

    disk: str
    size: int
    bitmap: str | None = None


class Job:
    """While it stands, its disks read as of its beginning."""

    def __init__(self, domain: Domain, place: Place, watch: Watch, mark: int) -> None:
        self._domain = domain
        self._place = place
        self._watch = watch
        self._mark = mark

    def export(self, disk: str) -> nbd.Export:
        return nbd.Export(self._place.socket, disk)

    def client(self, disk: str) -> nbd.Client:
        return nbd.Client(self.export(disk), failure=self._lost)

    def recorded(self, disk: str, block_size: int) -> Blocks:
        """What the part's bitmap holds."""
        context = f"qemu:dirty-bitmap:backup-{disk}"
        with nbd.Client(self.export(disk), [context], failure=self._lost) as client:
            return client.dirty(context, block_size)

    def _lost(self, message: str) -> errors.PointLost:
        """Why a read failed, as far as we know better."""
        spilled = self._watch.spilled()
        if spilled:
            return errors.PointLost(
                f"The guest wrote so much that the scratch file {spilled} was filling up: the backup was given up, so"
                " that the guest is not paused. Try again, or name a larger place with --scratch."
            )
        return errors.PointLost(message)

    def check(self) -> None:
        """Raises ``PointLost`` unless all that was read was as of the beginning: a job that is over goes on to
        answer for a moment, with what is there now."""
        if self._watch.spilled():
            raise self._lost("")
        if self._domain.happened("job", self._mark) or not is_ours(self._domain, self._place):
            raise errors.PointLost("The backup job was ended by somebody else, or the VM has ended.")


class Jobs:
    """The jobs of one VM, one after the other."""

    def __init__(self, domain: Domain, place: Place, watch: Callable[[], Watch]) -> None:
        self._domain = domain
        self._place = place
        self._watch = watch
        #: One of ours stands: its NBD exports may have requests under way.
        self.standing = False

    @contextlib.contextmanager
    def run(self, targets: tuple[str, ...], parts: list[Part], reserve: Mapping[str, int]) -> Iterator[Job]:
        """A job over some of the domain's disks (``targets``). ``reserve``: bytes that the guest may overwrite."""
        job = self.begin(targets, parts, reserve)
        try:
            yield job
        finally:
            self.end()

    def begin(self, targets: tuple[str, ...], parts: list[Part], reserve: Mapping[str, int]) -> Job:
        """Raises ``Busy``, ``NoSpace``, ``PointLost``; then nothing of it stands."""
        watch = self._watch()
        for path in self._place.leftovers():
            path.unlink()
        rooms = {self._place.file(part.disk): _room(part, reserve) for part in parts}
        limits = {self._place.file(part.disk): _limit(part, rooms[self._place.file(part.disk)]) for part in parts}
        watch.job(self._place.socket, limits)
        mark = self._domain.mark
        self.standing = True
        try:
            self._order(_description(self._place, targets, parts))
            for path, room in rooms.items():
                _reserve(path, room)
            self._set_thresholds(limits)
        except BaseException:
            self.end()
            raise
        return Job(self._domain, self._place, watch, mark)

    def _order(self, description: str) -> None:
        for _ in range(2):
            try:
                self._domain.order(lambda domain: domain.backupBegin(description, None, 0))
            except LinkLost:
                if is_ours(self._domain, self._place):
                    return
            except Failed as error:
                raise explained(error, self._place.folder) from error
            else:
                return
        raise errors.Unreachable("libvirt went away twice while a job was to begin. Try again.")

    def _set_thresholds(self, limits: Mapping[Path, int]) -> None:
        """libvirt tells when a write goes beyond; the watch looks at the files as well."""
        found = ElementTree.fromstring(self._domain.ask(lambda domain: domain.backupGetXMLDesc()))
        for disk in found.iterfind("disks/disk[@index]"):
            node = f"{disk.get('name')}[{disk.get('index')}]"
            limit = limits[self._place.file(disk.get("name", ""))]
            # A job that ended meanwhile has no such node; that is told when it is looked at.
            with contextlib.suppress(Failed):
                self._domain.ask(operator.methodcaller("setBlockThreshold", node, limit, 0))

    def end(self) -> None:
        """End our job, and wait until libvirt says so. Gone already is fine. Where libvirt does not answer, the
        watch goes on to stand by."""
        end(self._domain, self._place)
        self.standing = False
        self._watch().job_over()
        for path in self._place.leftovers():
            path.unlink(missing_ok=True)


def explained(error: Failed, folder: Path) -> errors.HeadstartError:
    """Why a job that writes into ``folder`` did not begin."""
    if "Permission denied" in str(error):
        return errors.Usage(
            f"QEMU may not write into {folder}: {error} If AppArmor or SELinux is in the way, docs/libvirt.md says what"
            " to allow; else name another directory with --scratch."
        )
    return error


def end(domain: Domain, place: Place) -> bool:
    """Whether there was one. Raises ``Busy`` if it does not end."""
    if not is_ours(domain, place):
        return False
    mark = domain.mark
    with contextlib.suppress(Failed, LinkLost):
        domain.order(lambda running: running.abortJob())
    deadline = time.monotonic() + END_SECONDS
    # The event may have been missed while the daemon was away. Asking too often would keep libvirt from its work.
    while not domain.wait_event("job", LOOK_SECONDS, mark) and is_ours(domain, place):
        if time.monotonic() > deadline:
            raise errors.Busy("libvirt does not end the backup job of this VM. Try again in a minute.")
    return True


def is_ours(domain: Domain, place: Place) -> bool:
    """A job of this installation stands."""
    try:
        description = domain.ask(lambda running: running.backupGetXMLDesc())
    except (Failed, Gone):
        return False
    server = ElementTree.fromstring(description).find("server")
    return server is not None and server.get("socket") == str(place.socket)


def _description(place: Place, targets: tuple[str, ...], parts: list[Part]) -> str:
    """XML of libvirt's formatbackup."""
    root = ElementTree.Element("domainbackup", mode="pull")
    ElementTree.SubElement(root, "server", transport="unix", socket=str(place.socket))
    disks = ElementTree.SubElement(root, "disks")
    chosen = {part.disk: part for part in parts}
    for target in targets:
        part = chosen.get(target)
        if part is None:
            ElementTree.SubElement(disks, "disk", name=target, backup="no")
            continue
        disk = ElementTree.SubElement(disks, "disk", name=target, backup="yes", type="file", exportname=target)
        disk.set("backupmode", "full" if part.bitmap is None else "incremental")
        if part.bitmap is not None:
            disk.set("incremental", part.bitmap)
        ElementTree.SubElement(disk, "scratch", file=str(place.file(target)))
    return ElementTree.tostring(root, encoding="unicode")


def _room(part: Part, reserve: Mapping[str, int]) -> int:
    """Bytes to reserve for a scratch file; no more than it can take."""
    return min(reserve.get(part.disk, LEAST_RESERVE), _most(part)) + OVERHEAD


def _limit(part: Part, room: int) -> int:
    """The size of its scratch file at which a job has to end; beyond reach where there is room for all."""
    return int(room * FULL) if room < _most(part) else 2 * room


def _most(part: Part) -> int:
    """All of a disk, with qcow2's tables for it."""
    return part.size + part.size // 1024


def _reserve(path: Path, room: int) -> None:
    """Room beyond the file's end, which QEMU's writes will use up. Where the file system cannot do that, or we may
    not write to QEMU's files, what is left is that the watch looks. Raises ``NoSpace``."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        if libc.fallocate(descriptor, FALLOC_FL_KEEP_SIZE, 0, room) != 0 and ctypes.get_errno() == errno.ENOSPC:
            raise errors.NoSpace(
                f"There is no room for {units.format_bytes(room)} in {path.parent}, which the point in time may need."
                " Make room, or name another local directory with --scratch."
            )
    finally:
        os.close(descriptor)
