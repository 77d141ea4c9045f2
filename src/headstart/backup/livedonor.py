"""A running VM as a source of lost content: its disks as they are now, read from outside."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from headstart import blocks, reading
from headstart.backup.context import Context
from headstart.backup.meeting import Asleep, meet
from headstart.blocks import Blocks
from headstart.hypervisor.contract import LiveReader
from headstart.repository.donor import Image


class LiveVm:
    """``headstart.repository.donor.Donor``. The VM is met for each disk of which something is lost."""

    def __init__(self, context: Context, vm: str) -> None:
        self._context = context
        self._vm = vm
        self.name = f"VM {vm}"

    def images(self, vm: str, disk: str) -> Generator[Image, None, None]:
        """Nothing for a disk that the VM has not, or that cannot be read from outside while it runs."""
        if vm != self._vm:
            return
        journal = self._context.journal
        with (
            journal.lock(vm),
            meet(self._context, journal.vm(vm), Asleep.LOOK) as contact,
            contact.machine.live([disk]) as readers,
        ):
            if disk in readers:
                yield _Running(readers[disk])


class _Running:
    def __init__(self, reader: LiveReader) -> None:
        self._reader = reader

    def blocks(self, wanted: Blocks, block_size: int) -> Iterator[tuple[int, bytes | None]]:
        size = self._reader.size
        inside = wanted & blocks.everything(size, block_size)
        pieces = self._reader.read(blocks.to_extents(inside, block_size, size))
        for block, data in reading.by_block(pieces, block_size):
            yield block, None if data is None else bytes(data)
