"""The figures of a repository, against what was put into it."""

from __future__ import annotations

from headstart.repository import draft, stats
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.repository.writer import Cut
from tests.kit import stores
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

SIZE = 3000 * BLOCK + 512
ATTACHED = len(b"-m 256")


def take(repo: Repository) -> stats.Stats:
    return stats.take(repo, samples.silent)


def test_nothing(repo: Repository) -> None:
    found = take(repo)
    assert (found.protected, found.content, found.vms) == (stats.Protected(0, 0, 0), stats.Chunks(), ())
    assert (found.deduplication, found.compression) == (None, None)
    assert found.stored == sum(size for _, size in repo.store.list(""))


def test_what_is_protected_and_what_is_needed(repo: Repository) -> None:
    one = {0: noise(1), 1: noise(1), 2000: noise(2), 3000: noise(3, 512)}
    samples.add_snapshot(repo, {"vda": Image(SIZE, one)})
    samples.add_snapshot(repo, {"vda": Image(SIZE, one | {2000: noise(4)})}, created=2000.0)
    seen: list[tuple[int, int]] = []
    found = stats.take(repo, lambda done, total: seen.append((done, total)))
    assert found.protected == stats.Protected(2, 2 * SIZE, 2 * (4 * BLOCK + ATTACHED))
    assert (found.content.count, found.content.bytes) == (5, 3 * BLOCK + 512 + ATTACHED)
    assert found.content.stored == found.content.bytes + 5 * 16, "noise does not compress; each has a tag"
    # A root and three leaves; of the second snapshot a root and the leaf in the middle.
    assert (found.trees.count, found.spare) == (6, stats.Chunks())
    assert found.deduplication == found.protected.data / found.content.bytes
    assert found.compression is not None and 0.99 < found.compression < 1
    assert seen == [(SIZE, 2 * SIZE), (2 * SIZE, 2 * SIZE)]
    [web] = found.vms
    assert (web.vm, web.protected, web.needed) == ("web", found.protected, found.content)
    assert web.alone.stored == found.content.stored + found.trees.stored


def test_what_only_one_vm_needs(repo: Repository) -> None:
    common = {number: noise(number) for number in range(10)}
    samples.add_snapshot(repo, {"vda": Image(SIZE, common | {2000: noise(100)})}, "web")
    samples.add_snapshot(repo, {"vda": Image(SIZE, common | {2000: noise(200), 2001: noise(201)})}, "db")
    samples.add_snapshot(repo, {"vda": Image(SIZE, {2000: noise(200)})}, "cache")
    vms = {each.vm: each for each in take(repo).vms}
    # With a root and a leaf of its own, the first leaf is shared.
    assert (vms["web"].alone.count, vms["db"].alone.count, vms["cache"].alone.count) == (3, 3, 2)
    assert (vms["web"].needed.count, vms["db"].needed.count, vms["cache"].needed.count) == (12, 13, 2)


def test_the_same_counts_whatever_is_shared(repo: Repository) -> None:
    """Subtrees that occur twice on a disk, and in other snapshots, are walked once and count each time."""
    leaf = {number: noise(number % 3) for number in range(0, 1024, 100)}
    twice = leaf | {number + 1024: data for number, data in leaf.items()}
    samples.add_snapshot(repo, {"vda": Image(SIZE, twice), "vdb": Image(SIZE, leaf)})
    samples.add_snapshot(repo, {"vda": Image(SIZE, twice)}, created=2000.0)
    found = take(repo)
    assert found.protected.data == (5 * len(leaf)) * BLOCK + 2 * ATTACHED
    assert found.content.count == 4


def test_what_shares_a_frame_has_its_share_of_it(repo: Repository) -> None:
    contents = {number: noise(number, 4096) for number in range(4)}
    with repo.writer(samples.ignore) as writer:
        cuts = [Cut(repo.chunk_id(data), 4096 * number, 4096) for number, data in contents.items()]
        writer.put_many(ChunkClass.CONTENT, b"".join(contents.values()), cuts)
    samples.add_snapshot(repo, {"vda": Image(SIZE, {number: contents[number] for number in (0, 1, 2)})}, "web")
    samples.add_snapshot(repo, {"vda": Image(SIZE, {5: contents[3]})}, "db")
    vms = {each.vm: each for each in take(repo).vms}
    attached = ATTACHED + 16
    assert (vms["web"].needed.stored, vms["db"].needed.stored) == (3 * 4096 + 12 + attached, 4096 + 4 + attached)


def test_trees_with_inner_nodes_on_inner_nodes() -> None:
    repo = samples.small_tree_repository()
    contents = {number: noise(number, 64) for number in range(0, 40, 3)}
    samples.add_snapshot(repo, {"vda": Image(40 * BLOCK, contents)})
    samples.add_snapshot(repo, {"vda": Image(40 * BLOCK, contents | {1: noise(1)})}, created=2000.0)
    assert take(repo).protected.data == (2 * len(contents) + 1) * BLOCK + 2 * ATTACHED


def test_drafts_are_spare(repo: Repository) -> None:
    with repo.writer(samples.ignore) as writer:
        samples.put(repo, writer, {0: noise(0)})
    draft.begin(repo, "web", "host", 1.0)
    found = take(repo)
    assert (found.spare.count, found.spare.bytes) == (1, BLOCK)
    assert found.objects["drafts"].count == 1
    assert sum(each.bytes for each in found.objects.values()) == found.stored


def test_without_the_content_secret(repo: Repository) -> None:
    samples.add_snapshot(repo, {"vda": Image(SIZE, {0: noise(1)})})
    whole = take(repo)
    repo.secrets = repo.secrets.structure_alone()
    assert take(repo) == whole


def test_what_is_damaged_is_named_and_left_out(repo: Repository) -> None:
    samples.add_snapshot(repo, {"vda": Image(SIZE, {0: noise(1)})}, "web")
    lost = samples.packs_of(repo)
    samples.add_snapshot(repo, {"vda": Image(SIZE, {0: noise(2)})}, "db")
    for name in lost:
        repo.store.delete(name)
    found = take(stores.reopened(repo))
    assert {str(error.facts["object"]) for error in found.damaged} <= set(lost)
    assert found.damaged
    assert {each.vm: each.protected.data for each in found.vms} == {"web": ATTACHED, "db": BLOCK + ATTACHED}
