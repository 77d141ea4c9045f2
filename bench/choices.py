"""docs/choices.md, written by ``make bench-choices``: what the numbers of the repository's format were chosen by.

No VM: a raw copy of the disk of real files, and scattered changes of it that are drawn at random.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import zstandard
from blake3 import blake3

from bench import machine, realdisk
from headstart import repository
from headstart.extents import Extent
from headstart.repository import keys, layout, tree
from headstart.repository.config import Config
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.repository.writer import Writer
from headstart.store.local import LocalStore
from headstart.store.memory import MemoryStore
from headstart.transfer.pipeline import Pipeline, Stored
from headstart.units import GIB, KIB, MIB
from headstart.wire.files import FileReader

PAGE = Path(__file__).parents[1] / "docs" / "choices.md"
SAMPLE_BYTES = 256 * MIB
#: What block sizes and packs are compared on: a part of the disk that is full of files.
PART = Extent(256 * MIB, 512 * MIB)
RUNS = 3

Rows = list[tuple[str, ...]]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix=".choices-", dir=realdisk.image().parent) as made:
        folder = Path(made)
        disk = folder / "disk.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", realdisk.image(), disk], check=True)
        sections = [
            ("Compression", _COMPRESSION, _compression(_sample(disk))),
            ("Hash", _HASH, _hashes(_sample(disk))),
            ("Blocks", _BLOCKS, _blocks(disk, folder)),
            ("Packs", _PACKS, _packs(disk, folder)),
            ("Image trees", _TREES, _trees()),
        ]
    parts = [_HEAD.format(machine="\n".join(f"- {name}: {told}" for name, told in machine.describe().items()))]
    for title, text, (heads, rows) in sections:
        parts.append(f"\n## {title}\n\n{text}\n{_table(heads, rows)}")
    PAGE.write_text("".join(parts))
    print(PAGE.read_text())
    return 0


_HEAD = """\
# What the format's numbers were chosen by

Written by `make bench-choices`. A 4 GiB disk with 2 GiB of a Debian host's programs and libraries; times are processor
time of one thread, medians of three. The row in use is **bold**.

{machine}
"""
_COMPRESSION = """\
Blocks that are stored together are compressed as one frame. Larger frames are smaller and faster to make; a single
block costs the decompression of its whole frame. The tools that cut content into pieces of a mebibyte are the measure
of size, the time of a whole backup is that of speed: half of the processor time goes into compression.
"""
_HASH = "Keyed, of blocks of 64 KiB; SHA-256 as a plain hash.\n"
_BLOCKS = f"""\
{PART.length // MIB} MiB of the disk are stored; then 2,000 writes of 4 KiB at random places, and 20 of 1 MiB. Smaller
blocks store less of scattered changes, and cost more of everything else: ids, index, time. QEMU's bitmaps have 64 KiB
unless told otherwise, so that smaller blocks would be reported as changed together anyway.
"""
_PACKS = """\
The same part of the disk into a local directory. Four packs are in memory at a time. On object storage a pack is a
request; 16 MiB keeps one busy long enough, and takes half of the memory of 32.
"""
_TREES = """\
A disk of 64 GiB, all of it in use, and scattered changes of it: bytes of new nodes for each changed block. Small leaves
are for quiet guests, which change a few hundred blocks an hour all over their disks. `nodes`: how many an audit or a
restore of one block reads; 6 TiB need one more.
"""


def _sample(disk: Path) -> list[bytes]:
    """Pieces of a mebibyte from all over the disk, none of it zeroes alone."""
    source = random.Random(5)
    found: list[bytes] = []
    with disk.open("rb") as file:
        while len(found) * MIB < SAMPLE_BYTES:
            file.seek(source.randrange(realdisk.SIZE // MIB) * MIB)
            piece = file.read(MIB)
            if any(piece):
                found.append(piece)
    return found


def _cut(pieces: Iterable[bytes], size: int) -> list[bytes]:
    zero = bytes(size)
    return [part for piece in pieces for part in _parts(piece, size) if part != zero]


def _parts(piece: bytes, size: int) -> Iterator[bytes]:
    return (piece[start : start + size] for start in range(0, len(piece), size))


def _rate(parts: Sequence[bytes], act: Callable[[bytes], object]) -> float:
    """Bytes a second of processor time."""
    taken = []
    for _ in range(RUNS):
        began = time.thread_time()
        for part in parts:
            act(part)
        taken.append(time.thread_time() - began)
    return sum(map(len, parts)) / statistics.median(taken)


def _compression(pieces: list[bytes]) -> tuple[Sequence[str], Rows]:
    rows: Rows = []
    for size in (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, MIB):
        parts = _cut(pieces, size)
        for level in (-3, -1, 1, 3):
            compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
            frames = [compressor.compress(part) for part in parts]
            share = sum(map(len, frames)) / sum(map(len, parts))
            speed = _rate(parts, compressor.compress)
            back = _rate(frames, decompressor.decompress) / share
            row = f"{size // KIB} KiB", str(level), f"{share:.3f}", f"{speed / 1e6:.0f}", f"{back / 1e6:.0f}"
            used = (size, level) == (layout.FRAME_SIZE, layout.ZSTD_LEVEL)
            rows.append(_bold((*row, f"{size / back * 1e6:.0f}"), used))
    return ("frame", "zstd level", "stored", "MB/s", "MB/s back", "one block, µs"), rows


def _hashes(pieces: list[bytes]) -> tuple[Sequence[str], Rows]:
    parts, key = _cut(pieces, 64 * KIB), bytes(32)
    found: list[tuple[str, Callable[[bytes], object]]] = [
        ("BLAKE3", lambda part: blake3(part, key=key).digest()),
        ("SHA-256", lambda part: hashlib.sha256(part).digest()),
        ("BLAKE2b", lambda part: hashlib.blake2b(part, key=key, digest_size=32).digest()),
    ]
    return ("", "MB/s"), [_bold((name, f"{_rate(parts, act) / 1e6:.0f}"), name == "BLAKE3") for name, act in found]


def _blocks(disk: Path, folder: Path) -> tuple[Sequence[str], Rows]:
    rows: Rows = []
    for size in (16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB):
        store = LocalStore(folder / f"blocks-{size}")
        with repository.create(store, b"bench", block_size=size, cost=keys.Argon2(64, 1, 1)) as repo:
            began = time.process_time()
            root = _backed_up(repo, disk, None, [PART])
            taken = time.process_time() - began
            full, index = _stored(store, ""), _stored(store, layout.INDEXES)
            _scatter(disk)
            _backed_up(repo, disk, root, _changed(size))
            row = f"{size // KIB} KiB", f"{taken:.2f} s", f"{full / MIB:.1f} MiB", f"{index / KIB:.0f} KiB"
            rows.append(_bold((*row, f"{(_stored(store, '') - full) / MIB:.1f} MiB"), size == 64 * KIB))
    return ("block", "processor time", "stored", "of it index", "stored of the changes"), rows


def _backed_up(repo: Repository, disk: Path, before: bytes | None, extents: Iterable[Extent]) -> bytes | None:
    found: list[Stored] = []
    with FileReader(disk) as reader, repo.writer(found.extend) as writer:
        with Pipeline(repo, writer, found.extend) as pipeline:
            pipeline.copy("disk", reader, extents)
            writer.flush()
        changes = sorted((each.block, each.chunk) for each in found)
        return tree.update(repo, writer, before, realdisk.SIZE, realdisk.SIZE, changes)


def _stored(store: LocalStore, prefix: str) -> int:
    return sum(size for _, size in store.list(prefix))


def _writes() -> list[Extent]:
    source = random.Random(7)
    small = [Extent(PART.start + source.randrange(PART.length // 4096) * 4096, 4096) for _ in range(2000)]
    return small + [Extent(PART.start + source.randrange(PART.length // MIB - 1) * MIB, MIB) for _ in range(20)]


def _scatter(disk: Path) -> None:
    """Half of what is written compresses."""
    with disk.open("r+b") as file:
        for number, extent in enumerate(_writes()):
            file.seek(extent.start)
            file.write(random.Random(time.monotonic_ns() + number).randbytes(extent.length // 2) * 2)


def _changed(size: int) -> list[Extent]:
    blocks = {block for each in _writes() for block in range(each.start // size, -(-each.end // size))}
    return [Extent(block * size, size) for block in sorted(blocks)]


def _packs(disk: Path, folder: Path) -> tuple[Sequence[str], Rows]:
    rows: Rows = []
    for size in (4 * MIB, 8 * MIB, 16 * MIB, 32 * MIB, 64 * MIB):
        walls = []
        for number in range(RUNS):
            store = LocalStore(folder / f"packs-{size}-{number}")
            with mock.patch.object(layout, "PACK_SIZE", size), repository.create(store, None) as repo:
                began = time.monotonic()
                _backed_up(repo, disk, None, [PART])
                walls.append(time.monotonic() - began)
            count, stored = len(list(store.list(layout.PACKS))), _stored(store, layout.PACKS)
        row = f"{size // MIB} MiB", f"{statistics.median(walls):.2f} s", f"{count * GIB / stored:.0f}"
        rows.append(_bold((*row, f"{4 * size // MIB} MiB"), size == layout.PACK_SIZE))
    return ("pack", "time", "packs for a GiB stored", "memory"), rows


def _trees() -> tuple[Sequence[str], Rows]:
    rows: Rows = []
    size = 64 * GIB
    count = size // (64 * KIB)
    for leaf, fanout in ((256, 256), (1024, 64), (1024, 256), (1024, 1024), (4096, 256)):
        secrets = keys.Secrets.generate()
        settings = Config(secrets.repository_id, 64 * KIB, leaf, fanout)
        with Repository(MemoryStore(), secrets, settings, encrypted=True) as repo:
            root, whole = _grown(repo, None, size, range(count))
            costs = []
            for changed in (1, 100, 10_000):
                drawn = sorted(random.Random(changed).sample(range(count), changed))
                _, added = _grown(repo, root, size, drawn)
                costs.append(f"{added / changed:,.0f}")
            height = 1
            while leaf * fanout ** (height - 1) < count:
                height += 1
        row = f"{leaf:,}", f"{fanout:,}", f"{whole / MIB:.1f} MiB", *costs, str(height)
        rows.append(_bold(row, (leaf, fanout) == (layout.TREE_LEAF, layout.TREE_FANOUT)))
    heads = "blocks of a leaf", "children", "whole tree", "1 changed", "100 changed", "10,000 changed", "nodes"
    return heads, rows


def _grown(repo: Repository, root: bytes | None, size: int, blocks: Iterable[int]) -> tuple[bytes | None, int]:
    """With other content in these blocks; and the bytes of nodes that this added."""
    source = random.Random(time.monotonic_ns())
    added = 0
    running: Writer[None] = repo.writer(lambda tokens: None)
    with running as writer:
        put = writer.put

        def counted(chunk_class: ChunkClass, chunk_id: bytes, data: bytes, token: None = None) -> int:
            nonlocal added
            found = put(chunk_class, chunk_id, data, token)
            added += found
            return found

        with mock.patch.object(writer, "put", counted):
            changes = ((block, source.randbytes(layout.CHUNK_ID_LENGTH)) for block in blocks)
            return tree.update(repo, writer, root, size if root else 0, size, changes), added


def _bold(cells: tuple[str, ...], used: bool) -> tuple[str, ...]:
    return tuple(f"**{cell}**" for cell in cells) if used else cells


def _table(heads: Sequence[str], rows: Rows) -> str:
    lines = [heads, tuple("---:" for _ in heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
