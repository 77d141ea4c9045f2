"""A virtual machine that exists only here, driven by a test.

The test plays the guest (``write``, ``begin``, ``discard``) and the owner (``kill``, ``overlay``,
``rollback``, …). To do so in the middle of what a connection does, it sets ``meanwhile``: that is called
with a word between any two steps, may do anything to the VM, and may raise. Nothing happens by itself;
the clock counts steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Literal

from headstart import blocks
from headstart.hypervisor.memory.image import ZERO, Drive, Image, Record, expand
from headstart.hypervisor.memory.process import Copies, Process, Write

#: What others see of a write that is under way: nothing yet, half of it, all of it.
Visible = Literal["old", "torn", "new"]
#: Seconds that the clock advances between two steps.
STEP_SECONDS = 0.001


class MemoryVm:
    """``sizes`` in bytes by disk; disks named in ``raw`` keep no bitmaps, those in ``iothreads`` are unreadable, those
    in ``overlays`` are started from overlays of ours. When the VM is killed, all is lost of these that was not flushed.

    ``checkpoints``: as through libvirt. Bitmaps cannot be frozen, disks that keep none have none, and while
    a point in time stands nothing else can be read.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        block_size: int,
        *,
        raw: tuple[str, ...] = (),
        iothreads: tuple[str, ...] = (),
        checkpoints: bool = False,
        overlays: tuple[str, ...] = (),
    ) -> None:
        self.checkpoints = checkpoints
        self.block_size = block_size
        self.meanwhile: Callable[[str], None] = lambda _step: None
        self.clock = 0.0
        self._numbers = itertools.count(1)
        self.drives = {
            name: Drive(name, [self._image(name, "raw" if name in raw else "qcow2", size)], name in iothreads)
            for name, size in sizes.items()
        }
        for name in overlays:
            if name in self.drives:
                self.cover(self.drives[name], ())
        self.process: Process | None = None
        #: How often somebody wrote to the images, or opened them for that: what the times of files tell.
        self.touched = 0
        #: qga: there is none; it answers; it is silent.
        self.agent: Literal["none", "answers", "silent"] = "none"
        self.migrating = False
        self.paused = False
        #: Of the process; None: it cannot be seen.
        self.cpu_seconds: float | None = 0.0
        #: A foreign filter or job on the disks, in words.
        self.obstacle = ""
        #: Space for old content; None: enough. Somebody else may take it away at any time.
        self.scratch_bytes: int | None = None
        #: The truth, for comparison: every block's content at the newest point in time.
        self.at_point: dict[str, tuple[int, ...]] = {}
        self.start()

    def _image(self, name: str, kind: str, size: int) -> Image:
        inode = next(self._numbers)
        return Image(f"/images/{name}-{inode}.{kind}", kind, size, inode)

    def cover(self, drive: Drive, marks: tuple[str, ...]) -> None:
        """A new overlay of ours, in which these record."""
        segment = self._image(f"{drive.name}-segment", "qcow2", drive.top.size)
        segment.marks, segment.lasting = marks, {}
        drive.chain.insert(0, segment)

    def step(self, name: str) -> None:
        self.clock += STEP_SECONDS
        self.meanwhile(name)

    # -- the guest

    @property
    def can_write(self) -> bool:
        return self.process is not None and not self.paused and not self.process.stopped_by

    @property
    def frozen(self) -> bool:
        """The guest's file systems are frozen; a raw device can be written all the same."""
        return self.process is not None and bool(self.process.frozen_by)

    def fresh(self) -> int:
        """A content that no block has had before."""
        return next(self._numbers)

    def write(self, disk: str, block: int, content: int | None = None) -> int:
        """A whole write of a block. Without ``content`` it is new; ``ZERO`` writes zeroes."""
        write = self.begin(disk, block, content)
        write.finish()
        return write.content

    def begin(self, disk: str, block: int, content: int | None = None, visible: Visible = "torn") -> Write:
        if self.process is None or not self.can_write:
            raise RuntimeError("a VM that does not run does not write")
        drive = self.drives[disk]
        if block >= self.count(disk):
            raise ValueError(f"disk {disk} has no block {block}")
        for point in self.process.points:
            if disk in point.disks:
                self._save(point.disks[disk], drive, block)
        write = Write(self.process, drive, block, self.fresh() if content is None else content)
        self.process.writes.append(write)
        if visible != "old":
            drive.top.content[block] = write.content if visible == "new" else self.fresh()
        return write

    def _save(self, copies: Copies, drive: Drive, block: int) -> None:
        if copies.broken or block not in copies.protected or block in copies.saved:
            return
        if self.scratch_bytes is not None and self.scratch_used() + self.block_size > self.scratch_bytes:
            copies.broken = True
        else:
            copies.saved[block] = drive.content(block)

    def scratch_used(self) -> int:
        points = self.process.points if self.process else []
        return sum(len(copies.saved) * self.block_size for point in points for copies in point.disks.values())

    def discard(self, disk: str, block: int) -> None:
        self.write(disk, block, ZERO)
        if len(self.drives[disk].chain) == 1:
            del self.drives[disk].top.content[block]

    def drain(self) -> None:
        """QEMU lets all writes come to their end before it changes the graph or runs a transaction."""
        for write in list(self.process.writes) if self.process else []:
            write.finish()

    # -- what a test looks at

    def count(self, disk: str) -> int:
        return blocks.count_of(self.drives[disk].top.size, self.block_size)

    def contents(self, disk: str) -> tuple[int, ...]:
        """The content number of every block, as the guest reads them."""
        drive = self.drives[disk]
        return tuple(drive.content(block) for block in range(self.count(disk)))

    def data(self, disk: str, contents: tuple[int, ...] | None = None) -> bytes:
        """The disk's bytes, now or with other contents (those of ``at_point``)."""
        size = self.drives[disk].top.size
        chosen = self.contents(disk) if contents is None else contents
        return b"".join(
            expand(content, blocks.length_of(block, self.block_size, size)) for block, content in enumerate(chosen)
        )

    def record(self, disk: str, name: str) -> Record | None:
        """A bitmap of the running process, on whichever layer it stands."""
        return next((record for _, found, record in self.drives[disk].records() if found == name), None)

    def leftovers(self) -> list[str]:
        """What stands in the running VM besides bitmaps; nothing, when all is well."""
        if self.process is None:
            return []
        return [
            *(f"point of {point.installation}" for point in self.process.points),
            *self.process.exports,
            *(["NBD server"] if self.process.server else []),
            *(["stopped"] if self.process.stopped_by else []),
            *(["frozen"] if self.process.frozen_by else []),
        ]

    # -- the owner: the process

    def start(self, *, temporary: bool = False) -> None:
        """``temporary`` is QEMU's ``-snapshot``: writes go to overlays that are thrown away at the end."""
        self._off()
        self.touched += 1
        self.process = Process()
        for drive in self.drives.values():
            for image in drive.chain:
                image.open(read_only=temporary or image is not drive.top)
            if temporary:
                drive.chain.insert(0, self._image("temporary", "qcow2", drive.top.size))

    def stop(self) -> None:
        """A clean end: persistent bitmaps are stored."""
        self.drain()
        for drive in self.drives.values():
            drive.top.store()
            drive.top.flush()
        self._end()

    def kill(self) -> None:
        """SIGKILL: writes under way stay as they are, bitmaps are gone or inconsistent."""
        for drive in self.drives.values():
            if drive.top.marks is not None:
                drive.top.lose()
        self._end()

    def _end(self) -> None:
        if self.process is not None:
            self.process.writes.clear()
        self.process = None
        self.migrating = self.paused = False
        for drive in self.drives.values():
            drive.chain = [image for image in drive.chain if not image.path.startswith("/images/temporary")]
            for image in drive.chain:
                image.bitmaps = {}

    def restart(self) -> None:
        self.stop()
        self.start()

    def migrate(self, *, carried: bool) -> bool:
        """To another process on the same images, with QEMU's capability ``dirty-bitmaps`` on both sides, or without it.
        False: it failed, and the VM goes on here."""
        if self.process is None:
            raise RuntimeError("a VM that does not run goes nowhere")
        if not self._can_leave(self.process, carried):
            return False
        self.drain()
        # Whoever lives lets go of the VM, and thaws it.
        self.process = Process()
        self.migrating = False
        for drive in self.drives.values():
            for image in drive.chain:
                sent = {name: record for name, record in image.bitmaps.items() if carried and not record.persistent}
                image.store()
                image.open(read_only=image.read_only)
                image.bitmaps |= sent
        return True

    def _can_leave(self, process: Process, carried: bool) -> bool:
        """Filters of a dead run keep the disks; and bitmaps that cannot be sent are no reason to send the others."""
        holders = {process.stopped_by, process.frozen_by, *(point.installation for point in process.points)} - {""}
        records = [(image, record) for drive in self.drives.values() for image, _, record in drive.records()]
        unsent = any(record.inconsistent or (image.read_only and record.persistent) for image, record in records)
        temporary = any(drive.top.path.startswith("/images/temporary") for drive in self.drives.values())
        return holders <= process.clients.keys() and not temporary and not (carried and unsent)

    def _off(self) -> None:
        if self.process is not None:
            raise RuntimeError("not while the VM runs")

    # -- the owner: images

    def copy(self, disk: str) -> list[Image]:
        """The disk's files as they are, also under a running VM (a snapshot of the storage)."""
        return [image.copy() for image in self.drives[disk].chain]

    def rollback(self, disk: str, files: list[Image], *, new_files: bool = False) -> None:
        """Put files back from a copy, with the bitmaps that are in them. The VM has to be off."""
        self._off()
        self.touched += 1
        chain = [image.copy() for image in files]
        for image in chain if new_files else []:
            image.inode = next(self._numbers)
        self.drives[disk].chain = chain

    def resize(self, disk: str, size: int) -> None:
        """Running or not. Bitmaps learn nothing of it."""
        if self.process is not None and self.process.points:
            raise RuntimeError("not while a point in time stands")
        self.touched += 1
        self.drain()
        drive, before = self.drives[disk], self.count(disk)
        drive.top.resize(size, self.block_size)
        if len(drive.chain) > 1:
            # What a backing file has there does not show (QEMU's bdrv_co_truncate).
            drive.top.content.update(dict.fromkeys(range(before, self.count(disk)), ZERO))

    def overlay(self, disk: str) -> None:
        """Somebody's external snapshot, running or not: bitmaps sink below the new top."""
        self.touched += 1
        self.drain()
        drive = self.drives[disk]
        if self.process is not None:
            drive.top.store()
            drive.top.read_only = True
        drive.chain.insert(0, self._image(disk, "qcow2", drive.top.size))

    def commit(self, disk: str) -> None:
        """Undo ``overlay``: its content is written into the layer below, whose bitmaps see that."""
        self.touched += 1
        self.drain()
        drive = self.drives[disk]
        top = drive.chain.pop(0)
        base = drive.top
        base.open(read_only=False)
        for block, content in top.content.items():
            base.content[block] = content
            base.mark(block)
        if self.process is None:
            base.store()
            base.bitmaps = {}

    def unplug(self, disk: str) -> None:
        """The device goes; its node stays, and so do bitmaps. ``plug`` brings it back."""
        self.drives[disk].plugged = False

    def plug(self, disk: str) -> None:
        self.drives[disk].plugged = True

    def rebase(self, disk: str, content: Mapping[int, int]) -> None:
        """``qemu-img rebase -u`` onto a file with this content; a disk without a backing file gets one."""
        self._off()
        self.touched += 1
        drive = self.drives[disk]
        backing = self._image(f"{disk}-backing", "qcow2", drive.top.size)
        backing.content = dict(content)
        drive.chain = [drive.top, backing]

    def add_bitmap(self, disk: str, name: str, *, granularity: int | None = None) -> None:
        """Somebody else's bitmap."""
        top = self.drives[disk].top
        top.bitmaps[name] = Record(granularity or self.block_size, persistent=top.persistent)
