"""The golden repositories: made once by each format's first release, opened by every later one.

``python -m tests.repository.goldens NAME`` makes one anew, for a new format; those that exist are never made again.
"""

from __future__ import annotations

import hashlib
import mmap
import sys
from pathlib import Path

from headstart import repository
from headstart.repository import (
    attachment,
    codec,
    condemned,
    draft,
    keys,
    label,
    layout,
    lease,
    pack,
    snapshot,
    tree,
)
from headstart.repository.layout import ChunkClass
from headstart.repository.lease import Lease
from headstart.repository.manifest import Disk, Manifest
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.store.local import LocalStore
from tests.repository import samples

FOLDER = Path(__file__).parent / "golden"
PASSWORD, SECOND_PASSWORD = b"golden", b"goldener"
#: Of format 1 on: it opens everything but content.
SERVER_PASSWORD = b"silver"
BLOCK = 4096
SIZE = 5000 * BLOCK + 512
FIRST, SECOND, REVOKED, DRAFT = "11" * 16, "22" * 16, "33" * 16, "44" * 16
DEFINITION = b"qemu-system-x86_64 -m 256\n" * 300


def content(number: int, version: int = 0) -> bytes:
    """By SHA-256 alone, so that no change of a library or of our own changes it. Odd blocks compress."""
    length = SIZE % BLOCK if number == SIZE // BLOCK else BLOCK
    pieces = 1 if number % 2 else length // 32
    drawn = b"".join(hashlib.sha256(f"{number} {version} {piece}".encode()).digest() for piece in range(pieces))
    return (drawn * BLOCK)[:length]


#: Blocks of the disk ``vda``: in the first snapshot, and in the second.
ONE = {number: content(number) for number in (0, 1, 2, 3, 1023, 1024, 3000, 5000)}
TWO = ONE | {number: content(number, 1) for number in (1, 2, 4000)}
#: Of format 1 on: blocks of a third snapshot that are stored together, in two frames, and then moved to another pack.
MANY = {number: content(number, 2) for number in range(100, 116)}
THREE = TWO | MANY
THIRD = "55" * 16
MADE = 1_700_000_009.0
LEASE = Lease("66" * 16, "host", "restore", (Root(FIRST, "vda", SIZE, bytes(32)),), (bytes(range(32)),))
CONDEMNED, DOOMED, PACK = "77" * 16, "88" * 16, b"\x99" * 16


def make(name: str) -> None:
    password = None if name.endswith("-plain") else PASSWORD
    with repository.create(LocalStore(FOLDER / name), password, block_size=BLOCK) as repo:
        if password:
            repo.store.create(*keys.wrap(repo.secrets, SECOND_PASSWORD, keys.Argon2(1024, 2, 2), MADE))
            alone = repo.secrets.structure_alone()
            repo.store.create(*keys.wrap(alone, SERVER_PASSWORD, keys.Argon2(512, 1, 1), MADE))
        first = _publish(repo, FIRST, None, ONE, 1_700_000_000.25)
        second = _publish(repo, SECOND, first, TWO, 1_700_003_600.0)
        _publish(repo, THIRD, second, THREE, 1_700_005_000.0)
        snapshot.revoke(repo, REVOKED)
        begun = draft.begin(repo, "web", "host", 1_700_007_200.0, DRAFT)
        _goings_on(repo)
        draft.record(repo, begun, 1, 1_700_007_201.5, ["ab" * 16], {"vda": [(7, bytes(range(32)))], "sda": []})


def _publish(
    repo: Repository, snapshot_id: str, base: Manifest | None, blocks: dict[int, bytes], created: float
) -> Manifest:
    with repo.writer(samples.ignore) as writer:
        ids = samples.put(repo, writer, {number: data for number, data in blocks.items() if number not in MANY})
        if blocks is THREE:
            ids |= _together(repo)
        root = tree.update(repo, writer, base.disks[0].root if base else None, SIZE, SIZE, sorted(ids.items()))
        attached = attachment.store_attachment(repo, writer, "definition", "command-line", DEFINITION)
    disk = Disk("vda", SIZE, "qcow2", root, BLOCK, "golden", "virtio-blk", {"qdev": "/machine/disk0"})
    zeroes = Disk("sda", 1 << 40, "raw", None, BLOCK)
    before = base.id if base else None
    manifest = Manifest(
        snapshot_id, "web", created, before, "crash", "host", "inst", (disk, zeroes), (attached,), {"v": [0]}
    )
    snapshot.publish(repo, manifest)
    return manifest


def _goings_on(repo: Repository) -> None:
    """What comes and goes, as it was at one moment."""
    label.protect(repo, SECOND)
    label.tag(repo, SECOND, ["kept"])
    repo.put_object(layout.Kind.LEASE, lease.key_of(LEASE.id, 0), lease.encode(LEASE))
    repo.put_object(layout.Kind.CONDEMNED, layout.CONDEMNED + CONDEMNED, condemned.encode([PACK]))
    repo.put_object(layout.Kind.DOOMED, layout.DOOMED + DOOMED, condemned.encode([PACK]))


def _together(repo: Repository) -> dict[int, bytes]:
    """In frames of at most nine blocks, in the reverse order, moved from a pack that is gone to another one."""
    ids = {number: repo.chunk_id(data) for number, data in MANY.items()}
    sealed = pack.OpenPack(repo.secrets, ChunkClass.CONTENT, mmap.mmap(-1, layout.PACK_SIZE))
    moved = pack.OpenPack(repo.secrets, ChunkClass.CONTENT, mmap.mmap(-1, layout.PACK_SIZE))
    for numbers in (range(100, 107), range(107, 116)):
        data = b"".join(MANY[number] for number in numbers)
        frame = codec.compress(data)
        listed = [ids[number] for number in numbers], [BLOCK] * len(numbers), len(frame) + layout.TAG_LENGTH, 1
        slot = sealed.reserve(*listed)
        slot.fill(frame)
        with sealed.view(slot.offset, slot.length) as content:
            moved.reserve(*listed, origin=(sealed.pack_id, slot.number)).take(content)
    entries, whole = moved.finish()
    repo.store.create(pack.pack_key(entries.pack_id), whole)
    repo.holdings.add(entries)
    return ids


if __name__ == "__main__":
    make(sys.argv[1])
