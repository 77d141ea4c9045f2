"""How much room the server's own disks have: that of ``--data``, and that of its objects where a directory has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.server.settings import LARGEST_OBJECT
from headstart.server.site import Site
from headstart.store.local import LocalStore

#: A disk with less than this counts as full: one large object, and the database's own work.
RESERVE_BYTES, RESERVE_FILES = LARGEST_OBJECT, 1000
DATA, STORE = "data", "store"


@dataclass(frozen=True, slots=True)
class Room:
    """Of the file system of ``place``. ``files``: how many more it takes; None: it does not count them."""

    place: str
    free: int
    size: int
    files: int | None
    read_only: bool

    @property
    def is_full(self) -> bool:
        """Writing fails there, or soon will."""
        few = self.files is not None and self.files < RESERVE_FILES
        return self.read_only or few or self.free < RESERVE_BYTES


def look(site: Site) -> list[Room]:
    """Those that can be looked at: of a place that is not there, ``Site.require_place`` tells."""
    return [room for place, path in _places(site) if (room := _room(place, path)) is not None]


def _places(site: Site) -> Iterator[tuple[str, Path]]:
    yield DATA, site.settings.data
    opened = site.place(())
    if isinstance(opened, LocalStore):
        yield STORE, opened.root


def _room(place: str, path: Path) -> Room | None:
    try:
        facts = os.statvfs(path)
    except OSError:
        return None
    files = facts.f_favail if facts.f_files else None
    read_only = bool(facts.f_flag & os.ST_RDONLY)
    return Room(place, facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize, files, read_only)
