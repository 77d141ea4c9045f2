"""What all requests of a server process share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from headstart import store
from headstart.server import sealing
from headstart.server.database import Database
from headstart.server.sealing import Sealer
from headstart.server.settings import Settings
from headstart.store.contract import Store

#: Seconds that a store that is in trouble is asked again: less than clients wait for an answer.
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Site:
    """``clock`` is wall time; ``fingerprint`` the SHA-256 of the server's own certificate; empty: it has
    another's. ``open_store`` opens an address."""

    settings: Settings
    database: Database
    sealer: Sealer
    fingerprint: str = ""
    clock: Callable[[], float] = time.time
    open_store: Callable[[str, float], Store] = field(default=store.open_store)
    _opened: dict[str, Store] = field(default_factory=dict)

    def place(self, path: Iterable[str]) -> Store:
        """Where the objects below ``path`` lie. It stays open: connections and folders are made once."""
        url = "/".join([self.settings.store.rstrip("/"), *path])
        found = self._opened.get(url)
        if found is None:
            found = self._opened.setdefault(url, self.open_store(url, PATIENCE))
        return found


def open_site(settings: Settings, clock: Callable[[], float] = time.time, fingerprint: str = "") -> Site:
    """The database is made, or brought up to date. Raises ``Usage``, ``Unsupported``, ``Damaged``, ``StoreFailed``."""
    key = sealing.load_key(settings.key_file)
    database = Database(settings.database)
    database.migrate()
    return Site(settings, database, Sealer(key), fingerprint, clock)
