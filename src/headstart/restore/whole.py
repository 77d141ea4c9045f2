"""Whether a file is just what restoring a disk into it would have made: an interrupted restore had come to its end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart import blocks, errors, extents, units
from headstart.batches import batched
from headstart.blocks import Blocks
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE, Piece
from headstart.repository import Repository
from headstart.repository.manifest import Disk
from headstart.restore import imagelock, partfile, present, qcow2
from headstart.restore.order import Placed
from headstart.restore.present import Before, Chunk
from headstart.wire.imageserver import Chain, ImageServer, Layer
from headstart.wire.nbd import Client

#: Blocks that are asked for in one go.
_BATCH = 4096
_PIECE = 2 * units.MIB


def may_be(placed: Placed) -> bool:
    """By a short look."""
    try:
        found = placed.place.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and (placed.format != "raw" or found.st_size == placed.disk.size)


def is_whole(repo: Repository, placed: Placed, allocated: Blocks, chunks: Iterable[Chunk]) -> bool:
    """Every byte is read, unless one is found early that differs. False also while QEMU has the file."""
    with _opened(placed.place) as file:
        if file is None or not imagelock.hold(file):
            return False
        disk = placed.disk
        data = list(blocks.to_extents(allocated, disk.block_size, disk.size))
        if placed.format == "raw":
            return _holds(file, disk.size, [], data) and present.has_all(repo, disk, chunks, Before(file))
        if placed.format == "qcow2":
            return _is_qcow2(repo, disk, file, allocated, data, chunks)
    if placed.place.suffix == partfile.SUFFIX:
        return False  # what is in it is in another file
    # Only now that our lock is gone.
    return _holds_by_qemu(repo, placed, data, chunks)


def _is_qcow2(
    repo: Repository, disk: Disk, file: int, allocated: Blocks, data: list[Extent], chunks: Iterable[Chunk]
) -> bool:
    layout = qcow2.layout_of(disk.size, allocated, disk.block_size)
    placed = [Extent(layout.offset(each.start), each.length) for each in data]
    size = layout.clusters * qcow2.CLUSTER
    return _holds(file, size, layout.metadata(), placed) and present.has_all(
        repo, disk, chunks, Before(file, layout.offset)
    )


def _holds_by_qemu(repo: Repository, placed: Placed, data: list[Extent], chunks: Iterable[Chunk]) -> bool:
    disk = placed.disk
    if disk.block_size > PIECE_SIZE:
        return False  # pieces are no whole blocks
    chain = Chain(disk.name, [Layer(str(placed.place), placed.format)], [])
    try:
        with (
            tempfile.TemporaryDirectory(prefix="headstart-") as folder,
            ImageServer(Path(folder, "nbd"), [chain]) as server,
            Client(server.exports[disk.name]) as client,
        ):
            return (
                disk.size <= client.size < disk.size + qcow2.SECTOR
                and _same(repo, disk, client, chunks)
                and _zero_besides(client, data)
            )
    except errors.Unreachable:
        return False


def _same(repo: Repository, disk: Disk, client: Client, chunks: Iterable[Chunk]) -> bool:
    for batch in batched(chunks, _BATCH):
        wanted = dict(batch)
        asked = blocks.to_extents(Blocks(wanted), disk.block_size, disk.size)
        for piece in client.read(asked):
            data, first = _taken(piece), piece.extent.start // disk.block_size
            for number, start in enumerate(range(0, len(data), disk.block_size)):
                if repo.chunk_id(data[start : start + disk.block_size]) != wanted[first + number]:
                    return False
    return True


def _zero_besides(client: Client, data: list[Extent]) -> bool:
    rest = extents.gaps(data, client.size)
    return all(_all_zero(piece) for piece in client.read(rest))


def _all_zero(piece: Piece) -> bool:
    data = _taken(piece)
    return data.count(0) == len(data)


def _taken(piece: Piece) -> bytes:
    data = bytes(piece.extent.length) if piece.data is None else bytes(piece.data)
    piece.release()
    return data


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[int | None]:
    try:
        # For writing, as the lock asks for it.
        file = os.open(place, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _holds(file: int, size: int, written: Iterable[tuple[int, bytes]], data: list[Extent]) -> bool:
    """Whether a file of ``size`` bytes has what was ``written`` and, but for ``data``, zeroes."""
    if os.fstat(file).st_size != size:
        return False
    covered = list(data)
    for offset, content in written:
        if not content:
            continue
        if os.pread(file, len(content), offset) != content:
            return False
        covered.append(Extent(offset, len(content)))
    return all(_is_zero(file, gap) for gap in extents.gaps(covered, size))


def _is_zero(file: int, gap: Extent) -> bool:
    position = gap.start
    while (position := _data_from(file, position)) < gap.end:
        piece = os.pread(file, min(_PIECE, gap.end - position), position)
        if not piece or piece.count(0) != len(piece):
            return False
        position += len(piece)
    return True


def _data_from(file: int, position: int) -> int:
    """The next byte that is not in a hole; beyond all files if there is none."""
    try:
        return os.lseek(file, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return 1 << 63
