"""A draft holds what a round recorded, in the order in which it did, and belongs to one owner."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import errors
from headstart.repository import draft, snapshot
from headstart.repository.draft import Entries, Record
from headstart.repository.repo import Repository
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import FaultyStore
from tests.repository import samples
from tests.repository.samples import Found

IDS = st.binary(min_size=32, max_size=32)
PAIRS = st.lists(st.tuples(st.integers(0, 2**32 - 1), IDS), max_size=5)


@given(
    st.floats(0, 1e11),
    st.text(max_size=5),
    st.lists(st.text(max_size=5), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=5), PAIRS, max_size=3),
)
def test_roundtrip(time: float, vm: str, packs: tuple[str, ...], entries: dict[str, list[tuple[int, bytes]]]) -> None:
    listed = {disk: Entries.of(pairs) for disk, pairs in entries.items()}
    made = Record("ab" * 16, 7, time, vm, "host", packs, listed)
    assert draft.decode("ab" * 16, 7, draft.encode(made)) == made
    assert {disk: list(found) for disk, found in listed.items()} == entries


def test_the_life_of_a_draft(repo: Repository) -> None:
    begun = draft.begin(repo, "web", "host", 100.0)
    assert samples.all_drafts(repo) == ([Found(begun, 100.0, 100.0, 1)], [])
    draft.record(repo, begun, 1, 200.0, ["ab"], {"vda": [(5, bytes(32))], "vdb": []})
    draft.record(repo, begun, 2, 300.0)
    other = stores.reopened(repo)
    assert samples.all_drafts(other) == ([Found(begun, 100.0, 300.0, 3)], [])
    records = list(draft.records(other, begun.id))
    assert [made.number for made in records] == [0, 1, 2]
    assert records[1].packs == ("ab",)
    assert list(records[1].entries["vda"]) == [(5, bytes(32))]
    assert len(records[1].entries["vdb"]) == 0
    draft.drop(repo, begun.id)
    draft.drop(repo, begun.id)
    assert samples.all_drafts(repo) == ([], [])


def test_a_draft_becomes_the_snapshot_of_its_id(repo: Repository) -> None:
    begun = draft.begin(repo, "web", "host", 100.0)
    assert not snapshot.is_revoked(repo, begun.id)
    assert snapshot.revoke(repo, begun.id)
    with pytest.raises(snapshot.Revoked, match="back up again"):
        draft.record(repo, begun, 1, 200.0)


def test_recording_again_after_a_lost_answer() -> None:
    store = FaultyStore(MemoryStore())
    repo = stores.new_repository(store)
    begun = draft.begin(repo, "web", "host", 100.0)
    store.plan("create", stores.lose(errors.StoreFailed("connection lost")))
    entries = {"vda": [(1, bytes(32))]}
    with pytest.raises(errors.StoreFailed):
        draft.record(repo, begun, 1, 200.0, ["ab"], entries)
    draft.record(repo, begun, 1, 200.0, ["ab"], entries)
    assert len(list(draft.records(repo, begun.id))) == 2


def test_another_owner_is_noticed(repo: Repository) -> None:
    """As when an old copy of the state database comes back: it would record the same number again."""
    begun = draft.begin(repo, "web", "host", 100.0)
    draft.record(repo, begun, 1, 200.0, ["ab"])
    with pytest.raises(draft.Taken, match="somebody else"):
        draft.record(repo, begun, 1, 200.5, ["ab"])
    with pytest.raises(draft.Taken):
        draft.begin(repo, "web", "host", 300.0, draft_id=begun.id)


def test_drafts_are_apart(repo: Repository) -> None:
    one, two = draft.begin(repo, "web", "host", 1.0), draft.begin(repo, "db", "host", 2.0)
    draft.record(repo, two, 1, 3.0)
    draft.drop(repo, one.id)
    assert [found.draft.id for found in samples.all_drafts(repo)[0]] == [two.id]


def test_a_damaged_draft_is_named_and_the_others_listed(repo: Repository) -> None:
    whole, damaged = draft.begin(repo, "web", "host", 1.0), draft.begin(repo, "db", "host", 2.0)
    key = f"drafts/{damaged.id}/00000000"
    samples.rewrite(repo, key, samples.flipped(repo.store.read(key), [40]))
    found, errors_found = samples.all_drafts(repo)
    assert [each.draft for each in found] == [whole]
    assert [error.facts["object"] for error in errors_found] == [key]


def test_a_draft_whose_beginning_is_missing(repo: Repository) -> None:
    begun = draft.begin(repo, "web", "host", 1.0)
    draft.record(repo, begun, 1, 2.0)
    repo.store.delete(f"drafts/{begun.id}/00000000")
    assert [error.facts["object"] for error in samples.all_drafts(repo)[1]] == [f"drafts/{begun.id}/00000000"]


def test_a_record_in_the_place_of_another(repo: Repository) -> None:
    begun = draft.begin(repo, "web", "host", 1.0)
    draft.record(repo, begun, 1, 2.0)
    one, two = (f"drafts/{begun.id}/0000000{number}" for number in (0, 1))
    samples.rewrite(repo, two, repo.store.read(one))
    with pytest.raises(errors.Damaged, match=two):
        list(draft.records(repo, begun.id))


def test_a_large_round_is_36_bytes_a_block(repo: Repository) -> None:
    begun = draft.begin(repo, "web", "host", 1.0)
    count = 10_000
    pairs = [(block, repo.chunk_id(block.to_bytes(4, "big"))) for block in range(count)]
    draft.record(repo, begun, 1, 2.0, entries={"vda": pairs})
    assert dict(repo.store.list("drafts/"))[f"drafts/{begun.id}/00000001"] < 37 * count
    assert list(list(draft.records(repo, begun.id))[1].entries["vda"]) == pairs


def test_foreign_files_are_passed_over(repo: Repository) -> None:
    for key in ("drafts/readme", "drafts/x/0", f"drafts/{'a' * 32}/readme"):
        repo.store.create(key, b"x")
    assert samples.all_drafts(repo) == ([], [])
