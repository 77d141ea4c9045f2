"""The difference of two snapshots."""

from __future__ import annotations

import random

from headstart import units
from headstart.extents import Extent
from headstart.repository import difference
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

SIZE = 3000 * BLOCK + 512


def test_nothing_differs(repo: Repository) -> None:
    image = Image(SIZE, {1: noise(1)})
    one, other = samples.add_snapshot(repo, {"vda": image}), samples.add_snapshot(repo, {"vda": image})
    [found] = difference.between(repo, one, other)
    assert (found.extents, found.changed_bytes, found.size_before, found.size_after) == ((), 0, SIZE, SIZE)


def test_extents_are_joined_and_end_with_the_disk(repo: Repository) -> None:
    before = samples.add_snapshot(repo, {"vda": Image(SIZE, {1: noise(1), 2: noise(2), 9: noise(9)})})
    after = samples.add_snapshot(repo, {"vda": Image(SIZE, {2: noise(22), 9: noise(9), 3000: noise(3, 512)})})
    [found] = difference.between(repo, before, after)
    assert found.extents == (Extent(BLOCK, 2 * BLOCK), Extent(3000 * BLOCK, 512))
    assert found.changed_bytes == 2 * BLOCK + 512


def test_disks_that_only_one_has_and_disks_that_grow(repo: Repository) -> None:
    before = samples.add_snapshot(repo, {"old": Image(SIZE, {5: noise(5)}), "both": Image(2 * BLOCK, {0: noise(1)})})
    after = samples.add_snapshot(repo, {"new": Image(SIZE, {6: noise(6)}), "both": Image(SIZE, {0: noise(1)})})
    both, new, old = difference.between(repo, before, after)
    assert (both.disk, both.size_before, both.size_after, both.extents) == ("both", 2 * BLOCK, SIZE, ())
    assert (new.disk, new.size_before, new.extents) == ("new", None, (Extent(6 * BLOCK, BLOCK),))
    assert (old.disk, old.size_after, old.extents) == ("old", None, (Extent(5 * BLOCK, BLOCK),))


def test_any_two_images(repo: Repository) -> None:
    """Against the images themselves."""
    source = random.Random(5)
    for _ in range(20):
        images = [
            Image(
                blocks * BLOCK,
                {number: noise(source.randrange(3)) for number in range(blocks) if source.random() < 0.5},
            )
            for blocks in (source.randrange(1, 30), source.randrange(1, 30))
        ]
        manifests = [samples.add_snapshot(repo, {"vda": image}) for image in images]
        [found] = difference.between(repo, *manifests)
        told = {number for each in found.extents for number in range(each.start // BLOCK, each.end // BLOCK)}
        a, b = (image.contents for image in images)
        assert told == {number for number in range(30) if a.get(number) != b.get(number)}


def test_the_cost_grows_with_the_difference() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    contents = {number * 1024: noise(number, 512) for number in range(256)}
    one = samples.add_snapshot(repo, {"vda": Image(16 * units.TIB, contents)})
    other = samples.add_snapshot(repo, {"vda": Image(16 * units.TIB, contents | {7: noise(777)})})
    again = stores.reopened(repo)
    assert samples.known(again)
    before = store.bytes_read
    [found] = difference.between(again, one, other)
    assert found.extents == (Extent(7 * BLOCK, BLOCK),)
    assert store.bytes_read - before < 300_000
