"""Twenty writers on one repository in a directory: no snapshot is lost, and no more is stored than has to be.

What has to be: each chunk once, and once more by each who has it in hand before somebody else's is durable and listed,
which takes half a minute at most. The next collection of garbage frees that.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest

from headstart import repository
from headstart.repository import collect, layout, snapshot, verify, writer
from headstart.repository.collect import Order
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.kit.waiting import wait_until
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

WRITERS = 20
BLOCKS = 24
SIZE = BLOCKS * BLOCK


def content(writer: int, *, same: bool) -> dict[int, bytes]:
    """Noise, so that it is stored as long as it is."""
    return {number: noise(number if same else 1000 * writer + number) for number in range(BLOCKS)}


def write(place: Path, writer: int, same: bool, begin: multiprocessing.synchronize.Barrier) -> None:
    with repository.open(LocalStore(place), lambda: stores.PASSWORD) as repo:
        begin.wait(60)
        samples.add_snapshot(repo, {"a": Image(SIZE, content(writer, same=same))}, f"vm{writer}")


def run(place: Path, writers: Sequence[int], *, same: bool) -> None:
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(len(writers))
    running = [context.Process(target=write, args=(place, each, same, begin)) for each in writers]
    for each in running:
        each.start()
    for each in running:
        each.join(120)
        assert each.exitcode == 0


def listed(repo: repository.Repository) -> int:
    """The chunks that one who comes now knows of."""
    with stores.reopened(repo) as newcomer:
        return samples.known(newcomer)


@pytest.mark.parametrize("same", [False, True], ids=["different", "same"])
def test_no_snapshot_is_lost_and_little_is_stored_twice(tmp_path: Path, same: bool) -> None:
    place = tmp_path / "repository"
    with stores.new_repository(LocalStore(place)):
        run(place, range(WRITERS), same=same)
    with repository.open(LocalStore(place), lambda: stores.PASSWORD) as repo:
        listing = snapshot.all_manifests(repo)
        assert sorted(each.vm for each in listing.manifests) == sorted(f"vm{writer}" for writer in range(WRITERS))
        for each in listing.manifests:
            wanted = content(int(each.vm[2:]), same=same)
            assert samples.restored(repo, each.disks[0]).contents == wanted
        stored = sum(size for _, size in repo.store.list(layout.PACKS))
        unavoidable = SIZE * WRITERS  # all begin at once: with the same content, none knows of the others in time
        assert stored < 1.05 * unavoidable + WRITERS * 8192
        for _ in range(2):
            collect.collect(repo, Order(quarantine=0))
    with repository.open(LocalStore(place), lambda: stores.PASSWORD) as repo:
        stored = sum(size for _, size in repo.store.list(layout.PACKS))
        assert stored < 1.05 * (SIZE if same else unavoidable) + WRITERS * 8192, "what was stored twice is garbage"
        assert verify.verify_all(repo, lambda done, total: None).findings == ()


def test_what_one_has_stored_another_one_soon_knows(small_packs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while both go on."""
    monkeypatch.setattr(writer, "_LISTED_SECONDS", 0.0)
    with (
        stores.new_repository() as one,
        stores.reopened(one) as other,
        one.writer(samples.ignore) as first,
        other.writer(samples.ignore) as second,
    ):
        samples.put(one, first, {number: noise(number) for number in range(40)})
        wait_until(lambda: listed(one) > 30)
        samples.put(other, second, {number: noise(number) for number in range(100, 104)})
        wait_until(lambda: samples.known(other) > 30)
        samples.put(other, second, {number: noise(number) for number in range(30)})
        second.flush()
        assert second.stored_bytes < 8 * BLOCK
