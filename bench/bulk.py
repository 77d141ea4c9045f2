"""A repository of any size without its content: index objects as a writer makes them, and packs of the right length."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Iterator
from pathlib import Path

from headstart import repository, units
from headstart.repository import layout, listing, pack, seal
from headstart.repository.layout import ChunkClass
from headstart.repository.packtable import PackEntries
from headstart.store.local import LocalStore

PASSWORD = b"correct horse"
#: Of blocks of 64 KiB that compress to a half.
PACK_CHUNKS = 512
FRAME_CHUNKS = 4
#: As a writer does.
OBJECT_CHUNKS = 1 << 17


def make(folder: Path, chunks: int) -> None:
    """``chunks``: a multiple of ``PACK_CHUNKS``. Takes 40 bytes of disk for each."""
    store = LocalStore(folder)
    with repository.create(store, PASSWORD) as repo:
        (folder / "packs").mkdir()
        source = random.Random(chunks)
        for start in range(0, chunks, OBJECT_CHUNKS):
            packs = list(_packs(source, min(OBJECT_CHUNKS, chunks - start) // PACK_CHUNKS))
            for each in packs:
                with (folder / pack.pack_key(each.pack_id)).open("xb") as file:
                    file.truncate(each.size)
            name = layout.INDEXES + os.urandom(layout.OBJECT_ID_LENGTH).hex()
            store.create(name, seal.seal_object(repo.secrets, layout.Kind.INDEX, name, listing.encode(packs)))


def _packs(source: random.Random, count: int) -> Iterator[PackEntries]:
    frames = PACK_CHUNKS // FRAME_CHUNKS
    half = FRAME_CHUNKS * units.BLOCK_SIZE // 2
    for _ in range(count):
        yield PackEntries(
            source.randbytes(layout.OBJECT_ID_LENGTH),
            ChunkClass.CONTENT,
            source.randbytes(PACK_CHUNKS * layout.CHUNK_ID_LENGTH),
            array("I", [units.BLOCK_SIZE] * PACK_CHUNKS),
            bytes([FRAME_CHUNKS] * frames),
            array("I", [source.randrange(half - 1000, half) for _ in range(frames)]),
            bytes([layout.COMPRESSED] * frames),
        )
