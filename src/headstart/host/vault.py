"""The repository of a host: opened when it is first needed, and again when its place comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable

from headstart import errors, repository
from headstart.host.locksmith import Locksmith
from headstart.load.bucket import Bucket
from headstart.repository import Repository
from headstart.store.contract import Store
from headstart.store.limited import LimitedStore


class Vault:
    """For several threads. ``bucket`` is what all of them together may send to the store."""

    def __init__(self, place: Callable[[], Store], password: Callable[[], bytes], bucket: Bucket) -> None:
        self._place = place
        self._password = password
        self._bucket = bucket
        self._lock = threading.Lock()
        self._opened: Repository | None = None
        self.locksmith = Locksmith()

    def repository(self) -> Repository:
        """Raises what opening it raises: trying again may succeed."""
        with self._lock:
            if self._opened is None:
                self._opened = repository.open(LimitedStore(self._place(), self._bucket), self._password)
            return self._opened

    def another(self) -> Repository:
        """Opened anew, for who changes what is in it: the caller closes it. Raises as ``repository``."""
        return repository.open(LimitedStore(self._place(), self._bucket), self._password)

    def failed(self, error: errors.HeadstartError) -> None:
        """A run failed: what was read of the repository when it was opened may not hold any longer."""
        if isinstance(error, errors.NoRepository | errors.StoreFailed | errors.Damaged):
            self.close()

    def close(self) -> None:
        # Runs that have it go on with it; it holds no connection.
        with self._lock:
            self._opened = None
