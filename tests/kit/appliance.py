"""Appliances as threads of the tests, with a store that can be told to fail, and everything real between."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import repository
from headstart.appliance import keys
from headstart.appliance.addresses import Address
from headstart.appliance.service import Service
from headstart.repository import Repository
from headstart.store.contract import Store
from tests.kit import stores


@dataclass(frozen=True, slots=True)
class Hired:
    """An appliance that serves, and how a host reaches it."""

    service: Service
    address: Address
    repo: Repository


@contextlib.contextmanager
def serving(folder: Path, store: Store, sessions: int = 4) -> Iterator[Hired]:
    """``folder`` gets keys if it has none. The repository in ``store`` is opened once more, as by another machine."""
    if not (folder / keys.HOST).exists():
        keys.make(folder)
    with repository.open(store, lambda: stores.PASSWORD) as repo:
        service = Service(repo, folder / keys.APPLIANCE, "127.0.0.1", 0, sessions)
        thread = threading.Thread(target=service.serve, daemon=True)
        thread.start()
        try:
            yield Hired(service, Address("127.0.0.1", service.port, folder / keys.HOST), repo)
        finally:
            service.stop()
            thread.join()
