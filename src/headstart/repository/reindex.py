"""Index objects without the packs that were deleted, and fewer of them.

New ones are written first, then those that they stand in for go: whoever loads the index meanwhile finds all twice.
A store that keeps them (they are immutable still) is asked again by each run, and nothing is written a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from headstart import errors
from headstart.repository import layout, objects
from headstart.repository.link import Link
from headstart.repository.listing import Listed
from headstart.repository.packtable import PackEntries
from headstart.repository.repo import Repository
from headstart.store.contract import Missing

#: Chunks that one object lists, about.
_CHUNKS = 1 << 17
#: Objects that list less than this are put together once there are so many of them.
_SMALL_CHUNKS, _SMALL_COUNT = 1 << 12, 32


@dataclass(frozen=True, slots=True)
class _Told:
    """What the index objects say, without the tables of their packs, which need not all fit into memory. ``stale``
    ones list what was deleted. ``unread``: one could not be read, and may be whole again tomorrow."""

    packs: Mapping[str, frozenset[bytes]]
    stale: Set[str]
    small: Set[str]
    stood_in_for: Set[str]
    linked: Set[str]
    unread: bool

    def spent(self, deleted: Set[bytes]) -> set[str]:
        """Those for which others have stood in before, with all that is left of what they list."""
        found = self.stood_in_for & self.packs.keys()
        if not found:
            return set()
        there = set(deleted).union(*(packs for name, packs in self.packs.items() if name not in found))
        return {name for name in found if self.packs[name] <= there}


def rewrite(repo: Repository, deleted: Set[bytes], linked: Collection[str]) -> set[bytes]:
    """Take these packs out of the index. ``linked``: names of index objects that manifests and drafts would miss.

    Returns those that are listed still, because the store keeps an object that does, or may be: one was not read."""
    told = _told(repo, deleted)
    spent = told.spent(deleted)
    old, small = told.stale - spent, told.small - spent
    if len(small) >= _SMALL_COUNT:
        old |= small
    repo.holdings.forget(deleted)
    left = set(deleted) if told.unread else set[bytes]()
    if old:
        # Damaged ones that a repair has given up stay: they are known as long as they are there.
        there = {name for prefix in (layout.INDEXES, layout.LOSSES) for name in objects.names(repo.store, prefix)}
        _write(repo, old, deleted, there | told.linked | set(linked))
    for name in sorted(old | spent):
        try:
            repo.store.delete(name)
        except (errors.StoreFailed, errors.Unsupported):
            left |= told.packs[name] & deleted
    return left


def _told(repo: Repository, deleted: Set[bytes]) -> _Told:
    packs: dict[str, frozenset[bytes]] = {}
    stale: set[str] = set()
    small: set[str] = set()
    stood_in_for: set[str] = set()
    linked: set[str] = set()
    unread = False
    for name, listed in _all(repo):
        if listed is None:
            unread = unread or not repo.index.given_up(name)
            continue
        packs[name] = frozenset(entries.pack_id for entries in listed.packs)
        stood_in_for.update(each.name for each in listed.replaced)
        linked.update(each.name for each in listed.links)
        if not packs[name].isdisjoint(deleted):
            stale.add(name)
        elif sum(map(len, listed.packs)) < _SMALL_CHUNKS:
            small.add(name)
    return _Told(packs, stale, small, stood_in_for, linked, unread)


def _all(repo: Repository) -> Iterator[tuple[str, Listed | None]]:
    """None for one that cannot be read: that is for a repair."""
    for name, _ in sorted(repo.store.list(layout.INDEXES)):
        try:
            _, listed = repo.holdings.read_listed(name)
        except Missing:
            continue
        except errors.Damaged:
            yield name, None
        else:
            yield name, listed


def _write(repo: Repository, old: Set[str], deleted: Set[bytes], known: Set[str]) -> None:
    """What they link stays linked, and what they stood in for, as long as somebody knows of it. Reads them once more:
    raises ``Damaged`` where that fails, and the next one begins again."""
    replaced = {name: Link(name, bytes(layout.DIGEST_LENGTH)) for name in old}
    links: dict[str, Link] = {}
    portion: list[PackEntries] = []
    count = 0
    done = set(deleted)
    for name in sorted(old):
        _, listed = repo.holdings.read_listed(name)
        replaced |= {each.name: each for each in listed.replaced if each.name in known}
        links |= {each.name: each for each in listed.links}
        for entries in listed.packs:
            if entries.pack_id in done:
                continue
            if count >= _CHUNKS:
                repo.holdings.list_packs(Listed(portion, [], []))
                portion, count = [], 0
            done.add(entries.pack_id)
            portion.append(entries)
            count += len(entries)
    # The last, so that it is said only when all has been written.
    left = [link for name, link in links.items() if name not in replaced]
    repo.holdings.list_packs(Listed(portion, left, list(replaced.values())))
