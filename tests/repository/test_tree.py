"""Image trees against a dictionary of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import errors, units
from headstart.repository import tree
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK

Model = dict[int, bytes]
#: Few distinct chunks, so that subtrees are often equal.
CHUNKS = [bytes([number]) * 32 for number in range(3)]


def apply(
    repo: Repository, root: bytes | None, size_old: int, size: int, changes: dict[int, bytes | None]
) -> bytes | None:
    with repo.writer(samples.ignore) as writer:
        return tree.update(repo, writer, root, size_old, size, sorted(changes.items()))


def new_model(model: Model, count: int, changes: dict[int, bytes | None]) -> Model:
    merged = {block: chunk for block, chunk in model.items() if block < count} | changes
    return {block: chunk for block, chunk in merged.items() if chunk is not None}


@st.composite
def step(draw: st.DrawFn) -> tuple[int, dict[int, bytes | None]]:
    """A number of blocks, and changes on them."""
    count = draw(st.sampled_from([0, 1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 33, 64, 70]) | st.integers(0, 70))
    if not count:
        return 0, {}
    return count, draw(st.dictionaries(st.integers(0, count - 1), st.none() | st.sampled_from(CHUNKS), max_size=12))


@settings(max_examples=100, deadline=None)
@given(st.lists(step(), min_size=1, max_size=5))
def test_tree_is_a_dictionary(steps: list[tuple[int, dict[int, bytes | None]]]) -> None:
    repo = samples.small_tree_repository()
    root: bytes | None = None
    before: Model = {}
    size_old = 0
    for count, changes in steps:
        size = count * BLOCK
        old_root = root
        root = apply(repo, old_root, size_old, size, changes)
        model = new_model(before, count, changes)
        assert dict(tree.walk(repo, root, size)) == model
        assert (root is None) == (not model)
        assert [*tree.walk(repo, root, size)] == sorted(model.items())
        wanted = list(range(0, 80, 3))
        assert list(tree.lookup(repo, root, size, wanted)) == [(block, model.get(block)) for block in wanted]
        differing = [block for block in range(80) if model.get(block) != before.get(block)]
        assert list(tree.diff(repo, old_root, size_old, root, size)) == differing
        assert list(tree.diff(repo, root, size, old_root, size_old)) == differing
        assert root == apply(repo, None, 0, size, dict(model)), "the tree depends on what it holds only"
        before, size_old = model, size


@given(st.dictionaries(st.integers(0, 69), st.sampled_from(CHUNKS)), st.integers(0, 75), st.none() | st.integers(0, 75))
def test_walking_a_part(model: Model, first: int, count: int | None) -> None:
    repo = samples.small_tree_repository()
    root = apply(repo, None, 0, 70 * BLOCK, dict(model))
    end = 75 if count is None else first + count
    expected = [(block, model[block]) for block in sorted(model) if first <= block < end]
    assert list(tree.walk(repo, root, 70 * BLOCK, first, count)) == expected


@pytest.mark.parametrize(
    "changes", [[(3, None), (3, None)], [(3, None), (2, None)], [(-1, None)], [(10, CHUNKS[0])], [(99, None)]]
)
def test_refuses_changes_out_of_order_or_off_the_disk(changes: list[tuple[int, bytes | None]]) -> None:
    repo = samples.small_tree_repository()
    with pytest.raises(ValueError, match="on a disk of 10 blocks"), repo.writer(samples.ignore) as writer:
        tree.update(repo, writer, None, 0, 10 * BLOCK - 1, changes)


def test_a_shrunken_disk_must_bring_its_cut_block() -> None:
    """Else growing again would bring back what was cut off."""
    repo = samples.small_tree_repository()
    root = apply(repo, None, 0, 10 * BLOCK, {7: CHUNKS[0]})
    with pytest.raises(ValueError, match="block 7 was cut"):
        apply(repo, root, 10 * BLOCK, 7 * BLOCK + 512, {})
    assert apply(repo, root, 10 * BLOCK, 7 * BLOCK, {}) is None
    assert apply(repo, root, 10 * BLOCK, 8 * BLOCK, {}) is not None
    assert apply(repo, root, 10 * BLOCK, 6 * BLOCK + 512, {}) is None
    root = apply(repo, root, 10 * BLOCK, 7 * BLOCK + 512, {7: CHUNKS[1]})
    assert dict(tree.walk(repo, root, 7 * BLOCK + 512)) == {7: CHUNKS[1]}


@pytest.mark.parametrize("cut", [0, 1, 4])
@pytest.mark.parametrize("changes", [{}, {2: CHUNKS[1]}])
def test_whichever_block_is_cut_must_be_brought(cut: int, changes: dict[int, bytes | None]) -> None:
    repo = samples.small_tree_repository()
    root = apply(repo, None, 0, 10 * BLOCK, {cut: CHUNKS[0]})
    before = {block: chunk for block, chunk in changes.items() if block < cut}
    with pytest.raises(ValueError, match=rf"^block {cut} was cut and must be among the changes$"):
        apply(repo, root, 10 * BLOCK, cut * BLOCK + 512, before)


def test_zeroes_cost_nothing() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    assert apply(repo, None, 0, 6 * units.TIB, {}) is None
    assert apply(repo, None, 0, 6 * units.TIB, dict.fromkeys(range(0, 10**8, 10**6))) is None
    assert store.count("create", "packs/") == 0
    assert list(tree.walk(repo, None, 6 * units.TIB)) == []


def measured(store: FaultyStore, act: Callable[[], object]) -> tuple[int, int]:
    """Requests and bytes read."""
    requests, read = len(store.requests), store.bytes_read
    act()
    return len(store.requests) - requests, store.bytes_read - read


@pytest.mark.parametrize("size", [10 * units.GIB, 6 * units.TIB])
def test_work_grows_with_change_not_with_the_disk(size: int) -> None:
    """A 64 MiB area in a disk with 500 areas written, then one block of it changed."""
    store = FaultyStore(MemoryStore())
    with stores.new_repository(store) as repo:
        blocks = range(0, size // BLOCK, size // BLOCK // 500)
        root = apply(repo, None, 0, size, dict.fromkeys(blocks, CHUNKS[0]))
    with stores.reopened(repo) as repo:
        before = len(store.requests)
        with repo.writer(samples.ignore) as writer:
            changed = tree.update(repo, writer, root, size, size, [(blocks[77], CHUNKS[1])])
        assert writer.stored_bytes < 40_000
        assert len(store.requests) - before < 12
    with stores.reopened(repo) as repo:
        assert repo.missing([]) == []
        before, read = len(store.requests), store.bytes_read
        assert list(tree.diff(repo, root, size, changed, size)) == [blocks[77]]
        assert len(store.requests) - before < 12
        assert store.bytes_read - read < 60_000
        before = len(store.requests)
        assert list(tree.lookup(repo, changed, size, [blocks[77]])) == [(blocks[77], CHUNKS[1])]
        assert len(store.requests) == before, "its nodes are in the cache"


def test_equal_trees_are_not_read() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    root = apply(repo, None, 0, units.TIB, {5: CHUNKS[0]})
    before = len(store.requests)
    assert list(tree.diff(repo, root, units.TIB, root, units.TIB)) == []
    assert len(store.requests) == before


def test_a_large_dense_tree() -> None:
    repo = stores.new_repository()
    chunks = [number.to_bytes(32, "big") for number in range(1, 300_001)]
    size = len(chunks) * BLOCK
    with repo.writer(samples.ignore) as writer:
        root = tree.update(repo, writer, None, 0, size, enumerate(chunks))
    assert [chunk for _, chunk in tree.walk(repo, root, size)] == chunks


def test_a_node_of_the_wrong_level_is_damage() -> None:
    """Nodes are authenticated, so this takes a bug, or somebody with the structure key."""
    repo = samples.small_tree_repository()
    root = apply(repo, None, 0, 4 * BLOCK, {0: CHUNKS[0]})
    assert root is not None
    for look in (tree.walk(repo, root, 16 * BLOCK), tree.lookup(repo, root, 16 * BLOCK, [0])):
        with pytest.raises(errors.Damaged, match=f"Tree node {root.hex()} is not a node of level 2"):
            list(look)


def test_a_root_that_is_no_node_is_named_when_the_disk_shrinks() -> None:
    repo = samples.small_tree_repository()
    root = apply(repo, None, 0, 4 * BLOCK, {0: CHUNKS[0]})
    assert root is not None
    with pytest.raises(errors.Damaged, match=f"Tree node {root.hex()} is not a node of level 2"):
        apply(repo, root, 16 * BLOCK, 4 * BLOCK, {})


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The nodes that are read."""
    found: list[bytes] = []
    read_nodes = Repository.read_nodes

    def noting(repo: Repository, node_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        wanted = set(node_ids)
        found.extend(wanted)
        return read_nodes(repo, wanted)

    monkeypatch.setattr(Repository, "read_nodes", noting)
    return found


def test_only_the_nodes_on_the_way_are_read(read: list[bytes]) -> None:
    repo, model = samples.small_tree_repository(), {block: bytes([block]) * 32 for block in range(64)}
    root = apply(repo, None, 0, 64 * BLOCK, dict(model))
    for first in range(64):
        read.clear()
        assert list(tree.walk(repo, root, 64 * BLOCK, first, 1)) == [(first, model[first])]
        assert len(read) == 5, "one of each level"
        read.clear()
        assert list(tree.walk(repo, root, 64 * BLOCK, first, 5)) == [*model.items()][first : first + 5]
        apply(repo, root, 64 * BLOCK, 64 * BLOCK, {first: None})
        assert len(set(read)) <= 5 + 4


def test_a_disk_that_grew_is_compared_without_a_look_at_it(read: list[bytes]) -> None:
    """What is above its old root is known without reading, and is the same in both."""
    repo = samples.small_tree_repository()
    for count in range(1, 40):
        root = apply(repo, None, 0, count * BLOCK, dict.fromkeys(range(count), CHUNKS[0]))
        grown = apply(repo, root, count * BLOCK, 70 * BLOCK, {})
        read.clear()
        assert list(tree.diff(repo, root, count * BLOCK, grown, 70 * BLOCK)) == []
        assert read == []


def test_so_is_one_of_the_usual_shape(read: list[bytes]) -> None:
    repo, small, large = stores.new_repository(), units.MIB, units.TIB
    root = apply(repo, None, 0, small, {0: CHUNKS[0]})
    grown = apply(repo, root, small, large, {})
    read.clear()
    assert list(tree.diff(repo, root, small, grown, large)) == []
    assert read == []


def test_nothing_stays_beyond_the_new_end() -> None:
    """Whatever size is cut to whatever other: the tree is that of what is left."""
    repo = samples.small_tree_repository()
    for count in range(1, 35):
        whole = dict.fromkeys(range(count), CHUNKS[0])
        root = apply(repo, None, 0, count * BLOCK, dict(whole))
        for less in range(count):
            cut = apply(repo, root, count * BLOCK, less * BLOCK, {})
            assert cut == apply(repo, None, 0, less * BLOCK, dict.fromkeys(range(less), CHUNKS[0]))


def test_a_disk_that_ends_within_a_block_is_changed_elsewhere() -> None:
    repo, size = samples.small_tree_repository(), 9 * BLOCK - 512
    root = apply(repo, None, 0, size, dict.fromkeys(range(9), CHUNKS[0]))
    changed = apply(repo, root, size, size, {2: CHUNKS[1]})
    assert dict(tree.walk(repo, changed, size)) == dict.fromkeys(range(9), CHUNKS[0]) | {2: CHUNKS[1]}


def test_chunks_of_nodes_are_of_their_class() -> None:
    repo = samples.small_tree_repository()
    root = apply(repo, None, 0, 4 * BLOCK, {0: CHUNKS[0]})
    assert root is not None
    location = repo.index.find(root)
    assert location is not None
    assert location.frame.chunk_class is ChunkClass.TREE


# every node

MANY = 1200


def deep_tree() -> tuple[Repository, bytes, Model]:
    """Of 300 leaves below eight levels, with gaps, and no two nodes alike."""
    repo = samples.small_tree_repository()
    model = {block: block.to_bytes(32, "big") for block in range(1, MANY) if block % 7}
    root = apply(repo, None, 0, MANY * BLOCK, dict(model))
    assert root is not None
    return repo, root, model


def test_every_node_is_visited_once_and_before_those_below_it() -> None:
    repo, root, model = deep_tree()
    asked: list[bytes] = []
    visits = list(tree.visit(repo, root, MANY * BLOCK, lambda node_id: not asked.append(node_id)))  # type: ignore[func-returns-value]
    assert sorted(asked) == sorted(visit.node_id for visit in visits)
    assert (visits[0].level, visits[0].index, visits[0].node_id) == (9, 0, root)
    above: dict[tuple[int, int], bytes] = {(9, 0): root}
    leaves: Model = {}
    for visit in visits:
        # Whoever is above it has told of it.
        assert above.pop((visit.level, visit.index)) == visit.node_id
        assert not isinstance(visit.slots, errors.Damaged)
        width = 2 if visit.level else 4
        assert len(visit.slots) == width
        below = {visit.index * width + slot: found for slot, found in enumerate(visit.slots) if found is not None}
        if visit.level:
            above |= {(visit.level - 1, index): node_id for index, node_id in below.items()}
        else:
            leaves |= below
    assert leaves == model and not above


def test_below_a_node_that_is_not_entered_nothing_is_visited() -> None:
    repo, root, model = deep_tree()
    # Of a node of level 1, which has two leaves.
    refused = next(visit for visit in tree.visit(repo, root, MANY * BLOCK, lambda _: True) if visit.level == 1)
    visits = list(tree.visit(repo, root, MANY * BLOCK, lambda node_id: node_id != refused.node_id))
    seen = {visit.index for visit in visits if visit.level == 0}
    assert seen == {block // 4 for block in model} - {2 * refused.index, 2 * refused.index + 1}
    assert list(tree.visit(repo, root, MANY * BLOCK, lambda _: False)) == []
    assert list(tree.visit(repo, None, MANY * BLOCK, lambda _: True)) == []


def test_a_damaged_node_is_reported_and_the_others_visited() -> None:
    """One that is missing, and one of another level, between sound ones."""
    repo = samples.small_tree_repository()
    sound = apply(repo, None, 0, 8 * BLOCK, {0: CHUNKS[0], 5: CHUNKS[1]})
    missing, leaf = bytes([9]) * 32, apply(repo, None, 0, 4 * BLOCK, {1: CHUNKS[2]})
    with repo.writer(samples.ignore) as writer:
        right = tree._put(repo, writer, 2, [sound, leaf])
        left = tree._put(repo, writer, 2, [sound, missing])
        root = tree._put(repo, writer, 3, [left, right])
    visits = list(tree.visit(repo, root, 32 * BLOCK, lambda _: True))
    damaged = {(visit.level, visit.index): visit for visit in visits if isinstance(visit.slots, errors.Damaged)}
    assert {place: visit.node_id for place, visit in damaged.items()} == {(1, 1): missing, (1, 3): leaf}
    assert [(visit.level, visit.index) for visit in visits if visit.level == 0] == [(0, 0), (0, 1), (0, 4), (0, 5)]
    found = damaged[1, 3].slots
    assert isinstance(found, errors.Damaged) and leaf is not None
    assert str(found) == f"Tree node {leaf.hex()} is not a node of level 1." and found.facts["object"] == leaf.hex()


def test_trees_of_many_nodes_are_walked_looked_up_and_compared() -> None:
    """More of them than are fetched in one go."""
    repo, root, model = deep_tree()
    assert dict(tree.walk(repo, root, MANY * BLOCK)) == model
    assert dict(tree.lookup(repo, root, MANY * BLOCK, range(MANY))) == {
        block: model.get(block) for block in range(MANY)
    }
    changed = apply(repo, root, MANY * BLOCK, MANY * BLOCK, dict.fromkeys(range(0, MANY, 3), CHUNKS[1]))
    assert list(tree.diff(repo, root, MANY * BLOCK, changed, MANY * BLOCK)) == list(range(0, MANY, 3))


@pytest.mark.parametrize(("level", "blocks"), [(0, 1), (1, 4), (2, 8), (3, 16), (9, 1024)])
def test_how_many_blocks_are_below_a_slot(level: int, blocks: int) -> None:
    assert tree.span_of(samples.small_tree_repository(), level) == blocks
