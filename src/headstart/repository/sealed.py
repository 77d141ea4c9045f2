"""Frames as they lie there, sealed: whether they are what was written, by the digests in their pack's own index.

For who has the structure secret alone. Nothing is learned of what is inside; but that cannot be changed without
changing what is sealed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from blake3 import blake3

from headstart import errors
from headstart.repository import layout, pack
from headstart.repository.keys import Secrets
from headstart.repository.packtable import PackEntries
from headstart.repository.table import Frame, Location
from headstart.store.contract import Missing, Store

Wanted = tuple[bytes, Location]


def scan(secrets: Secrets, store: Store, size: int, wanted: Sequence[Wanted]) -> Iterator[errors.Damaged | None]:
    """For each of the wanted chunks of one pack of ``size`` bytes, in their order: None where it is whole."""
    name = pack.pack_key(wanted[0][1].pack_id)
    try:
        entries, digests = pack.read_index(secrets, store, wanted[0][1].pack_id, size)
        frames = list(dict.fromkeys(location.frame for _, location in wanted))
        contents = dict(zip(frames, _contents(store, name, frames), strict=True))
    except errors.Damaged as error:
        unknown = "" if isinstance(error, Missing) else " Without it, or the content key, its chunks cannot be checked."
        damaged = errors.Damaged(f"{error}{unknown}", object=name)
        yield from (damaged for _ in wanted)
        return
    told = _told(entries, digests)
    whole = {
        frame for frame, data in contents.items() if data is not None and _digest(told, frame) == blake3(data).digest()
    }
    for chunk_id, location in wanted:
        listed = location.frame in whole and chunk_id in told[location.frame.offset][1]
        yield None if listed else _damaged(name, chunk_id, location.frame)


def check(secrets: Secrets, name: str, data: bytes | bytearray) -> None:
    """Whether a pack that is to be stored under ``name`` is whole: each frame, by the digests in its own index. Raises
    ``Damaged``."""
    pack_id = pack.id_of(name)
    if pack_id is None:
        raise errors.Damaged(f"No pack can be called {name}.", object=name)
    entries, digests = pack.read_index(secrets, _One(name, data), pack_id, len(data))
    view = memoryview(data)
    for offset, length, told in _frames(entries, digests):
        if blake3(view[offset : offset + length]).digest() != told:
            raise errors.Damaged(f"{name} is damaged: what is sealed at {offset} was changed.", object=name)


class _One:
    """A pack in memory, for who reads ranges of it."""

    def __init__(self, name: str, data: bytes | bytearray) -> None:
        self._name = name
        self._data = data

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        assert key == self._name
        return bytes(self._data[offset : offset + length])


def _told(entries: PackEntries, digests: bytes) -> dict[int, tuple[bytes, frozenset[bytes]]]:
    """By the offset of each frame, its digest and the chunks in it."""
    width = layout.CHUNK_ID_LENGTH
    ids = (entries.ids[start : start + width] for start in range(0, len(entries.ids), width))
    frames = zip(entries.counts, _frames(entries, digests), strict=True)
    return {offset: (digest, frozenset(itertools.islice(ids, count))) for count, (offset, _, digest) in frames}


def _frames(entries: PackEntries, digests: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Offset, length and digest of each frame of a pack, in their order: they lie one after the other."""
    offset, width = layout.PACK_START, layout.DIGEST_LENGTH
    for number, length in enumerate(entries.sealed_lengths):
        yield offset, length, digests[number * width : (number + 1) * width]
        offset += length


def _digest(told: dict[int, tuple[bytes, frozenset[bytes]]], frame: Frame) -> bytes | None:
    return told[frame.offset][0] if frame.offset in told else None


def _contents(store: Store, name: str, frames: Sequence[Frame]) -> list[memoryview | bytes | None]:
    """All in one request: a pack fits into memory. One by one where the disk gives no more; None: not even that."""
    first, last = frames[0], frames[-1]
    try:
        whole = memoryview(store.read_range(name, first.offset, last.offset + last.sealed_length - first.offset))
    except Missing:
        raise
    except errors.Damaged:
        return [_content(store, name, frame) for frame in frames]
    starts = (frame.offset - first.offset for frame in frames)
    return [whole[start : start + frame.sealed_length] for start, frame in zip(starts, frames, strict=True)]


def _content(store: Store, name: str, frame: Frame) -> bytes | None:
    try:
        return store.read_range(name, frame.offset, frame.sealed_length)
    except errors.Damaged:
        return None


def _damaged(name: str, chunk_id: bytes, frame: Frame) -> errors.Damaged:
    return errors.Damaged(
        f"{name} is damaged: chunk {chunk_id.hex()} at {frame.offset} is not what was sealed.",
        object=name,
        chunk=chunk_id.hex(),
        offset=frame.offset,
        length=frame.sealed_length,
    )
