"""What rehearsals have shown stands beside the snapshots; what was seen in the guest is for who has the content."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC

import pytest

from headstart import errors
from headstart.repository import forget, keys, layout, proof, repo, snapshot
from headstart.repository.proof import Check, Evidence, Proof
from headstart.repository.repo import Repository
from tests.kit import stores
from tests.restore import stored

PASSED = Proof(1000.0, "host", True, 12.5, "agent", "", (Check("service:nginx", True),))
FAILED = Proof(2000.0, "host", False, 300.0, "pattern", "It was silent.")
SEEN = Evidence(b"\x89PNG...", "web login:", {"service:nginx": "active"})


def structure_alone(opened: Repository) -> Repository:
    return repo.open_with(opened.store, opened.secrets.structure_alone())


def test_proofs_are_listed_by_snapshot_oldest_first() -> None:
    opened = stores.new_repository()
    one, other = (stored.store_snapshot(opened, {"a": stored.content(seed)}).id for seed in (1, 2))
    proof.record(opened, one, FAILED, Evidence())
    proof.record(opened, one, PASSED, SEEN)
    proof.record(opened, other, PASSED, SEEN)
    assert proof.all_proofs(opened) == {one: (PASSED, FAILED), other: (PASSED,)}
    assert proof.all_proofs(opened, other) == {other: (PASSED,)}


def test_evidence_is_that_of_the_newest() -> None:
    opened = stores.new_repository()
    made = stored.store_snapshot(opened, {"a": stored.content(1)}).id
    assert proof.latest(opened, made) is None
    proof.record(opened, made, FAILED, SEEN)
    proof.record(opened, made, PASSED, Evidence())
    assert proof.latest(opened, made) == (FAILED, SEEN)
    ahead = replace(PASSED, time=time.time() + 3 * 86400)
    proof.record(opened, made, ahead, Evidence())
    assert proof.latest(opened, made) == (FAILED, SEEN), "a clock that was ahead hides nothing"
    assert proof.all_proofs(opened, made)[made] == (ahead, PASSED, FAILED)


def test_the_structure_alone_tells_whether_it_passed_and_not_what_was_seen() -> None:
    opened = stores.new_repository()
    made = stored.store_snapshot(opened, {"a": stored.content(1)}).id
    proof.record(opened, made, PASSED, SEEN)
    without = structure_alone(opened)
    assert proof.all_proofs(without) == {made: (PASSED,)}
    with pytest.raises(keys.NoContent):
        proof.latest(without, made)
    with pytest.raises(keys.NoContent):
        proof.record(without, made, PASSED, SEEN)


def test_evidence_belongs_to_its_proof() -> None:
    """Nobody can show what was seen of one snapshot as that of another."""
    opened = stores.new_repository()
    one, other = (stored.store_snapshot(opened, {"a": stored.content(seed)}).id for seed in (1, 2))
    proof.record(opened, one, PASSED, SEEN)
    for folder in (layout.PROOFS, layout.EVIDENCE):
        [(name, _)] = opened.store.list(folder)
        opened.store.create(name.replace(one, other), opened.store.read(name))
    assert proof.all_proofs(opened) == {one: (PASSED,)}
    with pytest.raises(errors.Damaged):
        proof.latest(opened, other)


def test_a_list_of_proofs_reads_no_evidence() -> None:
    """There may be thousands of pictures."""
    opened = stores.new_repository()
    made = stored.store_snapshot(opened, {"a": stored.content(1)}).id
    proof.record(opened, made, PASSED, SEEN)
    [(name, _)] = opened.store.list(layout.EVIDENCE)
    opened.store.delete(name)
    assert proof.all_proofs(opened) == {made: (PASSED,)}
    with pytest.raises(errors.Damaged):
        proof.latest(opened, made)


@pytest.mark.parametrize("folder", [layout.PROOFS, layout.EVIDENCE])
def test_what_is_damaged_proves_nothing(folder: str) -> None:
    opened = stores.new_repository()
    made = stored.store_snapshot(opened, {"a": stored.content(1)}).id
    proof.record(opened, made, PASSED, SEEN)
    [(name, _)] = opened.store.list(folder)
    data = bytearray(opened.store.read(name))
    data[-1] ^= 1
    opened.store.delete(name)
    opened.store.create(name, bytes(data))
    assert proof.all_proofs(opened) == ({} if folder == layout.PROOFS else {made: (PASSED,)})
    with pytest.raises(errors.Damaged):
        proof.latest(opened, made)


def test_what_is_forgotten_takes_its_proofs_along() -> None:
    opened = stores.new_repository()
    made = stored.store_snapshot(opened, {"a": stored.content(1)}).id
    proof.record(opened, made, PASSED, SEEN)
    forget.forget(opened, forget.Order(3000.0, UTC, ids=[made]))
    assert snapshot.all_manifests(opened).manifests == ()
    assert [list(opened.store.list(folder)) for folder in (layout.PROOFS, layout.EVIDENCE)] == [[], []]
    with pytest.raises(errors.NotFound, match="while it was rehearsed"):
        proof.record(opened, made, PASSED, SEEN)
    assert [list(opened.store.list(folder)) for folder in (layout.PROOFS, layout.EVIDENCE)] == [[], []]
