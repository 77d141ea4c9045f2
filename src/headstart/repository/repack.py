"""Repacking: what is needed of packs that go is moved into new ones, durable and listed before anything is deleted.

Frames are moved as they are, without the secret of content: one is needed if one of its chunks is. Each is held against
its digest in the pack's own index.
"""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

from headstart import errors, units
from headstart.blocks import Blocks
from headstart.repository import layout, objects, pack
from headstart.repository.pack import OpenPack
from headstart.repository.packtable import PackEntries
from headstart.repository.repo import Repository

#: Bytes of neighbouring frames that are read in one request.
_REQUEST_BYTES = 4 * units.MIB


class _Frame(NamedTuple):
    """Frame ``number`` of a pack: its chunks begin with the ``first`` of the pack."""

    number: int
    first: int
    chunks: int
    offset: int
    length: int


def needed_bytes(entries: PackEntries, span: range, positions: Blocks) -> int:
    """Of the frames of a pack that have one of the chunks at ``positions``; ``span`` are those of the pack."""
    if positions.range_cardinality(span.start, span.stop) == len(span):
        return entries.frames_bytes
    return sum(frame.length for frame in _needed(entries, span, positions))


def _needed(entries: PackEntries, span: range, positions: Blocks) -> Iterator[_Frame]:
    first, offset = 0, layout.PACK_START
    for number, (count, length) in enumerate(zip(entries.counts, entries.sealed_lengths, strict=True)):
        start = span.start + first
        if positions.range_cardinality(start, start + count):
            yield _Frame(number, first, count, offset, length)
        first, offset = first + count, offset + length


@dataclass(slots=True)
class Repacked:
    """``unread``: packs of which something could not be read, by the first error. They must stay."""

    unread: dict[bytes, errors.Damaged] = field(default_factory=dict)
    stored_bytes: int = 0


def repack(repo: Repository, sizes: Mapping[bytes, int], positions: Blocks) -> Repacked:
    """Move what is at ``positions`` out of the packs that ``sizes`` (bytes) has."""
    moving = _Moving(repo)
    found = Repacked()
    for pack_id, size in sorted(sizes.items()):
        span = repo.index.span(pack_id)
        if span and positions.range_cardinality(span.start, span.stop):
            try:
                moving.move(pack_id, size, positions)
            except errors.Damaged as error:
                found.unread[pack_id] = error
    moving.close()
    found.stored_bytes = moving.stored_bytes
    return found


class _Moving:
    """Packs that are being filled, one of each class."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._open: dict[layout.ChunkClass, OpenPack] = {}
        self.stored_bytes = 0

    def move(self, pack_id: bytes, size: int, positions: Blocks) -> None:
        repo = self._repo
        name = pack.pack_key(pack_id)
        entries, digests = pack.read_index(repo.secrets, repo.store, pack_id, size)
        if entries != repo.index.entries(pack_id):
            raise errors.Damaged(f"{name} is damaged: it is not the pack that indexes list.", object=name)
        for frames in _neighbours(_needed(entries, repo.index.span(pack_id), positions)):
            start, end = frames[0].offset, frames[-1].offset + frames[-1].length
            piece = memoryview(repo.store.read_range(name, start, end - start))
            for frame in frames:
                sealed = piece[frame.offset - start : frame.offset - start + frame.length]
                place = frame.number * layout.DIGEST_LENGTH
                if blake3(sealed).digest() != digests[place : place + layout.DIGEST_LENGTH]:
                    raise errors.Damaged(
                        f"{name} is damaged: what is at {frame.offset} is not what was written.", object=name
                    )
                self._add(entries, frame, sealed)

    def _add(self, entries: PackEntries, frame: _Frame, sealed: memoryview) -> None:
        origin = entries.pack_id, frame.number
        if entries.moved:
            moved = entries.moved
            origin = moved.packs[moved.places[frame.number]], moved.numbers[frame.number]
        step, end = layout.CHUNK_ID_LENGTH, frame.first + frame.chunks
        ids = [entries.ids[place * step : (place + 1) * step] for place in range(frame.first, end)]
        lengths = entries.lengths[frame.first : end]
        target = self._target(entries.chunk_class, frame.length, len(ids), origin[0])
        target.reserve(ids, lengths, frame.length, entries.flags[frame.number], origin).take(sealed)

    def _target(self, chunk_class: layout.ChunkClass, length: int, chunks: int, origin: bytes) -> OpenPack:
        found = self._open.get(chunk_class)
        if found is not None and not found.fits(length, chunks, origin):
            self._finish(found)
            found = None
        if found is None:
            buffer = mmap.mmap(-1, layout.PACK_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            found = self._open[chunk_class] = OpenPack(self._repo.secrets, chunk_class, buffer)
        return found

    def _finish(self, full: OpenPack) -> None:
        entries, view = full.finish()
        with view:
            objects.put(self._repo.store, pack.pack_key(full.pack_id), view)
            self.stored_bytes += len(view)
        self._repo.holdings.add(entries)

    def close(self) -> None:
        for each in self._open.values():
            self._finish(each)
        self._open.clear()
        self.stored_bytes += self._repo.holdings.write()


def _neighbours(frames: Iterable[_Frame]) -> Iterator[list[_Frame]]:
    """What is read in one request: without gaps."""
    request: list[_Frame] = []
    for frame, following in itertools.pairwise(itertools.chain(frames, [None])):
        assert frame is not None, "only the last one is none"
        request.append(frame)
        size = frame.offset + frame.length - request[0].offset
        if following is None or following.number != frame.number + 1 or size >= _REQUEST_BYTES:
            yield request
            request = []
