"""Snapshots copied into another repository: what is read, what is stored, and what interruptions cost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping

import pytest

from headstart import errors, repository
from headstart.repository import attachment, condemned, copying, draft, layout, pack, repair, snapshot, verify
from headstart.repository import config as repository_config
from headstart.repository.copying import Copied, Copying
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import QUICK, FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

SIZE = 3000 * BLOCK + 512
ONE = {number: noise(number) for number in (0, 1, 2, 1500, 2999)} | {3000: noise(3000, 512)}
ATTACHED = len(b"-m 256")


@pytest.fixture
def target() -> Iterator[Repository]:
    with stores.new_repository(FaultyStore(MemoryStore())) as fresh:
        yield fresh


def run(source: Repository, target: Repository, *manifests: Manifest) -> list[Copied]:
    """As another process would: knowing nothing but what is in the stores."""
    with stores.reopened(source) as one, stores.reopened(target) as other:
        begun = Copying(one, other, "host", itertools.count(1000).__next__, samples.silent)
        return [begun.copy(manifest) for manifest in manifests]


def check(target: Repository, copied: Copied, images: Mapping[str, Image]) -> None:
    with stores.reopened(target) as again:
        manifest = snapshot.load(again, copied.id)
        assert {disk.name: samples.restored(again, disk) for disk in manifest.disks} == images
        [attached] = manifest.attachments
        assert attachment.read_attachment(again, attached) == b"-m 256"


def whole(target: Repository) -> bool:
    with stores.reopened(target) as again:
        return verify.verify_all(again, samples.silent).findings == () and draft.names(again) == {}


def objects(repo: Repository) -> set[str]:
    return {name for name, _ in repo.store.list("")}


def test_a_snapshot_with_all_that_is_in_it(repo: Repository, target: Repository) -> None:
    images = {"vda": Image(SIZE, ONE), "empty": Image(BLOCK, {}), "none": Image(0, {})}
    made = samples.add_snapshot(repo, images)
    [copied] = run(repo, target, made)
    assert (copied.id, copied.there, copied.read_bytes) == (made.id, False, 5 * BLOCK + 512)
    check(target, copied, images)
    assert whole(target)
    there = snapshot.load(target, made.id)
    assert (there.vm, there.created, there.facts, there.host) == (made.vm, made.created, made.facts, made.host)
    assert there.keys == target.key_names() and there.twin
    assert there.disks[0].root != made.disks[0].root, "ids are those of other keys"


def test_the_two_share_no_key_and_no_id(repo: Repository, target: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    run(repo, target, made)
    for data in ONE.values():
        assert repo.chunk_id(data) in repo.index and repo.chunk_id(data) not in stores.reopened(target)
        assert target.chunk_id(data) in stores.reopened(target)
    ours = {repo.store.read(name) for name in samples.packs_of(repo)}
    assert not ours & {target.store.read(name) for name in samples.packs_of(target)}


def test_what_is_copied_together_is_stored_together(repo: Repository, target: Repository) -> None:
    """As a backup does it: that takes less room."""
    contents = {number: noise(number) for number in range(12)}
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, contents)})
    run(repo, target, made)
    with stores.reopened(target) as again:
        located = [again.index.find(again.chunk_id(data)) for data in contents.values()]
        assert len({location.frame for location in located if location}) == 3
    assert whole(target)


def test_done_again_it_reads_and_writes_nothing(repo: Repository, target: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    run(repo, target, made)
    before = objects(target)
    [again] = run(repo, target, made)
    assert (again.there, again.read_bytes, again.stored_bytes) == (True, 0, 0)
    assert objects(target) == before


def test_only_what_changed_is_read(repo: Repository, target: Repository) -> None:
    two = {number: data for number, data in ONE.items() if number != 1} | {2: noise(22), 7: noise(0)}
    first = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)}, created=1.0)
    second = samples.add_snapshot(repo, {"vda": Image(SIZE, two)}, created=2.0)
    third = samples.add_snapshot(repo, {"vda": Image(SIZE, two)}, created=3.0)
    run(repo, target, first)
    later, last = run(repo, target, second, third)
    assert (later.read_bytes, last.read_bytes) == (2 * BLOCK, 0)
    check(target, later, {"vda": Image(SIZE, two)})
    check(target, last, {"vda": Image(SIZE, two)})
    # Of content only the one block that was not there in any form.
    assert target.chunk_id(noise(22)) in stores.reopened(target)
    assert BLOCK < later.stored_bytes < 2 * BLOCK
    assert whole(target)


def test_the_newest_first_then_an_older_one(repo: Repository, target: Repository) -> None:
    first = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)}, created=1.0)
    second = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE | {9: noise(9)})}, created=2.0)
    _, older = run(repo, target, second, first)
    assert older.read_bytes == 0
    check(target, older, {"vda": Image(SIZE, ONE)})


def test_any_chain_of_images(repo: Repository, target: Repository) -> None:
    """Disks that grow, shrink within a block, come, go; blocks that become zeroes and come back."""
    source = random.Random(11)
    history = []
    for moment in range(12):
        images = {}
        for name in source.sample(("a", "b", "c"), 2):
            size = source.randrange(1, 3000) * BLOCK + source.choice((0, 512, 40000))
            count = -(-size // BLOCK)
            numbers = {source.randrange(count) for _ in range(12)} | {count - 1}
            length = size % BLOCK or BLOCK
            contents = {number: noise(source.randrange(5)) for number in numbers}
            contents[count - 1] = noise(77, length)
            images[name] = Image(size, contents)
        history.append((samples.add_snapshot(repo, images, created=float(moment)), images))
    for made, images in source.sample(history, len(history)):
        [copied] = run(repo, target, made)
        check(target, copied, images)
    assert whole(target)


def test_a_disk_that_ends_within_a_block_that_did_not_change(repo: Repository, target: Repository) -> None:
    contents = {3: noise(3), 10: noise(1, 512)}
    first = samples.add_snapshot(repo, {"vda": Image(20 * BLOCK, contents)}, created=1.0)
    second = samples.add_snapshot(repo, {"vda": Image(10 * BLOCK + 512, contents)}, created=2.0)
    _, copied = run(repo, target, first, second)
    check(target, copied, {"vda": Image(10 * BLOCK + 512, contents)})


# -- interruptions


@pytest.fixture
def short_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "RECORD_BLOCKS", 2)
    monkeypatch.setattr(copying, "_BATCH", 2)
    monkeypatch.setattr(copying, "RECORD_SECONDS", 1e9)


def test_interrupted_anywhere_it_goes_on_behind_what_was_recorded(repo: Repository, short_records: None) -> None:
    images = {"vda": Image(SIZE, {number * 10: noise(number) for number in range(12)}), "vdb": Image(SIZE, ONE)}
    made = samples.add_snapshot(repo, images)
    read: dict[int, int] = {}
    for number in itertools.count(1):
        for fault in (stores.fail, stores.lose):
            store = FaultyStore(MemoryStore())
            target = stores.new_repository(store)
            store.plan("create", fault(errors.StoreFailed("power cut")), number=number)
            try:
                run(repo, target, made)
            except errors.StoreFailed:
                pass
            else:
                assert number > 12
                return
            [copied] = run(repo, target, made)
            check(target, copied, images)
            assert whole(target)
            read[number] = copied.read_bytes
            assert read[number] <= min(read.values()), "the later it was, the less is left"
    assert read[1] > 10 * BLOCK


def test_what_was_recorded_is_not_read_again(repo: Repository, target: Repository, short_records: None) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, {number: noise(number) for number in range(20)})})
    assert isinstance(target.store, FaultyStore)
    target.store.plan("create", stores.fail(errors.StoreFailed("power cut")), prefix="drafts/", number=8)
    with pytest.raises(errors.StoreFailed):
        run(repo, target, made)
    [copied] = run(repo, target, made)
    assert copied.read_bytes == 8 * BLOCK, "six records of two blocks were durable"


def test_a_record_whose_content_was_lost_since_is_copied_again(
    repo: Repository, target: Repository, short_records: None
) -> None:
    image = Image(SIZE, {number: noise(number) for number in range(20)})
    made = samples.add_snapshot(repo, {"vda": image})
    assert isinstance(target.store, FaultyStore)
    target.store.plan("create", stores.fail(errors.StoreFailed("power cut")), prefix="drafts/", number=8)
    with pytest.raises(errors.StoreFailed):
        run(repo, target, made)
    for name in samples.packs_of(target)[:3]:
        target.store.delete(name)
    [copied] = run(repo, target, made)
    check(target, copied, {"vda": image})


def test_goes_on_although_another_snapshot_was_copied_meanwhile(
    repo: Repository, target: Repository, short_records: None
) -> None:
    """The trees are then compared with another one than before."""
    contents = {number: noise(number) for number in range(20)}
    changed = contents | {3: noise(33), 18: noise(88)}
    del changed[5]
    first = samples.add_snapshot(repo, {"vda": Image(SIZE, contents)}, created=1.0)
    second = samples.add_snapshot(repo, {"vda": Image(SIZE, changed)}, created=2.0)
    assert isinstance(target.store, FaultyStore)
    target.store.plan("create", stores.fail(errors.StoreFailed("power cut")), prefix="drafts/", number=5)
    with pytest.raises(errors.StoreFailed):
        run(repo, target, second)
    run(repo, target, first)
    [copied] = run(repo, target, second)
    check(target, copied, {"vda": Image(SIZE, changed)})
    assert whole(target)


@pytest.mark.parametrize("needed", ["not at all", "found there", "recorded before"])
def test_what_a_collector_deletes_meanwhile_fails_it_only_where_it_is_needed(
    repo: Repository, target: Repository, short_records: None, needed: str
) -> None:
    """It begins right before the claim."""
    store, images = target.store, {"vda": Image(SIZE, ONE)}
    assert isinstance(store, FaultyStore)
    with target.writer(samples.ignore) as writer:
        samples.put(target, writer, {0: ONE[0] if needed == "found there" else noise(4711)})
    made = samples.add_snapshot(repo, images)
    packs = set(writer.packs)
    if needed == "recorded before":
        store.plan("create", stores.fail(errors.StoreFailed("power cut")), layout.DRAFTS, number=4)
        with pytest.raises(errors.StoreFailed):
            run(repo, target, made)
        with stores.reopened(target) as opened:
            opened.holdings.adopt_all()
            packs = {each.hex() for each in opened.index.holders([opened.chunk_id(ONE[0])]).values()}
    claimed = store.count("create", layout.DRAFTS) + (3 if needed == "recorded before" else 5)

    def doomed(create: Callable[[], object]) -> object:
        with stores.reopened(target) as opened:
            opened.put_object(
                layout.Kind.DOOMED, f"{layout.DOOMED}{'d' * 32}", condemned.encode(map(bytes.fromhex, packs))
            )
        return create()

    store.plan("create", doomed, layout.DRAFTS, number=claimed - store.count("create", layout.DRAFTS))
    if needed == "not at all":
        [copied] = run(repo, target, made)
    else:
        with pytest.raises(errors.StoreFailed, match="Copy it again"):
            run(repo, target, made)
        [copied] = run(repo, target, made)
    for each in packs:
        store.delete(layout.PACKS + each)
    check(target, copied, images)


def test_a_claim_that_the_store_has_lost_publishes_nothing(repo: Repository, target: Repository) -> None:
    images = {"vda": Image(SIZE, ONE)}
    made = samples.add_snapshot(repo, images)
    assert isinstance(target.store, FaultyStore)
    target.store.plan("create", stores.forget, prefix="drafts/", number=3)
    with pytest.raises(errors.StoreFailed, match="Nothing was published"):
        run(repo, target, made)
    assert target.store.count("create", layout.SNAPSHOTS) == 0
    [copied] = run(repo, target, made)
    check(target, copied, images)


def test_published_but_its_draft_is_still_there(repo: Repository, target: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    assert isinstance(target.store, FaultyStore)
    target.store.plan("create", stores.fail(errors.StoreFailed("power cut")), prefix="twins/")
    with pytest.raises(errors.StoreFailed):
        run(repo, target, made)
    [copied] = run(repo, target, made)
    assert copied.there and whole(target)


def test_given_up_meanwhile_it_gets_another_id_and_keeps_it(repo: Repository, target: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    assert isinstance(target.store, FaultyStore)
    target.store.plan("create", stores.fail(errors.StoreFailed("power cut")), prefix="snapshots/")
    with pytest.raises(errors.StoreFailed):
        run(repo, target, made)
    snapshot.revoke(target, made.id)
    draft.drop(target, made.id)
    [copied] = run(repo, target, made)
    assert copied.id != made.id
    check(target, copied, {"vda": Image(SIZE, ONE)})
    [again] = run(repo, target, made)
    assert (again.id, again.there) == (copied.id, True)
    assert whole(target)


def test_given_up_in_the_middle(repo: Repository, target: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    store = target.store
    assert isinstance(store, FaultyStore)

    def collected(act: object) -> object:
        snapshot.revoke(target, made.id)
        return act()  # type: ignore[operator]

    store.plan("create", collected, prefix="drafts/", number=2)
    with pytest.raises(errors.HeadstartError, match="was given up after it had not been heard of"):
        run(repo, target, made)


@pytest.mark.parametrize("at", [1, 2])
def test_somebody_else_has_done_it_meanwhile(repo: Repository, target: Repository, at: int) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    store = target.store
    assert isinstance(store, FaultyStore)

    def overtaken(act: object) -> object:
        run(repo, Repository(store.store, target.secrets, _config(target), encrypted=True), made)
        return act()  # type: ignore[operator]

    store.plan("create", overtaken, prefix="drafts/", number=at)
    [copied] = run(repo, target, made)
    check(target, copied, {"vda": Image(SIZE, ONE)})
    assert whole(target)


@pytest.mark.parametrize("at", [1, 2])
def test_two_at_once_do_not_both_go_on(repo: Repository, target: Repository, at: int) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    store = target.store
    assert isinstance(store, FaultyStore)

    def joined(act: object) -> object:
        other = Repository(store.store, target.secrets, _config(target), encrypted=True)
        copying._Draft.take(other, made.id, "web", "host", lambda: 5.0)
        return act()  # type: ignore[operator]

    store.plan("create", joined, prefix="drafts/", number=at)
    with pytest.raises(errors.Locked, match="Another process copies"):
        run(repo, target, made)
    [copied] = run(repo, target, made)
    check(target, copied, {"vda": Image(SIZE, ONE)})


def _config(repo: Repository) -> repository_config.Config:
    return repository_config.Config(repo.secrets.repository_id, repo.block_size)


# -- damage


def test_damage_in_the_source_is_not_copied(repo: Repository, target: Repository) -> None:
    hurt = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)}, created=1.0)
    packs = samples.packs_of(repo)
    good = samples.add_snapshot(repo, {"vda": Image(SIZE, {5: noise(55)})}, "db", created=2.0)
    for name in packs:
        data = repo.store.read(name)
        if data[24] == 1:
            samples.rewrite(repo, name, samples.flipped(data, [100]))
    with pytest.raises(errors.Damaged):
        run(repo, target, hurt)
    [copied] = run(repo, target, good)
    check(target, copied, {"vda": Image(SIZE, {5: noise(55)})})
    assert [each.id for each in snapshot.all_manifests(target).manifests] == [good.id]


def test_what_the_target_lost_is_copied_again_by_the_next(repo: Repository, target: Repository) -> None:
    images = {"vda": Image(SIZE, ONE)}
    first = samples.add_snapshot(repo, images, created=1.0)
    second = samples.add_snapshot(repo, images, created=2.0)
    run(repo, target, first)
    for name in samples.packs_of(target):
        if target.store.read(name)[24] == 1:
            target.store.delete(name)
    with stores.reopened(target) as again:
        repair.run(again, repair.Order(5.0), samples.silent)
    [copied] = run(repo, target, second)
    check(target, copied, images)


# -- what cannot be


@pytest.mark.parametrize("side", ["source", "target"])
def test_what_lost_a_part_of_its_tree_is_not_built_on(repo: Repository, target: Repository, side: str) -> None:
    first = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)}, created=1.0)
    run(repo, target, first)
    two = ONE | {0: noise(7), 1500: noise(8), 2999: noise(9)}  # nothing of its tree is shared
    second = samples.add_snapshot(repo, {"vda": Image(SIZE, two)}, created=2.0)
    hurt = repo if side == "source" else target
    with stores.reopened(hurt) as opened:
        root = snapshot.load(opened, first.id).disks[0].root
        assert root is not None
        place = opened.index.find(root)
        assert place is not None
        hurt.store.delete(pack.pack_key(place.pack_id))
    with stores.reopened(hurt) as opened:
        assert repair.run(opened, repair.Order(5.0), samples.silent).hurt
    [copied] = run(repo, target, second)
    check(target, copied, {"vda": Image(SIZE, two)})


def test_into_itself_or_a_copy_of_its_files(repo: Repository) -> None:
    with pytest.raises(errors.Usage, match="is the same repository"):
        Copying(repo, stores.reopened(repo), "host", lambda: 1.0, samples.silent)


def test_into_one_of_other_blocks(repo: Repository) -> None:
    other = repository.create(MemoryStore(), b"x", block_size=4096, cost=QUICK)
    with pytest.raises(errors.Usage, match=r"blocks of 4\.0 KiB"):
        Copying(repo, other, "host", lambda: 1.0, samples.silent)


def test_another_snapshot_under_its_id_is_not_touched(repo: Repository, target: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": Image(SIZE, ONE)})
    foreign = samples.add_snapshot(target, {"vda": Image(BLOCK, {})}, "db", created=7.0)
    renamed = Manifest(made.id, "db", 7.0, None, "crash", "host", "inst", foreign.disks)
    snapshot.publish(target, renamed)
    with pytest.raises(errors.HeadstartError, match="There is another snapshot"):
        run(repo, target, made)
