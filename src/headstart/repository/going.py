"""The packs that go, as far as they are known here: see ``condemned``."""

from __future__ import annotations

from headstart import errors
from headstart.repository import condemned, layout, objects, seal
from headstart.repository.keys import Secrets
from headstart.store.contract import Missing, Store


class Going:
    """``aside``: packs that nothing new may be built on; ``doomed``: those of them that are being deleted. Both only
    grow. ``unread``: the list of doomed ones that could not be read at the last look. Not safe against changes from
    several threads."""

    def __init__(self, secrets: Secrets, store: Store) -> None:
        self._secrets = secrets
        self._store = store
        self._seen: set[str] = set()
        self.aside: set[bytes] = set()
        self.doomed: set[bytes] = set()
        self.unread: errors.Damaged | None = None

    def load(self) -> list[errors.Damaged]:
        """What was listed since the last look; returns an error for each list that cannot be read. It is tried again
        the next time."""
        unreadable = self.load_doomed()
        for name in self._fresh(layout.CONDEMNED):
            try:
                self.aside.update(self._list_of(layout.Kind.CONDEMNED, name))
            except errors.Damaged as error:
                unreadable.append(error)
                continue
            self._seen.add(name)
        return unreadable

    def load_doomed(self) -> list[errors.Damaged]:
        """As ``load``, of those that are being deleted."""
        self.unread = None
        for name in self._fresh(layout.DOOMED):
            try:
                packs = self._list_of(layout.Kind.DOOMED, name)
            except errors.Damaged as error:
                self.unread = error
                continue
            self._seen.add(name)
            self.doomed.update(packs)
            self.aside.update(packs)
        return [] if self.unread is None else [self.unread]

    def _fresh(self, prefix: str) -> list[str]:
        return [name for name in objects.names(self._store, prefix) if name not in self._seen]

    def _list_of(self, kind: layout.Kind, name: str) -> frozenset[bytes]:
        try:
            return condemned.decode(name, seal.open_object(self._secrets, kind, name, self._store.read(name)))
        except Missing:
            return frozenset()  # it was withdrawn between listing and reading
