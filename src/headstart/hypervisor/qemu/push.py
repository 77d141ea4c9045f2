"""A point in time that QEMU itself copies: one backup job per disk, all started in one transaction.

For VMs with a disk in an iothread, where no node of the guest may be exported (this QEMU aborts).
The jobs copy whole disks into raw files that were allocated beforehand: a full target would make the
guest's writes fail, so it must not be able to get full. Copying only what is wanted (``sync=bitmap``)
is not safe there: the job sets up its bitmap after the disk is let go, and a guest's write that comes
first makes this QEMU abort (``block_copy_task_create: !reqlist_find_conflict``, seen after about 50
points under constant writes) or takes the new content for the old.

::

    transaction   [backup x N] first: from here every disk is drained until the transaction ends
                  [starts, ends] then: exactly what was written before the point is in ``ends``
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headstart import blocks, errors
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.contract import Action, PointRequest, Protects
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu import freeze, inventory, jobs, space
from headstart.hypervisor.qemu.inventory import Attachment, Look
from headstart.hypervisor.qemu.site import Site
from headstart.reading import Piece
from headstart.wire.files import FileReader
from headstart.wire.fileserver import FileServer
from headstart.wire.qmp import CommandFailed


class PushPoint:
    """``headstart.hypervisor.contract.PointInTime`` by backup jobs; protects what was wanted."""

    protects = Protects.WANTED

    def __init__(self, site: Site, seen: Look, request: PointRequest) -> None:
        self._site = site
        self._seen = seen
        self._inside = contextlib.ExitStack()
        self._files = contextlib.ExitStack()
        self._protected: dict[str, Blocks] = {}
        self._readers: dict[str, PushReader] = {}
        self.pause_seconds = 0.0
        self.notes: list[str] = []
        space.require_local(site.scratch)
        try:
            for number, each in enumerate(seen.attachments):
                self._target(number, each)
            with (
                freeze.agent(site, request.freeze, self.notes) as qga,
                Guard(site.qmp.fileno(), qga.fileno() if qga else None, site.stopped) as guard,
                freeze.frozen(guard, qga, self.notes) as outcome,
            ):
                self._start(request)
            self.consistency = outcome.consistency
            self.freeze_seconds = outcome.seconds
            self._began = outcome.began
            self._learn(request)
            self._finish()
        except BaseException:
            self._withdraw()
            raise

    def _target(self, number: int, attachment: Attachment) -> None:
        """A raw file with room for the copy."""
        path, disk = self._site.file(f"push{number}"), attachment.disk
        self._files.callback(path.unlink, missing_ok=True)
        space.require(self._site.scratch, disk.size, f"The copy of disk {disk.name}")
        space.create(path, disk.size)
        space.allocate(path, [Extent(0, disk.size)])
        node = self._site.node(f"push{number}")
        try:
            self._site.qmp.execute("blockdev-add", driver="file", node_name=node, filename=str(path))
        except CommandFailed as error:
            raise errors.Unreachable(
                f"QEMU cannot open the scratch file {path}: {error.text}. Choose another --scratch."
            ) from error
        self._inside.callback(self._delete, node)

    def _start(self, request: PointRequest) -> None:
        space.flush([inventory.active_image(each) for each in self._seen.attachments])
        actions = [self._job(number, each) for number, each in enumerate(self._seen.attachments)]
        # Not before the jobs: only a job's action drains its disk until the transaction is over.
        tracking: tuple[Action, ...] = (*request.starts, *request.ends)
        actions += [self._site.bitmaps.action(self._seen, each) for each in tracking]
        for number in range(len(self._seen.attachments)):
            self._inside.callback(self._end, self._site.node(f"job{number}"))
        self._site.qmp.execute("transaction", actions=actions, properties={"completion-mode": "individual"})

    def _job(self, number: int, attachment: Attachment) -> dict[str, Any]:
        return {
            "type": "blockdev-backup",
            "data": {
                "job-id": self._site.node(f"job{number}"),
                "device": attachment.root,
                "target": self._site.node(f"push{number}"),
                "sync": "full",
                "auto-dismiss": False,
            },
        }

    def _learn(self, request: PointRequest) -> None:
        """What can be read: the wanted blocks and those written until the point."""
        ended = {each.disk.name: [s.name for s in request.ends if s.disk == each.disk.name]
                 for each in self._seen.attachments}  # fmt: skip
        written = self._site.bitmaps.changed(self._seen, ended)
        for disk, changed in written.items():
            self._protected[disk] = changed | request.wanted.get(disk, Blocks())

    def _finish(self) -> None:
        """Wait for the jobs; with the last one the guest is rid of us, and the window ends."""
        for number, each in enumerate(self._seen.attachments):
            name = self._site.node(f"job{number}")
            failure = jobs.wait(self._site.qmp, name)
            if failure:
                raise errors.PointLost(f"QEMU could not copy disk {each.disk.name}: {failure}")
        self._window = time.monotonic() - self._began
        self._inside.close()
        for number, each in enumerate(self._seen.attachments):
            file = self._files.enter_context(FileReader(self._site.file(f"push{number}")))
            self._readers[each.disk.name] = PushReader(file, self._protected[each.disk.name], self._site.block_size)

    def reader(self, disk: str) -> PushReader:
        return self._readers[disk]

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
        for stack in (self._inside, self._files):
            with contextlib.suppress(errors.HeadstartError):
                stack.close()

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
    """Everything that points in time of this VM have left in the scratch directory."""
    ours = re.compile(re.escape(label) + r"\.(scratch|push)\d+(-nbd)?")
    return sorted(path for path in directory.iterdir() if ours.fullmatch(path.name))
