"""Snapshots of given content, stored without a VM; and block devices to restore to."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headstart.repository import Repository, attachment, layout, snapshot, tree
from headstart.repository.manifest import Disk, Manifest

BLOCK = 1 << 16


def ignore(tokens: list[int]) -> None:
    """Nobody waits for chunks to become durable."""


def content(*blocks: int, tail: int = 0) -> bytes:
    """A disk of whole blocks, each filled from its seed (0: zeroes), and ``tail`` bytes more."""
    return b"".join(_block(seed, BLOCK) for seed in blocks) + _block(99, tail)


def _block(seed: int, length: int) -> bytes:
    return bytes(length) if seed == 0 else (b"%08d" % seed * (length // 8 + 1))[:length]


def store_snapshot(
    repo: Repository,
    disks: Mapping[str, bytes],
    files: Mapping[str, bytes] | None = None,
    vm: str = "vm",
    created: float = 1_700_000_000.0,
) -> Manifest:
    """Publish a snapshot of ``vm`` with these disks, and attachments by kind."""
    with repo.writer(ignore) as writer:
        stored = []
        for name, data in disks.items():
            changes: list[tuple[int, bytes | None]] = []
            for block, start in enumerate(range(0, len(data), repo.block_size)):
                piece = data[start : start + repo.block_size]
                if piece.count(0) != len(piece):
                    chunk_id = repo.chunk_id(piece)
                    writer.put(layout.ChunkClass.CONTENT, chunk_id, piece)
                    changes.append((block, chunk_id))
            root = tree.update(repo, writer, None, 0, len(data), changes)
            stored.append(Disk(name, len(data), "raw", root, repo.block_size))
        attached = [attachment.store_attachment(repo, writer, kind, kind, data) for kind, data in (files or {}).items()]
    published = Manifest(
        id=snapshot.new_id(),
        vm=vm,
        created=created,
        base=None,
        consistency="crash",
        host="host",
        installation="0123abcd",
        disks=tuple(stored),
        attachments=tuple(attached),
    )
    return snapshot.publish(repo, published)


def damage_packs(folder: Path, at: int = 100) -> None:
    """Change a byte of the first chunk of every pack with content in a local repository."""
    for pack in (folder / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        if data[layout.HEADER_LENGTH + layout.OBJECT_ID_LENGTH] == layout.ChunkClass.CONTENT:
            data[at] ^= 1
            pack.write_bytes(data)


@contextlib.contextmanager
def loop_device(backing: Path, size: int, old: bytes = b"old content ") -> Iterator[Path]:
    """A block device full of old content. Skips where there are none: it needs root and /dev/loop-control."""
    repeated = old * (size // len(old) + 1)
    backing.write_bytes(repeated[:size])
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"no loop devices here: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
