"""A repository with every class of objects, several of each, as some months of use leave one; in memory."""

from __future__ import annotations

import dataclasses
import mmap
import random
from collections.abc import Iterable, Mapping
from unittest import mock

from headstart import errors, repository
from headstart.blocks import Blocks
from headstart.repository import (
    config,
    draft,
    keys,
    layout,
    link,
    listing,
    loss,
    manifest,
    pack,
    seal,
    snapshot,
    tree,
)
from headstart.repository.census import Remembered
from headstart.repository.config import Config
from headstart.repository.loss import Loss
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.store.contract import Store
from headstart.store.memory import MemoryStore
from tests.kit.stores import PASSWORD, QUICK
from tests.repository import samples
from tests.repository.samples import Image, block, noise

SECOND_PASSWORD = b"battery staple"
BLOCK = 4096
#: Blocks of a disk.
COUNT = 61
DRAFTS = ("d" * 32, "e" * 32)
REVOKED = ("a" * 32, "b" * 32)


def image(seed: int) -> Image:
    """With a block that every disk has, and one that ends with the disk."""
    contents = {number: block(seed + number, BLOCK) for number in range(0, COUNT - 1, 3)}
    contents |= {5: noise(5, BLOCK), COUNT - 1: noise(seed, 512)}
    return Image((COUNT - 1) * BLOCK + 512, contents)


def new_store(block_size: int = BLOCK) -> MemoryStore:
    """A repository with two passwords and high trees."""
    store, secrets = MemoryStore(), keys.Secrets.generate()
    for password in (PASSWORD, SECOND_PASSWORD):
        store.create(*keys.wrap(secrets, password, QUICK))
    config.put(store, Config(secrets.repository_id, block_size, tree_leaf=4, tree_fanout=2), secrets)
    return store


def opened(store: Store) -> Repository:
    """By whichever password still opens it."""
    try:
        return repository.open(store, lambda: PASSWORD, to_mend=True)
    except errors.WrongPassword:
        return repository.open(store, lambda: SECOND_PASSWORD, to_mend=True)


def build() -> tuple[MemoryStore, list[Manifest], Remembered]:
    """The same names and bytes in each run."""
    with mock.patch("os.urandom", random.Random(1).randbytes):
        return _build()


def _build() -> tuple[MemoryStore, list[Manifest], Remembered]:
    store = new_store()
    with opened(store) as repo:
        made = [
            samples.add_snapshot(repo, {"vda": image(1000), "vdb": image(2000)}, created=1.0),
            samples.add_snapshot(repo, {"vda": image(3000)}, vm="db", created=2.0),
        ]
        for each in REVOKED:
            snapshot.revoke(repo, each)
        for number in range(2):
            repo.holdings.lose(Loss(f"{number:032}", float(number), objects=(f"keys/{number:032}",)))
        made.append(samples.add_snapshot(repo, {"vda": image(1000), "vdb": image(4000)}, created=3.0))
        for each in DRAFTS:
            begun = draft.begin(repo, "web", "host", 4.0, draft_id=each)
            for number in (1, 2):
                with repo.writer(samples.ignore) as writer:
                    samples.put(repo, writer, {0: noise(9000 + number, BLOCK)})
                draft.record(repo, begun, number, 4.0 + number, (), {"vda": [(number, bytes(32))]})
    remembered = Remembered(tuple(each.id for each in made), dict.fromkeys(DRAFTS, 3))
    return store, made, remembered


def copy_of(objects: Mapping[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for name, data in objects.items():
        store.create(name, data)
    return store


def unreadable(repo: Repository, manifest: Manifest) -> dict[str, Blocks]:
    """By disk, the blocks that a restore does not get; found block by block, and not as ``verify`` does it."""
    return {
        disk.name: Blocks(number for number in range(COUNT) if not _reads(repo, disk, number))
        for disk in manifest.disks
    }


def _reads(repo: Repository, disk: manifest.Disk, number: int) -> bool:
    try:
        [(_, chunk_id)] = tree.lookup(repo, disk.root, disk.size, [number])
        return chunk_id is None or bool(repo.read_chunk(chunk_id))
    except errors.Damaged:
        return False


def older(repo: Repository, name: str, source: random.Random) -> bytes:
    """An object of this name that was written with the repository's keys, but at another time, or by a copy of it."""
    kind = name.partition("/")[0]
    if name in (layout.CONFIG_KEY, layout.CONFIG_TWIN):
        return Config(repo.secrets.repository_id, 2 * BLOCK, tree_leaf=4, tree_fanout=2).encode(repo.secrets)
    if kind == "keys":
        return keys.wrap(repo.secrets, PASSWORD, QUICK)[1]
    if kind == "packs":
        return _older_pack(repo, name, source)
    if kind == "drafts":
        _, draft_id, number = name.split("/")
        return repo.store.read(draft.key_of(draft_id, (int(number) + source.choice((1, 2))) % 3))
    if kind == "losses":
        return seal.seal_object(repo.secrets, layout.Kind.LOSS, name, loss.encode(Loss("0" * 32, 0.5)))
    if kind == "indexes":
        return seal.seal_object(repo.secrets, layout.Kind.INDEX, name, _older_index(repo, name))
    what = layout.Kind.SNAPSHOT if kind == "snapshots" else layout.Kind.TWIN
    return seal.seal_object(repo.secrets, what, name, _older_manifest(repo, name))


def _older_manifest(repo: Repository, name: str) -> bytes:
    snapshot_id = name.rpartition("/")[2]
    if snapshot_id in REVOKED:  # where it was not given up
        whole = next(iter(snapshot.all_manifests(repo).manifests))
        return manifest.encode(dataclasses.replace(whole, id=snapshot_id))
    return manifest.encode(dataclasses.replace(snapshot.load(repo, snapshot_id), created=0.5))


def _older_index(repo: Repository, name: str) -> bytes:
    data = seal.open_object(repo.secrets, layout.Kind.INDEX, name, repo.store.read(name))
    listed = listing.decode(name, data)
    return listing.encode(listed.packs[1:], listed.links, [link.Link("indexes/" + "0" * 32, bytes(32))])


def _older_pack(repo: Repository, name: str, source: random.Random) -> bytes:
    pack_id = pack.id_of(name)
    assert pack_id is not None
    return pack_of(repo, pack_id, repo.index.entries(pack_id).chunk_class, [source.randbytes(BLOCK)])


def pack_of(repo: Repository, pack_id: bytes, chunk_class: layout.ChunkClass, contents: Iterable[bytes]) -> bytes:
    """A whole pack of this id."""
    with mock.patch("headstart.repository.pack.os.urandom", return_value=pack_id):
        made = pack.OpenPack(repo.secrets, chunk_class, mmap.mmap(-1, layout.PACK_SIZE))
    for content in contents:
        length = len(content)
        made.reserve([repo.chunk_id(content, chunk_class)], [length], length + layout.TAG_LENGTH, 0).fill(content)
    return bytes(made.finish()[1])
