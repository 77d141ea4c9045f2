"""What verify says about whom."""

from __future__ import annotations

import dataclasses

import pytest

from headstart import errors, repository, units
from headstart.extents import Extent
from headstart.repository import snapshot, tree, verify
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.repository.verify import Touched
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import aged, samples
from tests.repository.samples import BLOCK, Image, noise

IMAGE = Image(5000 * BLOCK - 512, {0: noise(0), 7: noise(7), 2000: noise(7), 4999: noise(9, BLOCK - 512)})


def flip(repo: Repository, chunk_id: bytes | None) -> str:
    """Damage one chunk; the name of its pack."""
    assert chunk_id is not None
    location = repo.index.find(chunk_id)
    assert location is not None
    name = f"packs/{location.pack_id.hex()}"
    samples.rewrite(repo, name, samples.flipped(repo.store.read(name), [location.frame.offset]))
    return name


def test_a_sound_repository(repo: Repository) -> None:
    samples.add_snapshot(repo, {"vda": IMAGE})
    progress: list[tuple[int, int]] = []
    report = verify.verify_all(repo, lambda done, total: progress.append((done, total)))
    assert (report.snapshots, report.findings) == (1, ())
    assert report.chunks == 3 + 1 + 3 + 1, "three leaves below one node, three contents, one attachment"
    assert progress[-1] == (report.bytes, report.bytes)
    assert sorted(progress) == progress


def test_an_empty_repository(repo: Repository) -> None:
    assert verify.verify_all(repo, samples.silent) == verify.Report(0, 0, 0, ())


def test_names_each_range_that_a_chunk_is_at(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE, "vdb": IMAGE})
    other = samples.add_snapshot(repo, {"vda": Image(10 * BLOCK, {1: noise(1)})})
    name = flip(repo, repo.chunk_id(noise(7)))
    report = verify.verify(repo, [made, other], samples.silent)
    places = (Extent(7 * BLOCK, BLOCK), Extent(2000 * BLOCK, BLOCK))
    [finding] = report.findings
    assert (finding.object, finding.touched) == (
        name,
        (Touched(made.id, "web", "vda", places), Touched(made.id, "web", "vdb", places)),
    )
    assert name in finding.message


def test_the_last_block_ends_with_the_disk(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    flip(repo, repo.chunk_id(noise(9, BLOCK - 512)))
    [finding] = verify.verify(repo, [made], samples.silent).findings
    assert finding.touched[0].extents == (Extent(4999 * BLOCK, BLOCK - 512),)


def test_a_damaged_leaf_touches_all_it_covers(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    visits = list(tree.visit(repo, made.disks[0].root, IMAGE.size, lambda node_id: True))
    last = next(visited.node_id for visited in visits if (visited.level, visited.index) == (0, 19))
    name = flip(repo, last)
    report = verify.verify(stores.reopened(repo), [made], samples.silent)
    [finding] = report.findings
    start = 19 * 256 * BLOCK
    assert (finding.object, finding.touched[0].extents) == (name, (Extent(start, IMAGE.size - start),))


def test_a_damaged_root_touches_the_whole_disk(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    flip(repo, made.disks[0].root)
    [finding] = verify.verify(repo, [made], samples.silent).findings
    assert finding.touched == (Touched(made.id, "web", "vda", (Extent(0, IMAGE.size),)),)


def test_a_missing_pack_and_everything_else_is_still_read(repo: Repository) -> None:
    lost = samples.add_snapshot(repo, {"vda": IMAGE})
    packs = samples.packs_of(repo)
    whole = samples.add_snapshot(repo, {"vda": Image(10 * BLOCK, {3: noise(33)})})
    for name in packs:
        repo.store.delete(name)
    report = verify.verify_all(stores.reopened(repo), samples.silent)
    assert sorted(finding.object for finding in report.findings) == packs
    assert {touched.snapshot for finding in report.findings for touched in finding.touched} == {lost.id, whole.id}
    assert {touched.name for finding in report.findings for touched in finding.touched} >= {"vda", "definition"}


def test_a_damaged_attachment(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    flip(repo, made.attachments[0].chunks[0])
    [finding] = verify.verify(repo, [made], samples.silent).findings
    assert finding.touched == (Touched(made.id, "web", "definition", ()),)


def test_a_damaged_manifest_is_a_finding(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    key = snapshot.key_of(made.id)
    samples.rewrite(repo, key, b"")
    report = verify.verify_all(repo, samples.silent)
    touched = Touched(made.id, "web", "vda", (Extent(0, IMAGE.size),))
    assert [(finding.object, finding.touched) for finding in report.findings] == [(key, (touched,))]


def test_damage_of_a_packs_own_index_touches_nobody(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    name = samples.packs_of(repo)[0]
    data = repo.store.read(name)
    samples.rewrite(repo, name, samples.flipped(data, [len(data) - 40]))
    [finding] = verify.verify(repo, [made], samples.silent).findings
    assert (finding.object, finding.touched) == (name, ())


def test_a_pack_whose_own_index_says_more_than_indexes_do(repo: Repository) -> None:
    """Every chunk that is listed reads well; but it is not the pack that was written."""
    with repo.writer(samples.ignore) as writer:
        samples.put(repo, writer, {0: noise(0)})
    [name] = samples.packs_of(repo)
    pack_id = bytes.fromhex(name.removeprefix("packs/"))
    assert aged.pack_of(repo, pack_id, ChunkClass.CONTENT, [noise(0)]) == repo.store.read(name)
    samples.rewrite(repo, name, aged.pack_of(repo, pack_id, ChunkClass.CONTENT, [noise(0), noise(1)]))
    assert [each.object for each in verify.verify_all(stores.reopened(repo), samples.silent).findings] == [name]


def test_shared_chunks_are_read_once() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    first = samples.add_snapshot(repo, {"vda": IMAGE})
    again = dataclasses.replace(first, id=snapshot.new_id())
    before = store.bytes_read
    one = verify.verify(repo, [first], samples.silent)
    cost = store.bytes_read - before
    both = verify.verify(repo, [first, again], samples.silent)
    assert (both.chunks, both.bytes) == (one.chunks, one.bytes)
    assert store.bytes_read - before == 2 * cost


def test_a_store_that_fails_ends_it(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    faulty = FaultyStore(repo.store)
    failing = repository.open(faulty, lambda: stores.PASSWORD)
    faulty.plan("read_range", stores.fail(errors.StoreFailed("connection lost")))
    with pytest.raises(errors.StoreFailed):
        verify.verify(failing, [made], samples.silent)


def test_a_disk_of_zeroes(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(units.TIB, {})})
    assert made.disks[0].root is None
    assert verify.verify(repo, [made], samples.silent).findings == ()
