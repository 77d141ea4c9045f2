"""A snapshot exists exactly when its manifest exists, and one of publish and revoke wins."""

from __future__ import annotations

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import errors
from headstart.repository import layout, manifest, snapshot
from headstart.repository.manifest import Attachment, Disk, Manifest
from headstart.repository.repo import Repository
from headstart.store.contract import Exists
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples

IDS = st.binary(min_size=32, max_size=32)
TEXT = st.text(max_size=10)
COUNTS = st.integers(0, 2**63 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner)
)
FACTS = st.dictionaries(TEXT, JSON, max_size=3)
DISKS = st.builds(Disk, TEXT, COUNTS, TEXT, st.none() | IDS, COUNTS, st.none() | TEXT, st.none() | TEXT, FACTS)
ATTACHMENTS = st.builds(Attachment, TEXT, TEXT, COUNTS, st.lists(IDS, max_size=3).map(tuple))
MANIFESTS = st.builds(
    Manifest,
    id=st.just("ab" * 16),
    vm=TEXT,
    created=st.floats(0, 1e11),
    base=st.none() | TEXT,
    consistency=TEXT,
    host=TEXT,
    installation=TEXT,
    disks=st.lists(DISKS, max_size=2).map(tuple),
    attachments=st.lists(ATTACHMENTS, max_size=2).map(tuple),
    facts=FACTS,
)


def example(snapshot_id: str | None = None, vm: str = "web", created: float = 1.0) -> Manifest:
    return Manifest(snapshot_id or snapshot.new_id(), vm, created, None, "crash", "host", "installation", ())


@given(MANIFESTS)
def test_a_manifest_is_decoded_as_it_was_encoded(made: Manifest) -> None:
    assert manifest.decode(manifest.encode(made)) == made


@given(MANIFESTS)
def test_equal_manifests_are_equal_bytes(made: Manifest) -> None:
    turned = dataclasses.replace(made, facts=dict(reversed(list(made.facts.items()))))
    assert manifest.encode(turned) == manifest.encode(made)


def test_names_of_a_later_version_are_passed_over() -> None:
    values = json.loads(manifest.encode(example("ab" * 16))) | {"labels": ["new"]}
    assert manifest.decode(json.dumps(values).encode()) == example("ab" * 16)


def test_what_was_published_exists(repo: Repository) -> None:
    made = example()
    with pytest.raises(errors.NotFound, match=f"There is no snapshot {made.id}"):
        snapshot.load(repo, made.id)
    made = snapshot.publish(repo, made)
    assert snapshot.load(stores.reopened(repo), made.id) == made
    assert snapshot.all_manifests(repo) == snapshot.Listing((made,), ())


def test_publishing_again_is_no_error(repo: Repository) -> None:
    made = example()
    published = snapshot.publish(repo, made)
    assert published == dataclasses.replace(made, keys=repo.key_names(), twin=True)
    assert snapshot.publish(repo, made) == published
    with pytest.raises(Exists):
        snapshot.publish(repo, dataclasses.replace(made, vm="other"))
    assert snapshot.load(repo, made.id) == published


def test_publishing_after_a_lost_answer() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    made = example()
    store.plan("create", stores.lose(errors.StoreFailed("connection lost")))
    with pytest.raises(errors.StoreFailed):
        snapshot.publish(repo, made)
    assert snapshot.load(repo, made.id) == snapshot.publish(repo, made)


def test_the_twin_of_a_killed_publication_is_written_later(repo: Repository) -> None:
    made = snapshot.publish(repo, example())
    twin = snapshot.twin_of(made.id)
    repo.store.delete(twin)
    assert snapshot.publish(repo, made) == made
    assert repo.get_object(layout.Kind.TWIN, twin) == manifest.encode(made)


def test_a_revoked_draft_cannot_be_published(repo: Repository) -> None:
    made = example()
    assert snapshot.revoke(repo, made.id)
    assert snapshot.revoke(repo, made.id)
    assert snapshot.is_revoked(repo, made.id)
    with pytest.raises(snapshot.Revoked, match="back up again"):
        snapshot.publish(repo, made)
    assert snapshot.all_manifests(repo) == snapshot.Listing((), ())
    for text in (made.id, made.id[:8]):
        with pytest.raises(errors.NotFound):
            snapshot.resolve(repo, text)


def test_a_published_snapshot_cannot_be_revoked(repo: Repository) -> None:
    made = example()
    made = snapshot.publish(repo, made)
    assert not snapshot.revoke(repo, made.id)
    assert not snapshot.is_revoked(repo, made.id)
    assert snapshot.load(repo, made.id) == made


def test_of_publish_and_revoke_one_wins(repo: Repository) -> None:
    barrier = threading.Barrier(2)

    def publish(made: Manifest) -> bool:
        barrier.wait()
        try:
            snapshot.publish(repo, made)
        except snapshot.Revoked:
            return False
        return True

    def revoke(made: Manifest) -> bool:
        barrier.wait()
        return snapshot.revoke(repo, made.id)

    with ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            made = example()
            published = threads.submit(publish, made)
            revoked = threads.submit(revoke, made)
            assert published.result() != revoked.result()


def test_lists_oldest_first(repo: Repository) -> None:
    made = [example(created=created) for created in (3.0, 1.0, 2.0)]
    for one in made:
        snapshot.publish(repo, one)
    assert [found.created for found in snapshot.all_manifests(repo).manifests] == [1.0, 2.0, 3.0]


def test_a_damaged_manifest_is_named_and_the_others_listed(repo: Repository) -> None:
    whole, damaged = (snapshot.publish(repo, example(16 * each)) for each in ("aa", "ab"))
    key = snapshot.key_of(damaged.id)
    samples.rewrite(repo, key, repo.store.read(key)[:-1])
    listing = snapshot.all_manifests(repo)
    assert listing.manifests == (whole,)
    assert [error.facts["object"] for error in listing.damaged] == [key]
    with pytest.raises(errors.Damaged, match=f"{key} is damaged"):
        snapshot.load(repo, damaged.id)
    with pytest.raises(errors.Damaged, match="name the snapshot you want by its id"):
        snapshot.resolve(repo, "web@latest")
    assert snapshot.resolve(repo, "aa") == whole


def test_a_manifest_under_the_name_of_another(repo: Repository) -> None:
    """An old state of a VM offered as another snapshot."""
    one, two = example(), example()
    for made in (one, two):
        snapshot.publish(repo, made)
    samples.rewrite(repo, snapshot.key_of(two.id), repo.store.read(snapshot.key_of(one.id)))
    with pytest.raises(errors.Damaged, match=two.id):
        snapshot.load(repo, two.id)


def test_a_manifest_of_another_repository(repo: Repository) -> None:
    other, made = stores.new_repository(), example()
    snapshot.publish(other, made)
    repo.store.create(snapshot.key_of(made.id), other.store.read(snapshot.key_of(made.id)))
    with pytest.raises(errors.Damaged):
        snapshot.load(repo, made.id)


def test_names_of_snapshots_are_resolved(repo: Repository) -> None:
    old, new = example("a1" * 16, created=1.0), example("a2" * 16, created=2.0)
    other = example("b" * 32, vm="we@ird", created=3.0)
    new, old, other = (snapshot.publish(repo, made) for made in (new, old, other))
    assert snapshot.resolve(repo, "a1") == old
    assert snapshot.resolve(repo, "A2" * 16) == new
    assert snapshot.resolve(repo, "b") == other
    assert snapshot.resolve(repo, "web@latest") == new
    assert snapshot.resolve(repo, "we@ird@latest") == other
    with pytest.raises(errors.Usage, match=f"several snapshots: {old.id}, {new.id}. Give more"):
        snapshot.resolve(repo, "a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("c", "no snapshot c in"),
        ("", "names no snapshot"),
        ("web", "names no snapshot: give an id"),
        ("../config", "names no snapshot"),
        ("a" * 33, "names no snapshot"),
        ("web@first", "only latest"),
        ("db@latest", "no snapshot of 'db'"),
        ("@latest", "no snapshot of ''|names no snapshot"),
    ],
)
def test_what_names_no_snapshot(repo: Repository, text: str, said: str) -> None:
    snapshot.publish(repo, example("b" * 32))
    with pytest.raises(errors.NotFound, match=said):
        snapshot.resolve(repo, text)


def test_foreign_files_are_passed_over(repo: Repository) -> None:
    repo.store.create("snapshots/readme", b"x")
    assert snapshot.all_manifests(repo) == snapshot.Listing((), ())


def test_a_name_alone_means_the_latest_of_a_vm(repo: Repository) -> None:
    made = snapshot.publish(repo, example("b" * 32))
    assert snapshot.resolve_or_latest(repo, "bb") == made
    assert snapshot.resolve_or_latest(repo, "web") == made
    with pytest.raises(errors.NotFound, match="neither a snapshot nor a VM"):
        snapshot.resolve_or_latest(repo, "db")
    with pytest.raises(errors.NotFound, match="only latest"):
        snapshot.resolve_or_latest(repo, "web@first")


def test_the_latest_is_not_guessed_past_a_damaged_one(repo: Repository) -> None:
    snapshot.publish(repo, example("b" * 32))
    damaged = snapshot.publish(repo, example("c" * 32)).id
    key = snapshot.key_of(damaged)
    samples.rewrite(repo, key, samples.flipped(repo.store.read(key), [40]))
    with pytest.raises(errors.Damaged, match="may be the latest of web"):
        snapshot.resolve(repo, "web@latest")


def test_a_twin_that_tells_something_else_stops_the_publication(repo: Repository) -> None:
    """One that is damaged does not: what was published is whole, and verify tells of it."""
    one, other = example("b" * 32), example("c" * 32)
    repo.put_object(layout.Kind.TWIN, snapshot.twin_of(other.id), manifest.encode(snapshot.publish(repo, one)))
    with pytest.raises((errors.Damaged, Exists)):
        snapshot.publish(repo, other)
    third = snapshot.publish(repo, example("d" * 32))
    twin = snapshot.twin_of(third.id)
    samples.rewrite(repo, twin, samples.flipped(repo.store.read(twin), [40]))
    snapshot.add_twin(repo, third.id)


def test_what_was_published_before_twins_gets_none(repo: Repository) -> None:
    made = dataclasses.replace(example(), twin=False)
    repo.put_object(layout.Kind.SNAPSHOT, snapshot.key_of(made.id), manifest.encode(made))
    snapshot.add_twin(repo, made.id)
    assert not list(repo.store.list(layout.TWINS + made.id))


@pytest.mark.parametrize("text", ["", "ab", "../config", "A1" * 16])
def test_only_ids_have_keys(text: str) -> None:
    for key in (snapshot.key_of, snapshot.twin_of):
        with pytest.raises(ValueError, match="not a snapshot id"):
            key(text)
