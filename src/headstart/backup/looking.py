"""Looking what lies on the disks of a VM, to leave out what is not wanted: at the point in time, which decides, and on
the running or the stored disks, which are good for guesses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from headstart import blocks, errors
from headstart.backup.contact import Contact
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.hypervisor.contract import PointInTime
from headstart.hypervisor.inventory import Disk
from headstart.reading import Reader
from headstart.repository import tree
from headstart.repository.manifest import Disk as StoredDisk
from headstart.repository.repo import Repository
from headstart.volumes import selection
from headstart.volumes.looker import Looker, Read, Unprotected
from headstart.volumes.selection import Seen

#: The guest decides how long it takes to understand its disks: in the window at most so long.
WINDOW_SECONDS = 5.0


def at_point(point: PointInTime, block_size: int) -> Read:
    """As of the point in time, and nothing else."""

    def read(disk: str, start: int, length: int) -> bytes:
        extent, protected = Extent(start, length), point.protected(disk)
        if protected is not None and not blocks.of_extents([extent], block_size) <= protected:
            raise Unprotected(f"bytes {start} to {extent.end - 1} of disk {disk} are not in the point in time")
        return _bytes(point.reader(disk), extent)

    return read


def of_readers(readers: Mapping[str, Reader]) -> Read:
    return lambda disk, start, length: _bytes(readers[disk], Extent(start, length))


def _bytes(reader: Reader, extent: Extent) -> bytes:
    found = bytearray(extent.length)
    for piece in reader.read([extent]):
        if piece.data is not None:
            offset = piece.extent.start - extent.start
            found[offset : offset + piece.extent.length] = piece.data
        piece.release()
    return bytes(found)


#: The chunks of some blocks of a disk, where something newer than its snapshot is known.
Newer = Callable[[str, Iterable[int]], Iterable[tuple[int, bytes | None]]]


def stored(repo: Repository, disks: Mapping[str, StoredDisk], newer: Newer = lambda _disk, _blocks: ()) -> Read:
    """As the repository has the disks; one that it does not have is zeroes."""

    def read(disk: str, start: int, length: int) -> bytes:
        size, first = repo.block_size, start // repo.block_size
        count = blocks.count_of(start + length, size) - first
        known = disks.get(disk)
        found: dict[int, bytes | None] = {}
        if known is not None:
            found |= dict(tree.walk(repo, known.root, known.size, first, count))
        found |= dict(newer(disk, range(first, first + count)))
        content = bytearray(count * size)
        for chunk, data in repo.scan_chunks({chunk for chunk in found.values() if chunk is not None}):
            if isinstance(data, errors.Damaged):
                raise data
            for block in (block for block, its in found.items() if its == chunk):
                begin = (block - first) * size
                content[begin : begin + len(data)] = data
        return bytes(content[start - first * size :][:length])

    return read


def select(contact: Contact, seen: Seen, block_size: int) -> selection.Selected:
    """What the patterns of the VM and of its policy leave out."""
    sizes = {disk.name: disk.size for disk in contact.inventory.disks}
    return selection.select(contact.rules, seen, sizes, block_size)


def spared(contact: Contact) -> Mapping[str, Blocks]:
    """By disk, what will probably be left out, and is not worth copying ahead: as the running disks say, or else the
    last backup. Only a guess: what the point in time says counts."""
    if not contact.rules:
        return {}
    if contact.spared is None:
        contact.spared = {name: tracked.excluded for name, tracked in contact.tracked().items()}
        seen = Seen() if contact.machine.off else now(contact)
        if seen.volumes:
            selected = select(contact, seen, contact.context.repository.block_size)
            contact.spared |= {disk.name: selected.blocks(disk.name) for disk in _readable(contact)}
    return contact.spared


def now(contact: Contact) -> Seen:
    """What lies on the running disks, as far as they can be read from outside. They change while they are looked at."""
    sizes = {disk.name: disk.size for disk in _readable(contact)}
    try:
        with contact.context.looker(sizes) as looker, contact.machine.live(list(sizes)) as readers:
            if sizes.keys() == readers.keys():
                return looker.look(of_readers(readers))
    except errors.HeadstartError as error:
        return Seen(problem=str(error))  # who reads next meets it as well
    return Seen(problem="a disk cannot be read just now")


def _readable(contact: Contact) -> list[Disk]:
    return [disk for disk in contact.inventory.disks if not disk.unreadable]


@contextlib.contextmanager
def prepared(contact: Contact) -> Iterator[Looker | None]:
    """Ready for a look at the point in time; None where nothing may be left out."""
    if not contact.rules:
        yield None
        return
    sizes = {disk.name: disk.size for disk in contact.inventory.disks}
    with contact.context.looker(sizes, WINDOW_SECONDS) as looker:
        looker.start()
        yield looker


def foreseen(contact: Contact, looker: Looker) -> Mapping[str, Blocks]:
    """The blocks that a look will probably read, for a point in time that has only what is asked for: those that a look
    at the draft and the last snapshot reads."""
    if not any(disk.unreadable for disk in contact.inventory.disks):
        return {}
    context, tracked = contact.context, contact.tracked()
    last = {name: found for name, each in tracked.items() if (found := contact.bases.last_whole(each)) is not None}

    def newer(disk: str, wanted: Iterable[int]) -> Iterable[tuple[int, bytes | None]]:
        return context.journal.chunks_of(contact.name, disk, wanted)

    with contextlib.suppress(errors.HeadstartError):
        looker.look(stored(context.repository, last, newer))
    return looker.footprint(context.repository.block_size)
