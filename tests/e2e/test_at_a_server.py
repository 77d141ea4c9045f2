"""A real VM backed up into a server that is killed again and again meanwhile: every byte is what it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart import repository
from headstart.store.retrying import RetryingStore
from headstart.store.server import ServerStore
from headstart.wire.https import Client
from tests.e2e.rig import Rig
from tests.kit import stores, workloads
from tests.kit.disks import MIB
from tests.kit.server import Server
from tests.kit.vm import Vm

#: Between two kills the server is up for so long; it takes about as long to start.
UP_SECONDS = 5.0
#: Then it stays: on a busy machine, where all takes longer, there would be no end.
MOST = 5


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "server", anew=True) as running:
        yield running


class Killing:
    """A context manager: the server is killed and started again and again."""

    def __init__(self, server: Server) -> None:
        self.times = 0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killing:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while self.times < MOST and not self._stop.wait(UP_SECONDS):
            self._server.kill()
            self._server.start()
            self.times += 1


def test_rounds_and_backups_are_exact_though_the_server_is_killed(vm: Vm, tmp_path: Path, server: Server) -> None:
    tenant = server.tenant("killed")
    tenant.repository()
    store = RetryingStore(ServerStore(Client(tenant.host().identity), "main"))
    repository.create(store, stores.PASSWORD, cost=stores.QUICK).close()
    rig = Rig(tmp_path / "host", vm, agent=True)
    rig.store = store
    regions = [workloads.Region(vm.device("data"), 16 * MIB, 16 * MIB)]
    with workloads.churn(vm.guest, regions, rate=2 * MIB, write_size=16384, sync_every=4), Killing(server) as killing:
        for number in range(3):
            vm.guest.write(vm.device("data"), (40 + 4 * number) * MIB, 4 * MIB, seed=number)
            rig.precopy()
            rig.exact_backup()
    assert killing.times >= 3
    assert len(rig.snapshots()) == 3
