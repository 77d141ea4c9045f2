"""A point in time that QEMU itself copies, for VMs with a disk in an iothread.

No node of such a disk may be exported: this QEMU aborts when an NBD client leaves it. So backup jobs copy what is
wanted from the nodes of a ``Fleece`` into files of ours, and these are read.

The jobs never stand on the guest's disk itself. There, this QEMU aborts with ``sync=bitmap`` when a write comes
before the job has set up its bitmap (``block_copy_task_create: !reqlist_find_conflict``), and a target that is full
makes the guest's writes fail. Nobody writes to the nodes of a fleece, and a job that fails is ours alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from headstart import blocks, errors, units
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor import space
from headstart.hypervisor.contract import PointRequest, Protects, of_disk
from headstart.hypervisor.qemu import jobs, scratch
from headstart.hypervisor.qemu.fleece import WANTED, Fleece
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.migration import Watch
from headstart.hypervisor.qemu.site import Site
from headstart.reading import Piece
from headstart.wire.files import FileReader
from headstart.wire.fileserver import FileServer
from headstart.wire.qmp import CommandFailed

#: Of what is copied, so much is expected to be overwritten before its turn comes: the copy runs as fast as it
#: can, and if it is more after all, the point breaks and not the guest.
RESERVED_SHARE = 4
LEAST_RESERVE = 64 * units.MIB


class PushPoint:
    """``headstart.hypervisor.contract.PointInTime`` by filters and backup jobs; protects what was wanted.

    The guest is rid of it, and the window ends, when the copies are made: before the constructor returns.
    """

    protects = Protects.WANTED

    def __init__(self, site: Site, seen: Look, request: PointRequest, watch: Watch) -> None:
        self._site = site
        self._seen = seen
        self._files = contextlib.ExitStack()
        self._protected: dict[str, Blocks] = {}
        self._readers: dict[str, PushReader] = {}
        self._reads = request.reads
        space.require_local(site.scratch)
        space.require(site.scratch, sum(self._room(each, request) for each in seen.attachments), "The point in time")
        try:
            with contextlib.ExitStack() as targets:
                for number, each in enumerate(seen.attachments):
                    self._target(number, each, targets)
                with Fleece(site, seen, replace(request, reserve={}), watch) as fleece:
                    self._copy(fleece, request)
                    fleece.check()
                    self._window = fleece.release()
            self._open()
        except BaseException:
            self._withdraw()
            raise
        self.consistency = fleece.consistency
        self.freeze_seconds = fleece.freeze_seconds
        self.pause_seconds = fleece.pause_seconds
        self.notes = fleece.notes

    def _room(self, attachment: Attachment, request: PointRequest) -> int:
        """For the copy of a disk, and for what the guest overwrites before it is copied."""
        disk = attachment.disk
        wanted = blocks.total_bytes(request.wanted.get(disk.name, Blocks()), self._site.block_size, disk.size)
        reserve = request.reserve.get(disk.name, 0)
        return wanted + min(reserve, max(LEAST_RESERVE, wanted // RESERVED_SHARE))

    def _target(self, number: int, attachment: Attachment, targets: contextlib.ExitStack) -> None:
        """A raw file that takes room as it is filled."""
        path, node = self._site.file(f"push{number}"), self._site.node(f"push{number}")
        self._files.callback(path.unlink, missing_ok=True)
        scratch.add(self._site.qmp, path, attachment.disk.size, node)
        targets.callback(self._delete, node)

    def _copy(self, fleece: Fleece, request: PointRequest) -> None:
        """All disks at once; meanwhile ask what is being copied.

        The jobs wait to be finalized: one that takes itself apart while the owner's ``stop`` or a reset waits for
        the disks makes this QEMU abort (``bdrv_do_drained_end: bs->quiesce_counter > 0``).
        """
        with contextlib.ExitStack() as running:
            for number in range(len(self._seen.attachments)):
                running.callback(self._end, self._site.node(f"job{number}"))
                self._site.qmp.execute(
                    "blockdev-backup",
                    job_id=self._site.node(f"job{number}"),
                    device=fleece.access(number),
                    target=self._site.node(f"push{number}"),
                    sync="bitmap",
                    bitmap=WANTED,
                    bitmap_mode="never",
                    auto_finalize=False,
                    auto_dismiss=False,
                )
            self._learn(request)
            for number, each in enumerate(self._seen.attachments):
                self._finish(number, each)

    def _learn(self, request: PointRequest) -> None:
        """What can be read: the wanted blocks and those written until the point."""
        ended = {each.disk.name: [s.name for s in request.ends if s.disk == each.disk.name]
                 for each in self._seen.attachments}  # fmt: skip
        written = self._site.bitmaps.changed(self._seen, ended)
        for disk, changed in written.items():
            self._protected[disk] = changed | request.wanted.get(disk, Blocks())

    def _finish(self, number: int, attachment: Attachment) -> None:
        failure = jobs.wait(self._site.qmp, self._site.node(f"job{number}"))
        if failure == os.strerror(errno.ENOSPC):
            raise errors.NoSpace(
                f"{self._site.scratch} became full while disk {attachment.disk.name} was copied to it. Make room, or"
                " name another local directory with --scratch."
            )
        if failure:
            raise errors.PointLost(f"QEMU could not copy disk {attachment.disk.name}: {failure}")

    def _open(self) -> None:
        for number, each in enumerate(self._seen.attachments):
            file = self._files.enter_context(FileReader(self._site.file(f"push{number}")))
            self._readers[each.disk.name] = PushReader(file, self._protected[each.disk.name], self._site.block_size)

    def recorded(self) -> dict[str, dict[str, Blocks]]:
        return self._site.bitmaps.recorded(self._seen, self._reads)

    def reader(self, disk: str) -> PushReader:
        return of_disk(self._readers, disk)

    def protected(self, disk: str) -> Blocks | None:
        return self._protected[disk].copy()

    def keep(self, disk: str, wanted: Blocks) -> None:
        """Nothing to do: the guest pays for nothing any longer."""

    def uri(self, disk: str) -> str:
        """The copy, not QEMU's node: a client that leaves a node of an iothread ends this QEMU."""
        number = [each.disk.name for each in self._seen.attachments].index(disk)
        file, socket = self._site.file(f"push{number}"), self._site.file(f"push{number}-nbd")
        server = self._files.enter_context(FileServer(file, socket, self._site.node(f"point{number}")))
        return server.export.uri

    def check(self) -> None:
        """The copies are files of ours and done."""

    def release(self) -> float:
        self._withdraw()
        return self._window

    def _withdraw(self) -> None:
        with contextlib.suppress(errors.HeadstartError):
            self._files.close()

    def _end(self, job: str) -> None:
        with contextlib.suppress(errors.Unreachable):
            jobs.end(self._site.qmp, job)

    def _delete(self, node: str) -> None:
        with contextlib.suppress(CommandFailed, errors.Unreachable):
            self._site.qmp.execute("blockdev-del", node_name=node)

    def __enter__(self) -> PushPoint:
        return self

    def __exit__(self, *details: object) -> None:
        self._withdraw()


class PushReader:
    """Reads a copy; what the job was not asked for is not in it, and would look like zeroes."""

    def __init__(self, file: FileReader, protected: Blocks, block_size: int) -> None:
        self._file = file
        self._protected = protected
        self._block_size = block_size

    @property
    def size(self) -> int:
        return self._file.size

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        return self._file.read(map(self._checked, wanted))

    def _checked(self, extent: Extent) -> Extent:
        first, end = extent.start // self._block_size, blocks.count_of(extent.end, self._block_size)
        if not self._protected.contains_range(first, end):
            raise errors.PointLost(f"{extent.length} bytes at {extent.start} are not part of this point in time.")
        return extent


def scratch_files(directory: Path, label: str) -> list[Path]:
    """Everything that dead runs on this VM have left in the scratch directory."""
    ours = re.compile(re.escape(label) + r"\.((scratch|push)\d+(-nbd)?|anchor)")
    return sorted(path for path in directory.iterdir() if ours.fullmatch(path.name))
