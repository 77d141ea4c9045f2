"""Publishing, revoking and finding snapshots.

A snapshot exists exactly when its manifest exists. Manifest and tombstone go under the same key, so that the store's
create-if-absent decides between a backup that publishes and whoever takes its draft for dead.

Whatever was decided is then written once more, as its *twin*: of the two, one tells if the other is lost or another
one, and what it was. Until there is a twin there is still the draft.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from headstart import errors
from headstart.repository import layout, manifest
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.store.contract import Exists, Missing

_TOMBSTONE = b'{"revoked":true,"twin":true}'
#: Without a twin, of before there were any.
_LONELY_TOMBSTONE = b'{"revoked":true}'


class Revoked(errors.HeadstartError):
    """The draft was taken for dead and given up: nothing was published. Begin a new one."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The snapshots that can be read, oldest first, and an error for each that cannot."""

    manifests: tuple[Manifest, ...]
    damaged: tuple[errors.Damaged, ...]


def new_id() -> str:
    """Of a draft, and of the snapshot that it becomes."""
    return os.urandom(layout.OBJECT_ID_LENGTH).hex()


def key_of(snapshot_id: str) -> str:
    if not layout.is_object_id(snapshot_id):
        raise ValueError(f"not a snapshot id: {snapshot_id!r}")
    return layout.SNAPSHOTS + snapshot_id


def twin_of(snapshot_id: str) -> str:
    if not layout.is_object_id(snapshot_id):
        raise ValueError(f"not a snapshot id: {snapshot_id!r}")
    return layout.TWINS + snapshot_id


def publish(repo: Repository, published: Manifest) -> Manifest:
    """Make the snapshot exist. All that it refers to must be durable. May be repeated after any failure.

    Returns it with ``links``, ``keys`` and ``twin``. Raises ``Revoked`` when the draft was given up, and ``Exists``
    when a snapshot of this id has other content.
    """
    published = replace(published, links=repo.index.heads(), keys=repo.key_names(), twin=True)
    payload = manifest.encode(published)
    decided = _decided(repo, published.id)
    if decided is not None:
        # Whatever stood in its place was lost by the store.
        payload = _earlier(published, decided)
    try:
        repo.put_object(layout.Kind.SNAPSHOT, key_of(published.id), payload)
    except Exists:
        payload = _earlier(published, repo.get_object(layout.Kind.SNAPSHOT, key_of(published.id)))
    _put_twin(repo, published.id, payload)
    return _decode(key_of(published.id), payload)


def _earlier(published: Manifest, stored: bytes) -> bytes:
    """What an earlier try decided, if it was to publish the same. Raises ``Revoked``, ``Exists``."""
    if is_tombstone(stored):
        raise Revoked(
            f"The draft of snapshot {published.id} was given up after it had not been heard of for too long. "
            "Nothing is lost: back up again.",
            snapshot=published.id,
        )
    name = key_of(published.id)
    earlier = _decode(name, stored)
    if replace(earlier, links=published.links, keys=published.keys) != published:
        raise Exists(f"{name} exists already, and is another snapshot", object=name)
    return stored


def _decided(repo: Repository, snapshot_id: str) -> bytes | None:
    """What the twin tells."""
    try:
        return repo.get_object(layout.Kind.TWIN, twin_of(snapshot_id))
    except errors.Damaged:
        return None


def add_twin(repo: Repository, snapshot_id: str) -> None:
    """Write what stands under the manifest's key once more, if that was not done yet."""
    payload = repo.get_object(layout.Kind.SNAPSHOT, key_of(snapshot_id))
    if has_twin(payload):
        _put_twin(repo, snapshot_id, payload)


def _put_twin(repo: Repository, snapshot_id: str, payload: bytes) -> None:
    try:
        repo.put_object(layout.Kind.TWIN, twin_of(snapshot_id), payload)
    except Exists:
        with contextlib.suppress(errors.Damaged):  # verify tells of it; what was published is whole
            if repo.get_object(layout.Kind.TWIN, twin_of(snapshot_id)) != payload:
                raise


def has_twin(payload: bytes) -> bool:
    """Whether there is one of this manifest or tombstone, or should be."""
    try:
        return bool(json.loads(payload).get("twin"))
    except (ValueError, AttributeError):
        return False


def is_tombstone(payload: bytes) -> bool:
    return payload in (_TOMBSTONE, _LONELY_TOMBSTONE)


def revoke(repo: Repository, snapshot_id: str) -> bool:
    """Put a tombstone in the place of the draft's manifest. False when the snapshot was published already, even if the
    store has lost its manifest: the twin has it. Afterwards there is a twin, and the draft may go. ``Damaged`` when it
    cannot be told which of the two it was."""
    decided = _decided(repo, snapshot_id)
    if decided is not None and not is_tombstone(decided):
        return False
    revoked = True
    try:
        repo.put_object(layout.Kind.SNAPSHOT, key_of(snapshot_id), _TOMBSTONE)
    except Exists:
        revoked = is_revoked(repo, snapshot_id)
    with contextlib.suppress(Missing):  # it was forgotten just now
        add_twin(repo, snapshot_id)
    return revoked


def is_revoked(repo: Repository, snapshot_id: str) -> bool:
    try:
        return is_tombstone(repo.get_object(layout.Kind.SNAPSHOT, key_of(snapshot_id)))
    except Missing:
        decided = _decided(repo, snapshot_id)
        return decided is not None and is_tombstone(decided)


def load(repo: Repository, snapshot_id: str) -> Manifest:
    """Raises ``NotFound`` when there is no such snapshot, ``Damaged`` when it cannot be read."""
    found = _load(repo, key_of(snapshot_id))
    if found is None:
        raise _not_found(snapshot_id)
    return found


def all_manifests(repo: Repository) -> Listing:
    manifests: list[Manifest] = []
    damaged: list[errors.Damaged] = []
    for name in _names(repo, ""):
        try:
            found = _load(repo, name)
        except errors.Damaged as error:
            damaged.append(error)
        else:
            manifests += [found] if found else []
    return Listing(tuple(sorted(manifests, key=lambda found: (found.created, found.id))), tuple(damaged))


def resolve(repo: Repository, text: str) -> Manifest:
    """The snapshot meant by an id, a unique prefix of one, or ``VM@latest``. ``NotFound``, ``Usage``, ``Damaged``."""
    vm, at, which = text.rpartition("@")
    if at:
        return _latest(repo, vm, which)
    prefix = text.lower()
    if not prefix or not layout.is_object_id(prefix.ljust(2 * layout.OBJECT_ID_LENGTH, "0")):
        raise errors.NotFound(
            f"{text!r} names no snapshot: give an id, the beginning of one, or VM@latest.", snapshot=text
        )
    found = {name: published for name in _names(repo, prefix) if (published := _load(repo, name))}
    if not found:
        raise _not_found(text)
    if len(found) > 1:
        ids = ", ".join(sorted(published.id for published in found.values()))
        raise errors.Usage(f"{text} is the beginning of several snapshots: {ids}. Give more of it.")
    return next(iter(found.values()))


def resolve_or_latest(repo: Repository, text: str) -> Manifest:
    """As ``resolve``; or the latest snapshot of the VM of this name."""
    try:
        return resolve(repo, text)
    except errors.NotFound:
        if "@" in text:
            raise
        try:
            return _latest(repo, text, "latest")
        except errors.NotFound:
            raise errors.NotFound(f"{text!r} names neither a snapshot nor a VM with one.", snapshot=text) from None


def _latest(repo: Repository, vm: str, which: str) -> Manifest:
    if which != "latest":
        raise errors.NotFound(f"{vm}@{which} names no snapshot: after the @ there is only latest.")
    listing = all_manifests(repo)
    if listing.damaged:
        raise errors.Damaged(
            f"{listing.damaged[0]} It may be the latest of {vm}: name the snapshot you want by its id.",
            **listing.damaged[0].facts,
        )
    of_vm = [found for found in listing.manifests if found.vm == vm]
    if not of_vm:
        raise errors.NotFound(f"There is no snapshot of {vm!r} in this repository.", vm=vm)
    return of_vm[-1]


def _names(repo: Repository, prefix: str) -> Iterator[str]:
    for name, _ in repo.store.list(layout.SNAPSHOTS + prefix):
        if layout.is_object_id(name.removeprefix(layout.SNAPSHOTS)):
            yield name


def _load(repo: Repository, name: str) -> Manifest | None:
    """None for a tombstone, and when there is nothing (any more)."""
    try:
        payload = repo.get_object(layout.Kind.SNAPSHOT, name)
    except Missing:
        return None
    return None if is_tombstone(payload) else _decode(name, payload)


def _decode(name: str, payload: bytes) -> Manifest:
    try:
        found = manifest.decode(payload)
        if layout.SNAPSHOTS + found.id != name:
            raise ValueError("another id")
    except ValueError:
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None
    return found


def _not_found(text: str) -> errors.NotFound:
    return errors.NotFound(f"There is no snapshot {text} in this repository.", snapshot=text)
