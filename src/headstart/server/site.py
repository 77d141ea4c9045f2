"""What all requests of a server process share."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sqlalchemy import select

from headstart import durable, errors, store
from headstart.server import sealing, tables
from headstart.server.database import Database
from headstart.server.sealing import Sealer
from headstart.server.settings import Settings
from headstart.store.contract import Store
from headstart.store.local import LocalStore

#: In the server's data: of who may ask for its metrics.
TOKEN_FILE = "metrics.token"
#: In the store.
MARKER = "site/marker"
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
    #: Of who may ask for the metrics of the site.
    metrics_token: str = ""
    _opened: dict[str, Store] = field(default_factory=dict)

    def place(self, path: Iterable[str]) -> Store:
        """Where the objects below ``path`` lie. It stays open: connections and folders are made once."""
        url = "/".join([self.settings.store.rstrip("/"), *path])
        found = self._opened.get(url)
        if found is None:
            found = self._opened.setdefault(url, self.open_store(url, PATIENCE))
        return found

    def require_place(self) -> None:
        """Raises ``StoreFailed`` where a directory of the store is not the one that this site began with: what is put
        into a place that is not mounted would be gone when it is."""
        opened = self.place(())
        if isinstance(opened, LocalStore) and not (opened.root / MARKER).exists():
            raise errors.StoreFailed(f"The place of the server's objects, {opened.root}, is not there. Is it mounted?")


def _mark(site: Site) -> None:
    """A directory gets its marker with the first site in it, and never again."""
    opened = site.place(())
    if not isinstance(opened, LocalStore) or (opened.root / MARKER).exists():
        return
    with site.database.read() as connection:
        if connection.execute(select(tables.repositories.c.id).limit(1)).first() is None:
            opened.create(MARKER, b"The objects of a Headstart server are here.\n")


def _token(settings: Settings) -> str:
    path = settings.data / TOKEN_FILE
    if not path.exists():
        durable.replace(path, secrets.token_hex(32).encode())
    return path.read_text().strip()


def open_site(settings: Settings, clock: Callable[[], float] = time.time, fingerprint: str = "") -> Site:
    """The database is made, or brought up to date. Raises ``Usage``, ``Unsupported``, ``Damaged``, ``StoreFailed``."""
    key = sealing.load_key(settings.key_file)
    database = Database(settings.database)
    database.migrate()
    site = Site(settings, database, Sealer(key), fingerprint, clock, metrics_token=_token(settings))
    _mark(site)
    return site
