"""Content for repositories in tests."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.repository import attachment, draft, snapshot, tree
from headstart.repository.config import Config
from headstart.repository.draft import Draft
from headstart.repository.keys import Secrets
from headstart.repository.layout import ChunkClass
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository
from headstart.repository.shelf import Shelf
from headstart.repository.writer import Writer
from headstart.store.memory import MemoryStore

BLOCK = 65536


def block(seed: int, length: int = BLOCK) -> bytes:
    """Content that compresses somewhat, like a disk's, and differs by seed."""
    source = random.Random(seed)
    return (source.randbytes(length // 4) + source.randbytes(16) * (length // 16))[:length]


def noise(seed: int, length: int = BLOCK) -> bytes:
    return random.Random(seed).randbytes(length)


def ignore(tokens: list[int]) -> None:
    """For writers whose durability does not matter."""


def silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def ids_of(repo: Repository, *numbers: int) -> list[bytes]:
    return [repo.chunk_id(noise(number)) for number in numbers]


def put(repo: Repository, writer: Writer[int], contents: Mapping[int, bytes]) -> dict[int, bytes]:
    """The chunk ids by block; the block is the token."""
    ids = {number: repo.chunk_id(data) for number, data in contents.items()}
    for number, data in contents.items():
        writer.put(ChunkClass.CONTENT, ids[number], data, number)
    return ids


@dataclass(frozen=True, slots=True)
class Image:
    """What a disk must be after a restore: its size and its blocks that are not zero."""

    size: int
    contents: dict[int, bytes]


def add_snapshot(repo: Repository, images: Mapping[str, Image], vm: str = "web", created: float = 1000.5) -> Manifest:
    """A published snapshot of whole disks, with an attachment."""
    disks = []
    with repo.writer(ignore) as writer:
        for name, image in images.items():
            ids = put(repo, writer, image.contents)
            root = tree.update(repo, writer, None, 0, image.size, sorted(ids.items()))
            disks.append(Disk(name, image.size, "qcow2", root, repo.block_size, "serial", "virtio-blk", {"qdev": "d0"}))
        attached = attachment.store_attachment(repo, writer, "definition", "qemu-command-line", b"-m 256")
    manifest = Manifest(
        snapshot.new_id(), vm, created, None, "crash", "host", "installation", tuple(disks), (attached,), {"k": [1]}
    )
    return snapshot.publish(repo, manifest)


def restored(repo: Repository, disk: Disk) -> Image:
    """The way of a restore: walk, read, pad."""
    where: dict[bytes, list[int]] = {}
    for number, chunk_id in tree.walk(repo, disk.root, disk.size):
        where.setdefault(chunk_id, []).append(number)
    contents = {number: bytes(data) for chunk_id, data in repo.read_chunks(where) for number in where[chunk_id]}
    return Image(disk.size, contents)


def small_tree_repository(leaf: int = 4, fanout: int = 2) -> Repository:
    """Trees that are high with few blocks."""
    secrets = Secrets.generate()
    settings = Config(secrets.repository_id, BLOCK, leaf, fanout)
    return Repository(MemoryStore(), secrets, settings, encrypted=True)


def packs_of(repo: Repository) -> list[str]:
    return sorted(name for name, _ in repo.store.list("packs/"))


def rewrite(repo: Repository, key: str, data: bytes) -> None:
    """What no client may do."""
    repo.store.delete(key)
    repo.store.create(key, data)


def flipped(data: bytes, places: Iterable[int]) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place] ^= 0x40
    return bytes(changed)


def hide(cache: Path, repo: Repository, *chunk_ids: bytes) -> None:
    """A few bytes of the cache rot: it does not find these any longer."""
    for each in Shelf(cache, repo.secrets).segments():
        data = bytearray(each.path.read_bytes())
        start, length, _ = each._places["slots"]
        slots = memoryview(data)[start : start + length].cast("I")
        for position in filter(lambda place: place >= 0, map(each.find, chunk_ids)):
            slots[list(slots).index(position - each.base.chunks + 1)] = 0
        with each.path.open("r+b") as file:
            file.write(data)


@dataclass(frozen=True)
class Found:
    """A draft, when its first and its newest record were written, and how many there are."""

    draft: Draft
    created: float
    heartbeat: float
    records: int


def all_drafts(repo: Repository) -> tuple[list[Found], list[errors.Damaged]]:
    """And an error for each that cannot be read."""
    found: list[Found] = []
    damaged: list[errors.Damaged] = []
    for draft_id, names in draft.names(repo).items():
        try:
            first, newest = draft.read(repo, draft.key_of(draft_id, 0)), draft.read(repo, names[-1])
        except errors.Damaged as error:
            damaged.append(error)
        else:
            made = Draft(draft_id, first.vm, first.host)
            found.append(Found(made, first.time, newest.time, newest.number + 1))
    return found, damaged


def known(repo: Repository) -> int:
    """How many copies of chunks are."""
    with repo.holdings.loaded() as it:
        return len(it.table)
