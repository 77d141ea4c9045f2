"""The index objects and losses that an index has met, and what the index objects say of others."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from headstart.repository.known import Known
from headstart.repository.link import Link


class Met:
    """Not safe against changes from several threads."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}  # of all that were read or written
        self._known: dict[str, Known] = {}  # the index objects among them
        self._cached: set[str] = set()  # those that were not read in the store, but in the cache
        self._linked: dict[str, bytes] = {}
        self._replaced: set[str] = set()

    def fresh(self, there: Iterable[str]) -> list[str]:
        """Those that were not read yet."""
        return [name for name in there if name not in self._digests]

    def gone(self, there: Iterable[str]) -> set[str]:
        """Index objects that are known, and not among these."""
        return self._known.keys() - set(there)

    def add(self, known: Known, *, cached: bool = False) -> None:
        """An index object. ``cached``: by the cache's word."""
        self.add_digest(known.itself)
        if cached:
            self._cached.add(known.name)
        self._known[known.name] = known
        self._linked.update({each.name: each.digest for each in known.links})
        self._replaced.update(known.replaced)

    def add_digest(self, link: Link) -> None:
        """Of a loss, which links no others."""
        self._digests[link.name] = link.digest

    def forget(self, names: Iterable[str]) -> None:
        """These index objects: if they are met again, it is for the first time."""
        for name in names:
            del self._known[name], self._digests[name]
            self._cached.discard(name)
        self._linked = {each.name: each.digest for known in self._known.values() for each in known.links}
        self._replaced = {name for known in self._known.values() for name in known.replaced}

    def take_cached(self) -> list[str]:
        """Those of which only the cache has told, in order; they do not count as such any longer."""
        found = sorted(self._cached)
        self._cached.clear()
        return found

    def indexes(self) -> list[str]:
        return list(self._known)

    def naming(self, packs: set[bytes]) -> list[str]:
        """Index objects that list any of these."""
        return [name for name, known in self._known.items() if not packs.isdisjoint(known.pack_ids())]

    def packs(self, *, replaced: bool = True) -> set[bytes]:
        """Those that any index object lists; ``replaced``: also one that another stands in for."""
        objects = [known for name, known in self._known.items() if replaced or name not in self._replaced]
        return {pack_id for known in objects for pack_id in known.pack_ids()}

    def digest(self, name: str) -> bytes | None:
        """None: it was not read."""
        return self._digests.get(name)

    @property
    def replaced(self) -> Container[str]:
        """What others stand in for."""
        return self._replaced

    def heads(self) -> Iterator[Link]:
        """Those that no index object links yet."""
        for name, digest in self._digests.items():
            if name not in self._linked and name not in self._replaced:
                yield Link(name, digest)

    def linked(self) -> dict[str, bytes]:
        """By name, the digest of everything that index objects say was there."""
        return {name: digest for name, digest in self._linked.items() if name not in self._replaced}
