"""The objects of a repository, as the server keeps them for whomever: counted as they come and go, and none taken away
that is immutable still, by the store's clock.

Who may do what is not asked here: ``objects`` does that for clients; the server's own hands (``structure``) may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from headstart import errors
from headstart.repository import layout, protection
from headstart.server import repositories, tables
from headstart.server.repositories import Place
from headstart.server.site import Site
from headstart.store.contract import Data, Missing, Store

#: They come and go, and nothing is lost with them but a head start.
EPHEMERAL = (layout.DRAFTS, layout.LEASES)


def nothing(_connection: Connection) -> None:
    """Nothing else is written down."""


def forget_owner(connection: Connection, place: Place, key: str) -> None:
    """Nobody may take it away as their own any longer."""
    its = tables.ephemera.c
    connection.execute(delete(tables.ephemera).where(its.repository == place.id, its.key == key))


@dataclass(frozen=True, slots=True)
class Stock:
    site: Site
    place: Place
    store: Store

    @classmethod
    def of(cls, site: Site, place: Place) -> Stock:
        return cls(site, place, place.store(site))

    def add(self, key: str, data: Data, *, bounded: bool = True, note: Callable[[Connection], None] = nothing) -> None:
        """Counted before it is stored, together with what ``note`` writes; ``bounded``: by the tenant's quota. Raises
        ``NoSpace``, ``NotFound`` where the repository is being removed, what the store raises."""
        size = len(memoryview(data).cast("B"))
        with self.site.database.write() as connection:
            if bounded:
                repositories.reserve(connection, self.place, size)
            else:
                repositories.count(connection, self.place, size, 1)
            note(connection)
        try:
            self.store.create(key, data)
        except errors.HeadstartError:
            # Where its outcome is unknown, the next count of the whole repository puts it right.
            self._count(-size, -1)
            raise

    def size(self, key: str) -> int | None:
        return next((size for name, size in self.store.list(key) if name == key), None)

    def take_away(self, key: str, size: int | None) -> None:
        """``size`` None: there is none. Whoever calls has asked ``locked_until``."""
        self.store.delete(key)
        if size is not None:
            self._count(-size, -1)
        if key.startswith(EPHEMERAL):
            with self.site.database.write() as connection:
                forget_owner(connection, self.place, key)

    def locked_until(self, connection: Connection, key: str, created: float | None = None) -> float:
        """Seconds since 1970 by the store's clock; 0 for what is not locked. ``created``: if it is known. Raises
        ``Missing``."""
        days = self.place.immutable_days
        if not days or not protection.of(days).covers(key):
            return 0.0
        if created is None:
            created = next((moment for name, _, moment in self.store.modified(key) if name == key), None)
        if created is None:
            raise Missing(f"{key} is missing.", object=key)
        its = tables.locks.c
        query = select(its.until).where(its.repository == self.place.id, its.key == key)
        return max(created + protection.of(days).seconds, connection.execute(query).scalar() or 0.0)

    def _count(self, size: int, objects: int) -> None:
        with self.site.database.write() as connection:
            repositories.count(connection, self.place, size, objects)
