"""Keeping immutable what snapshots share with older ones.

Each object is locked when it is made, and what a snapshot needs has to stay locked for the days of the repository after
the snapshot was made. What is older than the snapshot is locked longer here. Locks have a margin, so that an object has
its lock extended once in that time, and not with each snapshot::

    pack    |--- days ---|- margin -|
    snapshot      |--- days ---|           still covered
    snapshot                |--- days ---|           not: extended to  ...|- margin -|
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter

from headstart import errors
from headstart.repository import layout, pack, protection, snapshot, tree
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.store.contract import Locks, Missing

_DAY = 86400.0
#: Requests under way at a time.
_WINDOW = 16


@dataclass(frozen=True, slots=True)
class Extended:
    """Objects that snapshots need: all, those that the store was asked about, those that are locked longer now."""

    needed: int = 0
    asked: int = 0
    extended: int = 0


def locked_until(repo: Repository, name: str) -> float:
    """Seconds since 1970 until when nobody can remove the object; 0 where it is not locked, or ``Missing``."""
    locks = repo.store.locks()
    return 0.0 if locks is None else locks.locked_until(name)


def extend(repo: Repository, now: float, beat: Callable[[], None] = lambda: None) -> Extended:
    """Lock what the snapshots of the last days need for as long as they have to be immutable. Any host may, at any
    time; once a day is enough. Of a repository that is not immutable, nothing.

    ``beat`` is called all the time, and ends it by what it raises. Raises ``StoreFailed``, ``Refused``.
    """
    locks = repo.store.locks()
    if not repo.promised_days or locks is None:
        return Extended()
    repo.immutable_days = protection.protect(repo.store, repo.promised_days)  # it may be open for months
    if not repo.immutable_days:
        return Extended()
    whole = protection.of(repo.immutable_days).seconds
    spare = whole - repo.immutable_days * _DAY
    repo.holdings.recheck(again=True)  # what a damaged cache hides would not be locked
    created = {name: moment for name, _, moment in repo.store.modified("")}
    needed = dict(_needed(repo, now, beat))
    doubtful = [(name, until) for name, until in needed.items() if name in created and created[name] + whole < until]

    def look(one: tuple[str, float]) -> bool:
        beat()
        return _extend(locks, *one, spare)

    with ThreadPoolExecutor(_WINDOW) as threads:
        extended = sum(threads.map(look, doubtful))
    return Extended(len(needed), len(doubtful), extended)


def _extend(locks: Locks, name: str, until: float, spare: float) -> bool:
    try:
        if locks.locked_until(name) >= until:
            return False
        locks.extend(name, until + spare)
    except Missing:
        return False
    return True


def _needed(repo: Repository, now: float, beat: Callable[[], None]) -> Iterator[tuple[str, float]]:
    """Every object that a snapshot of the last days needs, and until when."""
    days = repo.immutable_days * _DAY
    # By the clock of its host, which may have been wrong: nobody could undo a lock until that day.
    made = ((min(each.created, now), each) for each in snapshot.all_manifests(repo).manifests)
    last = sorted((pair for pair in made if pair[0] > now - days), key=itemgetter(0), reverse=True)
    if not last:
        return
    newest = last[0][0] + days
    for name in itertools.chain((layout.CONFIG_KEY, layout.CONFIG_TWIN), repo.key_names()):
        yield name, newest
    for prefix in (layout.INDEXES, layout.LOSSES):
        for name, _ in repo.store.list(prefix):
            # One for which another stands in is to go, so that what it lists can be forgotten.
            if prefix == layout.LOSSES or not repo.index.given_up(name):
                yield name, newest
    # Newest first: who needs an object first needs it longest, and what it shares need not be walked again.
    seen: set[bytes] = set()
    packs: set[bytes] = set()
    for created, each in last:
        until = created + days
        yield snapshot.key_of(each.id), until
        yield snapshot.twin_of(each.id), until
        for pack_id in _packs(repo, each, seen, beat) - packs:
            packs.add(pack_id)
            yield pack.pack_key(pack_id), until


def _packs(repo: Repository, manifest: Manifest, seen: set[bytes], beat: Callable[[], None]) -> set[bytes]:
    found: set[bytes] = set()

    def enter(node_id: bytes) -> bool:
        if node_id in seen:
            return False
        seen.add(node_id)
        found.update(_places(repo, [node_id]))
        return True

    for disk in manifest.disks:
        for visited in tree.visit(repo, disk.root, disk.size, enter):
            beat()
            if visited.level == 0 and not isinstance(visited.slots, errors.Damaged):
                found.update(_places(repo, (each for each in visited.slots if each is not None)))
    for attachment in manifest.attachments:
        found.update(_places(repo, attachment.chunks))
    return found


def _places(repo: Repository, chunk_ids: Iterable[bytes]) -> set[bytes]:
    """The packs of the copies that are to stay. What is missing is for ``verify`` to tell."""
    found = (repo.index.find(chunk_id) for chunk_id in chunk_ids)
    return {location.pack_id for location in found if location is not None}
