"""Parts of a disk written where it is: into the image of a VM that is off, through QEMU's drivers.

What an image is made of in its format, and what bitmaps in it record, stays right: QEMU writes. So the next backup
learns from the same bitmaps what was put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headstart import blocks, errors, plain
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece
from headstart.repository import Repository, tree
from headstart.repository.manifest import Disk
from headstart.store.contract import Data
from headstart.wire.nbd import Client

#: ``progress(done)`` in bytes.
Progress = Callable[[int], None]

#: Blocks whose chunks are read in one go.
_WINDOW = 1 << 14
#: Bytes of one request.
_REQUEST = 2 << 20


def write(repo: Repository, disk: Disk, wanted: Blocks, client: Client, progress: Progress) -> None:
    """Make these blocks what they are in the snapshot, durably. Raises ``Damaged`` with disk and range."""
    done = 0
    for window in batched(tree.lookup(repo, disk.root, disk.size, wanted), _WINDOW):
        zeroes = Blocks(block for block, chunk_id in window if chunk_id is None)
        client.zero(blocks.to_extents(zeroes, disk.block_size, disk.size))
        done += blocks.total_bytes(zeroes, disk.block_size, disk.size)
        places: dict[bytes, list[int]] = {}
        for block, chunk_id in window:
            if chunk_id is not None:
                places.setdefault(chunk_id, []).append(block)
        for batch in batched(_content(repo, disk, places), max(1, _REQUEST // disk.block_size)):
            for start, data in _joined(sorted(batch), disk.block_size):
                client.write(start, data)
                done += len(data)
            progress(done)
        progress(done)
    client.flush()


def _content(repo: Repository, disk: Disk, places: dict[bytes, list[int]]) -> Iterator[tuple[int, bytes]]:
    """Blocks, each of its full length."""
    for chunk_id, found in repo.scan_chunks(places):
        if isinstance(found, errors.Damaged):
            raise _damaged(disk, places[chunk_id][0], found)
        for block in places[chunk_id]:
            length = blocks.length_of(block, disk.block_size, disk.size)
            yield block, bytes(found[:length]).ljust(length, b"\0")


def _joined(batch: list[tuple[int, bytes]], block_size: int) -> Iterator[tuple[int, bytes]]:
    """Neighbouring blocks in one request."""
    first, parts = batch[0][0], [batch[0][1]]
    for block, data in batch[1:]:
        if block != first + len(parts):
            yield first * block_size, b"".join(parts)
            first, parts = block, []
        parts.append(data)
    yield first * block_size, b"".join(parts)


def differing(repo: Repository, disk: Disk, client: Client, progress: Progress) -> Blocks:
    """The blocks that are not what they are in the snapshot, by reading all of the image."""
    if disk.block_size > PIECE_SIZE:
        return blocks.everything(disk.size, disk.block_size)  # pieces are no whole blocks
    found = Blocks()
    count = blocks.count_of(disk.size, disk.block_size)
    for first in range(0, count, _WINDOW):
        expected = dict(tree.walk(repo, disk.root, disk.size, first, _WINDOW))
        start, end = first * disk.block_size, min((first + _WINDOW) * disk.block_size, disk.size)
        for piece in client.read([Extent(start, end - start)]):
            found |= _differing(repo, disk, piece, expected)
        progress(end)
    return found


def _differing(repo: Repository, disk: Disk, piece: Piece, expected: dict[int, bytes]) -> Blocks:
    data: Data | None = piece.data
    try:
        first = piece.extent.start // disk.block_size
        found = Blocks()
        for block in range(first, -(-piece.extent.end // disk.block_size)):
            start = (block - first) * disk.block_size
            there = None if data is None else bytes(data[start : start + disk.block_size])
            if _id(repo, there) != expected.get(block):
                found.add(block)
        return found
    finally:
        piece.release()


def _id(repo: Repository, data: bytes | None) -> bytes | None:
    """None: zeroes."""
    return None if data is None or data.count(0) == len(data) else repo.chunk_id(data)


def _damaged(disk: Disk, block: int, error: errors.Damaged) -> errors.Damaged:
    start = block * disk.block_size
    length = blocks.length_of(block, disk.block_size, disk.size)
    facts = error.facts | {"disk": disk.name, "start": start, "length": length}
    return errors.Damaged(f"Disk {plain.line(disk.name)}, bytes {start} to {start + length - 1}: {error}", **facts)
