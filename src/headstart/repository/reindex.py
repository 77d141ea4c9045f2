"""Index objects without the packs that were deleted, and fewer of them.

New ones are written first, then those that they stand in for go: whoever loads the index meanwhile finds all twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from headstart import errors
from headstart.repository import layout, objects
from headstart.repository.link import Link
from headstart.repository.listing import Listed
from headstart.repository.packtable import PackEntries
from headstart.repository.repo import Repository

#: Chunks that one object lists, about.
_CHUNKS = 1 << 17
#: Objects that list less than this are put together once there are so many of them.
_SMALL_CHUNKS, _SMALL_COUNT = 1 << 12, 32


@dataclass(slots=True)
class _Found:
    """``names`` of objects that are to be replaced, and what they say."""

    names: list[str] = field(default_factory=list)
    packs: list[PackEntries] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    replaced: dict[str, Link] = field(default_factory=dict)

    def take(self, name: str, listed: Listed) -> None:
        self.names.append(name)
        self.packs += listed.packs
        self.links.update({each.name: each for each in listed.links})
        self.replaced.update({each.name: each for each in listed.replaced})


def rewrite(repo: Repository, deleted: Collection[bytes], linked: Collection[str]) -> int:
    """Take these packs out of the index. ``linked``: names of index objects that manifests and drafts would miss.

    Returns how many objects were replaced."""
    found, small, known = _Found(), _Found(), set(linked)
    # Damaged ones that a repair has given up stay: they are known as long as they are there.
    known.update(*(objects.names(repo.store, prefix) for prefix in (layout.INDEXES, layout.LOSSES)))
    for name, listed in _all(repo):
        known.update(each.name for each in listed.links)
        if any(entries.pack_id in deleted for entries in listed.packs):
            found.take(name, listed)
        elif sum(map(len, listed.packs)) < _SMALL_CHUNKS:
            small.take(name, listed)
    if len(small.names) >= _SMALL_COUNT:
        found.names += small.names
        found.packs += small.packs
        found.links |= small.links
        found.replaced |= small.replaced
    repo.index.forget(deleted)
    if not found.names:
        return 0
    _write(repo, found, deleted, known)
    for name in found.names:
        repo.store.delete(name)
    return len(found.names)


def _all(repo: Repository) -> Iterator[tuple[str, Listed]]:
    """Those that can be read; the others are for a repair."""
    for name, _ in sorted(repo.store.list(layout.INDEXES)):
        try:
            _, listed = repo.index.read_listed(name)
        except errors.Damaged:
            continue
        yield name, listed


def _write(repo: Repository, found: _Found, deleted: Collection[bytes], known: Collection[str]) -> None:
    """What they link stays linked, and what they stood in for, as long as somebody knows of it."""
    replaced = {name: Link(name, bytes(layout.DIGEST_LENGTH)) for name in found.names}
    replaced |= {name: each for name, each in found.replaced.items() if name in known}
    links = [each for name, each in found.links.items() if name not in replaced]
    packs = {entries.pack_id: entries for entries in found.packs if entries.pack_id not in deleted}
    portions = list(_portions(list(packs.values()))) or [[]]
    for portion in portions[:-1]:
        repo.index.list_packs(Listed(portion, [], []))
    # The last, so that it is said only when all has been written.
    repo.index.list_packs(Listed(portions[-1], links, list(replaced.values())))


def _portions(packs: list[PackEntries]) -> Iterator[list[PackEntries]]:
    portion: list[PackEntries] = []
    count = 0
    for entries in packs:
        portion.append(entries)
        count += len(entries)
        if count >= _CHUNKS:
            yield portion
            portion, count = [], 0
    if portion:
        yield portion
