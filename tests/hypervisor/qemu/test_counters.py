"""QEMU's counters: histograms of ours and of others, names, and what a look costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.hypervisor import names
from headstart.hypervisor.contract import Remove, Start
from headstart.hypervisor.counters import DiskCounters
from headstart.hypervisor.qemu import counters
from tests.hypervisor.qemu import bare
from tests.hypervisor.qemu.bare import Bare
from tests.hypervisor.subjects import INSTALLATION
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.vm

DEVICE = "/machine/peripheral/dev-one/virtio-backend"
MARK = names.Track(INSTALLATION, "base", "0123abcd", "00").name


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Bare]:
    with bare.running(*bare.disk("one", bare.image(tmp_path / "image.qcow2", "5M"), "qcow2")) as running:
        yield running


def kept(vm: Bare) -> dict[str, list[int]]:
    """The bounds of each histogram of the disk."""
    (entry,) = [entry for entry in vm.qmp("query-blockstats") if entry.get("qdev")]
    found = {key: value["boundaries"] for key, value in entry["stats"].items() if key.endswith("_latency_histogram")}
    return {key.removesuffix("_latency_histogram"): bounds for key, bounds in found.items()}


def of(told: Any) -> DiskCounters:
    (disk,) = told.disks.values()
    assert isinstance(disk, DiskCounters)
    return disk


def test_a_look_changes_nothing(vm: Bare) -> None:
    assert of(counters.look(vm.monitor)).write_latency is None
    assert kept(vm) == {}


def test_a_connection_keeps_a_histogram_until_the_last_mark_goes(vm: Bare) -> None:
    with vm.machine() as machine:
        machine.transact([Start("dev-one", MARK)])
        # Its firmware may still look for something to boot.
        wait_until(lambda: of(machine.counters()) == of(machine.counters()))
        found = of(machine.counters()).write_latency
        assert found is not None and sum(found.counts) == 0
        assert len(found.counts) == len(found.bounds) + 1
        assert found.bounds[0] == pytest.approx(1e-4) and found.bounds[-1] == pytest.approx(10)
    assert list(kept(vm)) == ["wr"]
    assert of(counters.look(vm.monitor)).write_latency is not None
    with vm.machine() as machine:
        machine.transact([Start("dev-one", "another")])
        machine.transact([Remove("dev-one", "another")])
        assert list(kept(vm)) == ["wr"]
        machine.transact([Remove("dev-one", MARK)])
    assert kept(vm) == {}


@pytest.mark.parametrize("kind", ["write", "read", "flush"])
def test_the_histograms_of_others_are_theirs(vm: Bare, kind: str) -> None:
    vm.qmp("block-latency-histogram-set", **{"id": DEVICE, f"boundaries_{kind}": [1000, 2000]})
    before = kept(vm)
    with vm.machine() as machine:
        machine.transact([Start("dev-one", MARK)])
        found = of(machine.counters()).write_latency
        assert (found is not None) == (kind == "write")
        machine.transact([Remove("dev-one", MARK)])
    assert kept(vm) == before


def test_a_histogram_of_ours_that_somebody_added_to_stays(vm: Bare) -> None:
    with vm.machine() as machine:
        machine.transact([Start("dev-one", MARK)])
        machine.counters()
        vm.qmp("block-latency-histogram-set", id=DEVICE, boundaries_read=[1000])
        machine.transact([Remove("dev-one", MARK)])
    assert set(kept(vm)) == {"rd", "wr"}


def test_a_monitor_that_is_in_use_is_not_waited_for_long(vm: Bare) -> None:
    with vm.machine():
        begun = time.monotonic()
        with pytest.raises(errors.Unreachable):
            counters.look(vm.monitor)
        assert time.monotonic() - begun < 3
    assert counters.look(vm.monitor).disks


@pytest.mark.parametrize(
    "arguments",
    [
        "-drive if=none,id=drv,format=raw,file=ONE -device virtio-blk-pci,drive=drv",
        "-drive if=virtio,format=raw,file=ONE -drive if=ide,format=raw,file=TWO",
        "-blockdev driver=file,filename=ONE,node-name=given -device virtio-blk-pci,drive=given",
        "-blockdev driver=file,filename=ONE,node-name=given -device virtio-blk-pci,drive=given,serial=ser,id=dev.1",
        "-cdrom ONE -drive if=none,format=raw,id=unused,file=TWO -device virtio-scsi-pci -device scsi-cd,id=empty",
    ],
)
def test_disks_are_named_as_in_the_inventory(tmp_path: Path, arguments: str) -> None:
    one, two = (str(bare.image(tmp_path / name, "5M", "raw")) for name in ("one", "two"))
    words = arguments.replace("ONE", one).replace("TWO", two).split()
    with bare.running("-S", *words) as vm, vm.machine() as machine:
        found = machine.inventory()
        told = machine.counters().disks
    # One is in no device, the other one has nothing in it.
    left = {each.name for each in found.left_out} - {"unused", "empty"}
    assert set(told) == {disk.name for disk in found.disks} | left


def test_what_it_costs(vm: Bare) -> None:
    """Milliseconds: it is asked for several times a second, and a look every ten seconds."""
    began = time.monotonic()
    for _ in range(10):
        counters.look(vm.monitor)
    looked = (time.monotonic() - began) / 10
    with vm.machine() as machine:
        machine.counters()
        began = time.monotonic()
        for _ in range(100):
            machine.counters()
        asked = (time.monotonic() - began) / 100
    print(f"a look {looked * 1e3:.1f} ms, counters {asked * 1e3:.2f} ms")
    assert looked < 0.25 and asked < 0.05
