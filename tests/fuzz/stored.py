"""What lies in a store: objects as anybody may have put them there, and payloads by who has the keys."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headstart import errors
from headstart.repository import (
    codec,
    condemned,
    config,
    draft,
    keys,
    label,
    layout,
    lease,
    listing,
    manifest,
    node,
    pack,
    packtable,
    paper,
    proof,
    seal,
    snapshot,
    tree,
)
from headstart.repository.config import Config
from headstart.repository.keys import Secrets
from headstart.repository.repo import Repository
from headstart.repository.stack import Stack
from headstart.store.memory import MemoryStore

SECRETS = Secrets.of(bytes(range(96)))
PACK_ID = bytes(range(16))
OBJECT_ID = "11" * 16
#: What a target may say of bytes that are none of ours.
REFUSED = (errors.Damaged, errors.Unsupported)
SLOTS = 12


def store_of(name: str, data: bytes) -> MemoryStore:
    store = MemoryStore()
    store.create(name, data)
    return store


def configuration(data: bytes) -> None:
    """Also with a sound code in front, which only who has the secrets can make."""
    for coded in (data, layout.header(layout.Kind.CONFIG) + config._code(SECRETS, data) + data):
        try:
            found = config.read(store_of(layout.CONFIG_KEY, coded)).check(SECRETS)
        except (*REFUSED, errors.NoRepository):
            continue
        assert config.read(store_of(layout.CONFIG_KEY, found.encode(SECRETS))).check(SECRETS) == found
        # What is done with it at once.
        with Repository(MemoryStore(), SECRETS, found, encrypted=True) as repo:
            tree.span_of(repo, 3)


def key(data: bytes) -> None:
    """A key object has a sound name: anybody can give it that."""
    for start in (b"", layout.header(layout.Kind.KEY)):
        name = layout.KEYS + keys._key_id(start + data)
        try:
            found = keys.KeyObject.decode(name, start + data)
            if found.argon2 is None or found.argon2.memory_kib <= 64:
                found.unwrap(b"password")
        except REFUSED:
            continue


def paper_key(data: bytes) -> None:
    """Whatever is typed, or stands in a file."""
    lines = data.decode(errors="replace").splitlines()
    try:
        found = paper.secrets_of(lines)
    except errors.Usage:
        return
    assert paper.secrets_of(paper.lines(found)) == found


def pack_object(data: bytes) -> None:
    """A pack by anybody; then one with a sound seal around the index."""
    _entries(data)
    if len(data) < 4:
        return
    version = data[0] & 1
    counts = data[1], data[2], data[3] & 3
    if version == 0:
        counts = data[1], data[1], 0
    payload = data[4:]
    foot = pack._Foot(version, layout.PACK_START, len(payload) + layout.TAG_LENGTH, *counts)
    sealed = seal.seal_pack_index(SECRETS, PACK_ID, pack._index_context(1, foot), payload)
    _entries(pack._head(PACK_ID, 1, version) + sealed + foot.encode())


def _entries(data: bytes) -> None:
    with contextlib.suppress(errors.Damaged):
        pack.read_entries(SECRETS, store_of(pack.pack_key(PACK_ID), data), PACK_ID, len(data))


def pack_table(data: bytes) -> None:
    """Counts of chunks, frames and origins, then the table."""
    if len(data) < 3:
        return
    try:
        found = packtable.PackEntries.decode(PACK_ID, 1, data[0], data[1], data[2] & 3, data[3:])
    except ValueError:
        return
    assert found.encode() == data[3:]
    _entered(found)


def _entered(found: packtable.PackEntries) -> None:
    """In the index of a repository in memory, and found there."""
    known = Stack()
    known.add(found)
    for number in range(len(found)):
        chunk_id = known.chunk_id(number)
        place = known.location(known.position(chunk_id))
        assert place.frame.offset + place.frame.sealed_length < 1 << 32
        assert place.length <= layout.MAX_CHUNK_LENGTH and place.start + place.length <= place.frame.length


def listed(data: bytes) -> None:
    for version in layout.READABLE:
        _listed(data, version)


def _listed(data: bytes, version: int) -> None:
    try:
        found = listing.decode("indexes/x", data, version)
    except errors.Damaged:
        return
    again = listing.encode(found.packs, found.links, found.replaced)
    # Some bytes of each head say nothing; links are gathered at the end, without a head where there is none.
    assert version == 0 or len(again) <= len(data)
    assert listing.decode("indexes/x", again) == found
    for each in found.packs:
        _entered(each)


def tree_node(data: bytes) -> None:
    for level in (0, 1):
        try:
            found = node.decode(data, level, SLOTS)
        except ValueError:
            continue
        assert node.encode(level, found) == data


@functools.cache
def _repository() -> Repository:
    return Repository(MemoryStore(), SECRETS, Config(SECRETS.repository_id, 4096, 4, 2), encrypted=True)


def published(data: bytes) -> None:
    try:
        found = manifest.decode(data)
    except ValueError:
        return
    again = manifest.encode(found)
    assert manifest.decode(again) == found and manifest.encode(manifest.decode(again)) == again
    repo = _repository()
    for disk in found.disks:
        # Nothing of it is there, however large it says it is.
        with contextlib.suppress(errors.Damaged):
            list(tree.walk(repo, disk.root, disk.size))


def record(data: bytes) -> None:
    try:
        found = draft.decode(OBJECT_ID, 1, data)
    except ValueError:
        return
    assert draft.decode(OBJECT_ID, 1, draft.encode(found)) == found
    for entries in found.entries.values():
        assert len(list(entries)) == len(entries)


def held(data: bytes) -> None:
    try:
        found = lease.decode(OBJECT_ID, data)
    except ValueError:
        return
    assert lease.decode(OBJECT_ID, lease.encode(found)) == found
    repo = _repository()
    for root in found.roots:
        list(tree.visit(repo, root.root, root.size, lambda _node: True))


def packs_that_go(data: bytes) -> None:
    name = layout.DOOMED + OBJECT_ID
    with contextlib.suppress(*REFUSED):
        found = condemned.decode(name, data)
        assert condemned.decode(name, condemned.encode(found)) == found


def labelled(data: bytes) -> None:
    repo = _repository()
    label.drop(repo, OBJECT_ID)
    repo.put_object(layout.Kind.LABEL, f"{layout.LABELS}{OBJECT_ID}/{OBJECT_ID}", data)
    found = label.all_labels(repo)[OBJECT_ID]
    assert found.protected != bool(found.tags)
    assert all(label.check_tag(tag) == tag for tag in found.tags)


def seen(data: bytes) -> None:
    with contextlib.suppress(ValueError, KeyError):
        found = proof._decoded(data)
        assert proof._decoded(proof._encoded(found)) == found


def proven(data: bytes) -> None:
    repo = _repository()
    repo.put_object(layout.Kind.PROOF, f"{layout.PROOFS}{OBJECT_ID}/{os.urandom(16).hex()}", data)
    for each in proof.all_proofs(repo).get(OBJECT_ID, ()):
        assert each.time >= 0
    proof.drop(repo, OBJECT_ID)


def sealed(data: bytes) -> None:
    """An object by anybody; then with a sound seal around any frame, and around the frame of any payload."""
    key_of = snapshot.key_of(OBJECT_ID)
    with contextlib.suppress(errors.Damaged):
        seal.open_object(SECRETS, layout.Kind.SNAPSHOT, key_of, data)
    start, salt = layout.header(layout.Kind.SNAPSHOT), bytes(layout.SALT_LENGTH)
    cipher: AESGCM = seal._object_cipher(SECRETS, layout.Kind.SNAPSHOT, salt)
    framed = cipher.encrypt(bytes(layout.NONCE_LENGTH), data, seal._object_context(SECRETS, start, key_of))
    with contextlib.suppress(errors.Damaged):
        seal.open_object(SECRETS, layout.Kind.SNAPSHOT, key_of, start + salt + framed)
    whole = seal.seal_object(SECRETS, layout.Kind.SNAPSHOT, key_of, data)
    assert seal.open_object(SECRETS, layout.Kind.SNAPSHOT, key_of, whole) == data


def frame(data: bytes) -> None:
    """A chunk that was sealed, and is no frame, or one of something else: the first two bytes tell its length."""
    length = int.from_bytes(data[:2], "little")
    try:
        found = codec.decompress(data[2:], length)
    except ValueError:
        return
    assert len(found) == length


def snapshots(data: bytes) -> None:
    """All that a list of snapshots reads, with any payload in it."""
    repo = _repository()
    name = snapshot.key_of(OBJECT_ID)
    repo.store.delete(name)
    repo.put_object(layout.Kind.SNAPSHOT, name, data)
    found = snapshot.all_manifests(repo)
    assert len(found.manifests) + len(found.damaged) <= 1
    for each in found.manifests:
        json.dumps([each.vm, each.created, each.host, each.consistency])


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": configuration,
    "key": key,
    "paper": paper_key,
    "pack": pack_object,
    "pack-table": pack_table,
    "index": listed,
    "node": tree_node,
    "manifest": published,
    "draft": record,
    "lease": held,
    "packs-that-go": packs_that_go,
    "label": labelled,
    "evidence": seen,
    "proof": proven,
    "sealed": sealed,
    "frame": frame,
    "snapshots": snapshots,
}
