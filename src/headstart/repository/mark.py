"""Marking: every copy of a chunk that somebody needs, found by walking trees with the structure secret alone.

Who needs: the snapshots; drafts whose owners live, by what their records list; readers, by their leases. Chunks are
remembered as positions in the index, in a compressed bitmap: some bits for each. What trees share is walked once.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from headstart import errors
from headstart.blocks import Blocks
from headstart.repository import census, draft, layout, lease, loss, objects, snapshot, tree
from headstart.repository.manifest import Manifest
from headstart.repository.missed import Missed
from headstart.repository.repo import Repository
from headstart.repository.root import Root
from headstart.store.contract import Missing


@dataclass(frozen=True, slots=True)
class Living:
    """``positions`` of chunks that are needed; ``packs`` that are needed whole. ``linked``: names of index objects that
    manifests and records know of. ``missed``: what is needed and of which no good copy was found, because it is in no
    pack that is known, or by the fault of a damaged cache. ``as_of`` of the index before: as long as it stays that,
    positions mean something, and the copies are good."""

    positions: Blocks
    missed: Missed
    as_of: tuple[int, int]
    packs: frozenset[bytes]
    linked: frozenset[str]
    snapshots: int
    drafts: int


def mark(repo: Repository, drafts: dict[str, list[str]], absent: Collection[bytes] = ()) -> Living:
    """``drafts`` are the records of living ones, listed before this is called: what has been published since is found
    among the manifests. ``absent``: packs that the store does not have, and that no loss names. Raises ``Damaged`` when
    it cannot be told what somebody needs."""
    as_of = repo.index.as_of
    marking = _Marking(repo, absent)
    for names in drafts.values():
        for name in names:
            marking.record(name)
    manifests = 0
    for manifest in _manifests(repo):
        marking.manifest(manifest)
        manifests += 1
    marking.held_roots(marking.held)
    for held in lease.living(repo):
        marking.held_roots(held.roots)
        marking.chunks(held.chunks)
    _require_losses(repo, marking.linked)
    return Living(
        marking.positions,
        marking.missed,
        as_of,
        frozenset(marking.packs),
        frozenset(marking.linked),
        manifests,
        len(drafts),
    )


def _manifests(repo: Repository) -> Iterator[Manifest]:
    """Of all snapshots, of those whose own cannot be read by their twins."""
    listing = snapshot.all_manifests(repo)
    yield from listing.manifests
    unread = {str(error.facts["object"]).removeprefix(layout.SNAPSHOTS): error for error in listing.damaged}
    ids = {
        prefix: {name.removeprefix(prefix) for name, _ in repo.store.list(prefix)}
        for prefix in (layout.SNAPSHOTS, layout.TWINS)
    }
    lost = {each for noted in repo.index.all_losses() for each in noted.snapshots}
    alone = filter(layout.is_object_id, ids[layout.TWINS] - ids[layout.SNAPSHOTS])
    for each in sorted({*unread, *alone}):
        pair = census.read_pair(repo, each)
        if pair.payload is None:
            if each in lost:
                continue  # and has not come back
            found = next((side for side in (pair.own, pair.twin) if isinstance(side, errors.Damaged)), unread.get(each))
            if found is not None:
                raise _cannot(found)
        elif (manifest := census.manifest_of(pair)) is not None:
            yield manifest


def _require_losses(repo: Repository, linked: Iterable[str]) -> None:
    """All that repairs have noted is known, by what other objects say."""
    index = repo.index
    missed = dict(index.unread)
    there = set(objects.names(repo.store, layout.LOSSES))  # also what was noted since the index was loaded
    for name in {*index.linked(), *linked} - there:
        if index.digest(name) is None:
            missed[name] = errors.Damaged(
                f"{name} is missing: objects that were written after it name it.", object=name
            )
    for name, error in sorted(missed.items()):
        if name.startswith(layout.LOSSES) and not index.given_up(name):
            raise _cannot(error, "Without it a bad copy would pass for the one that is kept")


def _cannot(error: errors.Damaged, why: str = "What it needs cannot be told") -> errors.Damaged:
    return errors.Damaged(
        f"{error} {why}, so nothing was deleted. Use 'headstart repair', then try again.", **error.facts
    )


class _Marking:
    def __init__(self, repo: Repository, absent: Collection[bytes]) -> None:
        self._repo = repo
        self._absent = absent
        self.positions = Blocks()
        self.missed = Missed()
        self._lacks = repo.index.lacks_any()
        self.packs: set[bytes] = set()
        self.linked: set[str] = set()
        #: Of the drafts. After the snapshots: of what both need, nothing may be missing.
        self.held: list[Root] = []

    def record(self, name: str) -> None:
        try:
            found = draft.read(self._repo, name)
        except Missing:
            return  # it was published meanwhile
        except errors.Damaged as error:
            if self._repo.index.given_up(name):
                return
            raise _cannot(error) from None
        for entries in found.entries.values():
            step = layout.CHUNK_ID_LENGTH
            ids = entries.chunk_ids
            # One that is nowhere is copied again by its owner, who looks before anything is published.
            self.chunks(ids[start : start + step] for start in range(0, len(ids), step))
        self.packs.update(bytes.fromhex(each) for each in found.packs if layout.is_object_id(each))
        self.linked.update(each.name for each in found.links)
        self.held += found.roots

    def manifest(self, manifest: Manifest) -> None:
        self.roots(Root(manifest.id, disk.name, disk.size, disk.root) for disk in manifest.disks)
        for attached in manifest.attachments:
            self.chunks(attached.chunks)
        self.linked.update(each.name for each in manifest.links)

    def roots(self, roots: Iterable[Root]) -> None:
        for root in roots:
            for node_id, error in self._walk(root):
                if not self._is_lost(root, node_id):
                    raise _cannot(error)

    def held_roots(self, roots: Iterable[Root]) -> None:
        """Those of a draft or a reader, whose owner looks himself whether all is there: it may have come too late."""
        for root in roots:
            for _ in self._walk(root):
                pass

    def _walk(self, root: Root) -> Iterator[tuple[bytes, errors.Damaged]]:
        """Nodes that cannot be read."""
        for visited in tree.visit(self._repo, root.root, root.size, self._enter):
            if isinstance(visited.slots, errors.Damaged):
                yield visited.node_id, visited.slots
            elif visited.level == 0:
                self.chunks(chunk for chunk in visited.slots if chunk is not None)

    def chunks(self, chunk_ids: Iterable[bytes]) -> None:
        wanted = list(chunk_ids)
        places = self._repo.index.places(wanted)
        self.positions.update(places)
        if self._lacks or len(places) < len(wanted):
            self.missed.update(self._repo.missing(wanted))

    def _enter(self, node_id: bytes) -> bool:
        """The trees of different disks share nodes; of one node, what is below is the same."""
        [place] = self._repo.index.places([node_id]) or [-1]
        if self._lacks or place < 0:
            self.missed.update(self._repo.missing([node_id]))
        if place < 0:
            return True  # it is read from a pack that no index lists, or found missing
        known = place in self.positions
        self.positions.add(place)
        return not known

    def _is_lost(self, root: Root, node_id: bytes) -> bool:
        """What a repair found lost, and could not heal, nobody reaches any longer. A loss is never taken back, also
        when it was healed later: so it is not enough while packs are away that may come back."""
        if node_id in self._repo.index or self._absent:
            return False
        nodes, disks = self._noted
        return node_id in nodes or (root.snapshot, root.disk) in disks

    @functools.cached_property
    def _noted(self) -> tuple[set[bytes], set[tuple[str, str]]]:
        """Chunks that repairs found lost, and disks of which they were too many to be named."""
        noted = loss.hurt_by(self._repo.index.all_losses())
        nodes = {chunk for chunks in noted.values() for chunk in chunks or ()}
        return nodes, {where for where, chunks in noted.items() if chunks is None}
