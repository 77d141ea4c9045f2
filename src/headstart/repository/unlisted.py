"""Packs that are durable, and that no index object lists yet."""

from __future__ import annotations

from collections.abc import Container, Sequence

from headstart.repository.packtable import PackEntries


class Unlisted:
    """Not safe against changes from several threads."""

    def __init__(self) -> None:
        self._waiting: list[PackEntries] = []
        self._underway: set[bytes] = set()  # those for which an index object is being written

    def add(self, entries: PackEntries) -> None:
        self._waiting.append(entries)

    @property
    def chunks(self) -> int:
        """Of those that wait."""
        return sum(map(len, self._waiting))

    def ids(self) -> set[bytes]:
        return self._underway.union(entries.pack_id for entries in self._waiting)

    def take(self) -> list[PackEntries]:
        """All that wait, for an index object; until ``done`` they are under way."""
        packs, self._waiting = self._waiting, []
        self._underway.update(each.pack_id for each in packs)
        return packs

    def put_back(self, packs: Sequence[PackEntries]) -> None:
        """It came to nothing: they wait again, before all others."""
        self._waiting = [*packs, *self._waiting]

    def done(self, packs: Sequence[PackEntries]) -> None:
        """However it came out."""
        self._underway.difference_update(each.pack_id for each in packs)

    def forget(self, packs: Container[bytes]) -> None:
        """These are gone."""
        self._waiting = [entries for entries in self._waiting if entries.pack_id not in packs]
