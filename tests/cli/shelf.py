"""A repository with snapshots for the command line to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headstart import repository
from headstart.repository.manifest import Manifest
from headstart.state.journal import Journal
from headstart.state.values import Vm
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.kit.cli import Cli
from tests.restore import stored

SYSTEM = stored.content(1, 0, 2, 3, tail=512)
DATA = stored.content(0, 0, 9)


@dataclass(frozen=True, slots=True)
class Shelf:
    cli: Cli

    def add(
        self,
        vm: str = "web",
        disks: Mapping[str, bytes] | None = None,
        files: Mapping[str, bytes] | None = None,
        created: float = 1_700_000_000.0,
    ) -> Manifest:
        """A snapshot with the disks ``system`` and ``data``, if no others are given."""
        with repository.open(LocalStore(self.cli.repository), lambda: stores.PASSWORD) as repo:
            return stored.store_snapshot(repo, disks or {"system": SYSTEM, "data": DATA}, files, vm, created)

    def add_vm(self, name: str, monitor: Path) -> None:
        """As ``vm add`` would have done while the VM ran."""
        with Journal.open(self.cli.state) as journal:
            journal.add_vm(Vm(name, monitor))
