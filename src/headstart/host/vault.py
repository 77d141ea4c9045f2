"""The repository of a host: opened when it is first needed, and again when its place comes back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from headstart import errors, repository
from headstart.host.locksmith import Locksmith
from headstart.load import network
from headstart.load.bucket import Bucket
from headstart.repository import Repository
from headstart.store.contract import Store
from headstart.store.limited import LimitedStore

_log = logging.getLogger("headstart.host")


class Vault:
    """For several threads. ``address`` is the repository's, for a child that opens it as well; ``bucket`` what all of
    them together may send to the store; ``cache`` a directory for what is known of the index."""

    def __init__(
        self,
        place: Callable[[], Store],
        password: Callable[[], bytes],
        bucket: Bucket,
        cache: Path | None = None,
        address: str = "",
    ) -> None:
        self.address = address
        self.cache = cache
        self._place = place
        self._password = password
        self._bucket = bucket
        self._lock = threading.Lock()
        self._opened: Repository | None = None
        self.locksmith = Locksmith()
        self._told: OSError | None = None
        #: Of this host, towards the store, as it was when that was opened; empty: it is on this machine.
        self.interface = ""

    @property
    def is_at_server(self) -> bool:
        """Of ours: it forgets and collects by itself, and hosts delete nothing there."""
        return self.address.startswith(("https://", "http://"))

    def repository(self) -> Repository:
        """Raises what opening it raises: trying again may succeed."""
        with self._lock:
            if self._opened is None:
                self._opened = self.another()
            self._tell(self._opened.holdings.cache_failure)
            return self._opened

    def another(self) -> Repository:
        """Opened anew, for who changes what is in it: the caller closes it. Raises as ``repository``."""
        store = LimitedStore(self._place(), self._bucket)
        opened = repository.open(store, self._password)
        # Here, where names are looked up anyway, and not by who looks at the load and must not wait.
        self.interface = network.interface_towards(store.host) if store.host else ""
        if self.cache is not None:
            opened.holdings.use_cache(self.cache)
        return opened

    def _tell(self, failure: OSError | None) -> None:
        if failure is not None and failure is not self._told:
            _log.warning("The cache %s is not used, which costs time and memory: %s.", self.cache, failure)
            self._told = failure

    def failed(self, error: errors.HeadstartError) -> None:
        """A run failed: what was read of the repository when it was opened may not hold any longer."""
        if isinstance(error, errors.NoRepository | errors.StoreFailed | errors.Damaged):
            self.close()

    def close(self) -> None:
        # Runs that have it go on with it; it holds no connection.
        with self._lock:
            self._opened = None
