"""Snapshots of a real VM, copied into another repository and restored from there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart import repository
from headstart.repository import difference, snapshot, stats, verify
from headstart.repository.copying import Copied, Copying
from headstart.repository.repo import Repository
from headstart.restore import order, restoration
from headstart.store.local import LocalStore
from tests.e2e.rig import Rig
from tests.kit import compare, disks, stores, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
SIZE = 32 * MIB
FREE = 8 * MIB


def silent(done: int, total: int) -> None:
    pass


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Repository]:
    with repository.create(LocalStore(tmp_path / "second"), b"another", cost=stores.QUICK) as made:
        yield made


def copy(rig: Rig, target: Repository) -> list[Copied]:
    """All of them, as another process would."""
    with rig.repo() as source, repository.open(target.store, lambda: b"another") as other:
        copying = Copying(source, other, "host", itertools.count(1000).__next__, silent)
        return [copying.copy(manifest) for manifest in snapshot.all_manifests(source).manifests]


def test_what_was_copied_is_what_was_backed_up(tmp_path: Path, new_vm: Callable[..., Vm], target: Repository) -> None:
    machine = new_vm(disks.two_disks(tmp_path, SIZE, FREE))
    rig = Rig(tmp_path / "rig", machine)
    book = workloads.ledger(machine.guest, [machine.device("data")], offset=SIZE - FREE, slots=50, pause=0.01)
    first = rig.exact_backup()
    [full] = copy(rig, target)
    rig.precopy()
    book.wait_acknowledged(book.acknowledged() + 10)
    second = rig.exact_backup()
    there, copied = copy(rig, target)
    assert (there.there, copied.there, full.there) == (True, False, False)
    with rig.repo() as source:
        both = [snapshot.load(source, each.report.snapshot) for each in (first, second)]
        changed = sum(found.changed_bytes for found in difference.between(source, *both))
    assert 0 < copied.read_bytes <= changed < full.read_bytes
    with repository.open(target.store, lambda: b"another") as other:
        assert verify.verify_all(other, silent).findings == ()
        assert stats.take(other, silent).protected.snapshots == 2
        for each in (first, second):
            into = order.Order(tmp_path / each.report.snapshot, format="raw")
            done = restoration.restore(other, snapshot.load(other, each.report.snapshot), into, _quiet)
            # The first one's own images are gone with the second backup: those are restored anew.
            images = rig.restore(each.report.snapshot)
            assert done.disks
            for disk in done.disks:
                compare.assert_identical(disk.path, images[disk.name])


def _quiet(what: str, done: int, total: int) -> None:
    pass
