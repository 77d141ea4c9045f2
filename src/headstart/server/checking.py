"""Packs that come are checked where the server can: by the digests in their own index, which the structure's key opens.

Without that key nothing is known of a pack but that it is what its client meant.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from headstart import errors
from headstart.repository import layout, sealed
from headstart.repository.keys import Secrets
from headstart.server import repositories, structure
from headstart.server.repositories import Place
from headstart.server.site import Site

#: Secrets of so many repositories are kept in the memory of a process: each costs 64 MiB for a moment to get.
_KEPT, _AT_ONCE = 1000, 4
#: Of a repository, and what it was given: another password is other secrets.
_Key = tuple[str, bytes]


class Wrong(errors.Usage):
    """What came is no pack of this repository."""


class Checker:
    """For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, Secrets] = OrderedDict()
        self._gates: dict[_Key, threading.Lock] = {}
        self._room = threading.BoundedSemaphore(_AT_ONCE)

    def check(self, site: Site, place: Place, key: str, data: bytes | bytearray) -> None:
        """Raises ``Wrong``. What is no pack, and what no key was given for, is let through."""
        if not (place.has_structure and key.startswith(layout.PACKS)):
            return
        secrets = self._secrets(site, place)
        if secrets is None:
            return
        try:
            sealed.check(secrets, key, data)
        except errors.Damaged as error:
            raise Wrong(f"{error} It was not stored.") from error

    def _secrets(self, site: Site, place: Place) -> Secrets | None:
        with site.database.read() as connection:
            wrapped = structure.sealed_password(connection, place)
        if wrapped is None:
            return None
        key = (place.id, wrapped)
        found, gate = self._look(key)
        if found is None:
            # One derives it for all that come to one repository at once; those of others do not wait.
            with gate, self._room:
                found, _ = self._look(key)
                if found is None:
                    found = structure.secrets(site, place, site.sealer.open(repositories.STRUCTURE, wrapped))
                    self._keep(key, found)
        return found

    def _look(self, key: _Key) -> tuple[Secrets | None, threading.Lock]:
        with self._lock:
            return self._known.get(key), self._gates.setdefault(key, threading.Lock())

    def _keep(self, key: _Key, found: Secrets) -> None:
        with self._lock:
            self._known[key] = found
            if len(self._known) > _KEPT:
                old, _ = self._known.popitem(last=False)
                self._gates.pop(old, None)
