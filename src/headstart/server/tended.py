"""The store of a repository in the server's own hands.

What it adds and removes is counted as that of clients is, and what is locked stays, by the server's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from headstart import errors
from headstart.repository import layout
from headstart.server.repositories import Place
from headstart.server.site import Site
from headstart.server.stock import Stock
from headstart.store.contract import Data, Locks, Missing, Protection, Refused


def quiet() -> None:
    """Nobody wants it to end."""


class Tended:
    """The store of a repository, for the server's own hands. ``reserves``: what is added has to fit into the quota."""

    def __init__(self, site: Site, place: Place, beat: Callable[[], None] = quiet, *, reserves: bool = False) -> None:
        self._place = place
        self._beat = beat
        self._reserves = reserves
        self._stock = Stock.of(site, place)
        self._store = self._stock.store
        self._locks = _Locks(self._stock)
        self._sizes: dict[str, dict[str, int]] = {}

    @property
    def window(self) -> int:
        return self._store.window

    @property
    def host(self) -> str:
        return self._store.host

    def __repr__(self) -> str:
        return f"the repository {self._place.name}"

    @property
    def locked(self) -> int:
        """Objects that had to stay."""
        return len(self._locks.held)

    def create(self, key: str, data: Data) -> None:
        self._beat()
        self._stock.add(key, data, bounded=self._reserves)

    def read(self, key: str) -> bytes:
        self._beat()
        return self._store.read(key)

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        self._beat()
        return self._store.read_range(key, offset, length)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self._beat()
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Raises ``Refused`` for what is locked. It does not ask whether to end: leases are given back through it."""
        if (until := self._locks.fresh(key)) and until > self._store.clock():
            self._locks.held.add(key)
            raise Refused(f"{key} is immutable until {until:.0f} (seconds since 1970).", until=until)
        self._stock.take_away(key, self._size(key))

    def modified(self, prefix: str) -> Iterator[tuple[str, int, float]]:
        self._beat()
        return self._store.modified(prefix)

    def locks(self) -> Locks:
        return self._locks

    def clock(self) -> float:
        return self._store.clock()

    def _size(self, key: str) -> int | None:
        """A folder is listed once: packs go by the thousand. What came later is asked for by itself."""
        folder = key.rpartition("/")[0] + "/"
        if key.startswith(layout.PACKS) and folder not in self._sizes:
            self._sizes[folder] = dict(self._store.list(folder))
        known = self._sizes.get(folder, {}).pop(key, None)
        return known if known is not None else self._stock.size(key)


class _Locks:
    """By the repository's days and the server's clock. ``held``: what was asked for and is locked."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self._created: dict[str, float] = {}
        self.held: set[str] = set()

    def available(self) -> bool:
        return self._stock.place.immutable_days > 0

    def days(self) -> int:
        return self._stock.place.immutable_days

    def protect(self, protection: Protection) -> None:
        """The server locks by itself."""

    def locked_until(self, key: str) -> float:
        """Times of creation are looked up once for all; ``delete`` asks anew."""
        store = self._stock.store
        if self.available() and key not in self._created:
            self._created = {name: created for name, _, created in store.modified(key.partition("/")[0])}
        until = self._asked(key, self._created.get(key))
        if until > store.clock():
            self.held.add(key)
        return until

    def fresh(self, key: str) -> float:
        if not self.available():
            return 0.0
        try:
            return self._asked(key, None)
        except Missing:
            return 0.0

    def extend(self, key: str, until: float) -> None:
        raise errors.Unsupported("Hosts lock what their snapshots need, not the server.")

    def _asked(self, key: str, created: float | None) -> float:
        with self._stock.site.database.read() as connection:
            return self._stock.locked_until(connection, key, created)
