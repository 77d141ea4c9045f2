"""What a guest feels when the store, the scratch or the spool is in trouble: no failed write, at most one stall that is
no longer than the filter's time-out, no pause but ours, which is short. Told by what writes in the guest, and by QEMU.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart import errors
from headstart.backup.complete import Options
from headstart.hypervisor.qemu.pull import CBW_SECONDS
from headstart.load.bucket import Bucket
from headstart.store.limited import LimitedStore
from tests.e2e.rig import Rig
from tests.kit import disks, places, qmp, stores, workloads
from tests.kit.vm import Vm

pytestmark = pytest.mark.vm

MIB = disks.MIB
NAMES = ("one", "two")
SIZE = 24 * MIB
#: Longer than anything that a busy host does to a guest, and shorter than a time-out.
STALL_SECONDS = 2.0
#: A time-out is noticed so late at most, on a busy host.
LATE_SECONDS = 1.0
PAUSE_SECONDS = 0.05
PLAIN = Options(plain=True, settle=False)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("felt")
    pair = [disks.Disk(disks.make_filled(folder / name, SIZE, seed=3), "raw", name) for name in NAMES]
    with Vm(pair) as running:
        yield running


@pytest.fixture
def rig(tmp_path: Path, vm: Vm) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", vm, qga=False)
    made.backup()
    yield made
    made.release()


@dataclass(frozen=True, slots=True)
class Felt:
    """By disk: how long the guest's writes with their fsync took; and for how long QEMU stood still each time."""

    writes: Mapping[str, list[float]]
    pauses: list[float]

    def stalls(self, disk: str) -> list[float]:
        return [seconds for seconds in self.writes[disk] if seconds > STALL_SECONDS]


@pytest.fixture
def felt(vm: Vm) -> Iterator[Callable[[], Felt]]:
    """Something writes everywhere on both disks. Call it to see what it felt since the test began; at the end no write
    has failed, and all of the promise holds."""
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(
                workloads.churn(
                    vm.guest,
                    [workloads.Region(vm.device(name), 0, SIZE)],
                    rate=2 * MIB,
                    write_size=64 * 1024,
                    seed=number,
                )
            )
            for number, name in enumerate(NAMES, 1)
        }
        began, seen = time.monotonic(), len(vm.events("STOP"))

        def now() -> Felt:
            writes = {name: [took for _, took in each.samples(since=began)] for name, each in running.items()}
            return Felt(writes, pauses(vm)[seen:])

        yield now
        found = now()
        # Leaving the workloads fails if one of their writes did.
    assert not vm.events("BLOCK_IO_ERROR")
    assert vm.qmp("query-status")["status"] == "running"
    for name in NAMES:
        stalls = found.stalls(name)
        print(f"{name}: {len(found.writes[name])} writes, the longest {max(found.writes[name]):.2f} s")
        assert len(stalls) <= 1 and all(each < CBW_SECONDS + LATE_SECONDS for each in stalls), stalls
    print("pauses: " + ", ".join(f"{each * 1000:.0f} ms" for each in found.pauses))
    assert all(each <= PAUSE_SECONDS for each in found.pauses), found.pauses


def pauses(vm: Vm) -> list[float]:
    """Seconds from each stop to the next resume, by QEMU's clock."""
    stops, ends = ([qmp.moment_of(event) for event in vm.events(name)] for name in ("STOP", "RESUME"))
    return [next(end for end in ends if end >= stop) - stop for stop in stops]


def writing(felt: Callable[[], Felt], seconds: float = 1.0) -> None:
    """The guest goes on writing for so long."""
    before = felt()
    time.sleep(seconds)
    after = felt()
    assert all(len(after.writes[name]) > len(before.writes[name]) for name in NAMES)


# -- the store


def test_a_store_that_is_full(rig: Rig, felt: Callable[[], Felt]) -> None:
    """Of a pack it takes a piece and then no more."""
    repository = rig.folder / "repository"
    with places.small(repository, 40 * MIB):
        before = rig.snapshots()
        filler = places.fill(repository)
        os.truncate(filler, filler.stat().st_size - MIB)
        writing(felt, 4)
        with pytest.raises(errors.NoSpace):
            rig.precopy()
        with pytest.raises(errors.NoSpace):
            rig.backup(PLAIN)
        writing(felt)
        assert rig.snapshots() == before
        filler.unlink()
        rig.backup()


def test_a_store_whose_disk_fails(rig: Rig, felt: Callable[[], Felt], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a pack, after a piece of it was written."""
    write, pieces = os.write, []

    def failing(file: int, data: memoryview) -> int:
        if len(data) < 256 * 1024:
            return write(file, data)
        pieces.append(len(data))
        if len(pieces) % 2 == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(file, data[: 64 * 1024])

    before = rig.snapshots()
    writing(felt, 2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", failing)
        with pytest.raises(errors.StoreFailed, match="Input/output error"):
            rig.backup(PLAIN)
    assert len(pieces) == 2
    assert rig.snapshots() == before
    rig.backup()
    writing(felt)


@pytest.mark.parametrize("verb", ["precopy", "backup"])
def test_a_store_that_hangs(rig: Rig, felt: Callable[[], Felt], verb: str) -> None:
    faulty = stores.FaultyStore(rig.store)
    rig.store, until = faulty, threading.Event()
    faulty.plan("create", stores.hang(until), "packs/")
    released = threading.Timer(6, until.set)
    released.start()
    if verb == "precopy":
        rig.precopy()
    else:
        rig.backup(PLAIN)
    assert until.is_set(), "it was to hang"
    writing(felt)


def test_a_store_that_takes_a_mebibyte_a_second(rig: Rig, felt: Callable[[], Felt]) -> None:
    writing(felt, 10)
    rig.store = LimitedStore(rig.store, Bucket(rate=MIB))
    began = time.monotonic()
    window = rig.backup(PLAIN).window_seconds
    assert time.monotonic() - began > window + 2, "it was to be slow"
    writing(felt)


def test_a_store_that_loses_a_pack(rig: Rig, felt: Callable[[], Felt]) -> None:
    faulty = stores.FaultyStore(rig.store)
    rig.store = faulty
    faulty.plan("create", stores.forget, "packs/")
    before = rig.snapshots()
    with pytest.raises(errors.StoreFailed, match="lost"):
        rig.backup(PLAIN)
    assert rig.snapshots() == before
    rig.backup()
    writing(felt)


# -- scratch and spool


@pytest.fixture
def scratch(rig: Rig) -> Iterator[Path]:
    """On a disk of its own."""
    with places.disk(rig.scratch, 512 * MIB):
        yield rig.scratch


def test_a_scratch_that_fills_up(rig: Rig, scratch: Path, felt: Callable[[], Felt]) -> None:
    def fill(_: Mapping[str, str]) -> None:
        places.fill(scratch)
        writing(felt, 2)

    with pytest.raises(errors.PointLost):
        rig.backup(PLAIN, after_thaw=fill)
    (scratch / "filler").unlink()
    rig.backup(PLAIN)
    writing(felt)


def test_a_scratch_that_hangs(rig: Rig, scratch: Path, felt: Callable[[], Felt]) -> None:
    """The one write that waits for it waits until the time-out."""

    def hang(_: Mapping[str, str]) -> None:
        with places.hanging(scratch):
            time.sleep(2 * CBW_SECONDS)
            writing(felt)

    with pytest.raises(errors.PointLost):
        rig.backup(PLAIN, after_thaw=hang)
    assert any(felt().stalls(name) for name in NAMES), "nothing waited: the scratch did not hang"
    rig.backup(PLAIN)


def test_a_scratch_and_spool_that_are_slow(rig: Rig, scratch: Path, felt: Callable[[], Felt]) -> None:
    """Each write to them waits for a quarter of a second: nothing breaks, and the guest pays once for a block."""
    with places.slow(scratch):
        rig.backup(PLAIN, after_thaw=lambda _: writing(felt, 2))
        writing(felt)
    assert not any(felt().stalls(name) for name in NAMES)


def test_a_spool_that_fills_up(rig: Rig, scratch: Path, felt: Callable[[], Felt]) -> None:
    def fill(_: Mapping[str, str]) -> None:
        places.fill(scratch)

    with pytest.raises((errors.NoSpace, errors.PointLost)):
        rig.backup(PLAIN, before_release=fill)
    (scratch / "filler").unlink()
    rig.backup(PLAIN)
    writing(felt)


def test_a_spool_that_hangs(rig: Rig, scratch: Path, felt: Callable[[], Felt]) -> None:
    """Which is on the disk of the scratch files: the point in time breaks, or is read to its end before."""
    held = contextlib.ExitStack()

    def hang(_: Mapping[str, str]) -> None:
        held.enter_context(places.hanging(scratch))
        threading.Timer(2 * CBW_SECONDS, held.close).start()

    began = time.monotonic()
    with contextlib.suppress(errors.PointLost):
        rig.backup(PLAIN, before_release=hang)
    assert time.monotonic() - began > 2 * CBW_SECONDS, "nothing waited: the spool did not hang"
    rig.backup(PLAIN)
    writing(felt)
