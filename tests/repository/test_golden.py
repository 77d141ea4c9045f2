"""Repositories that earlier versions wrote, read by this one. They are never made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headstart import repository
from headstart.repository import attachment, draft, label, layout, lease, snapshot, tree, verify
from headstart.repository.label import Labels
from headstart.store.local import LocalStore
from tests.repository import goldens, samples

NAMES = sorted(path.name for path in goldens.FOLDER.iterdir())
EXPECTED = {goldens.FIRST: goldens.ONE, goldens.SECOND: goldens.TWO, goldens.THIRD: goldens.THREE}


@pytest.fixture
def repo(name: str) -> repository.Repository:
    return repository.open(LocalStore(goldens.FOLDER / name), lambda: goldens.PASSWORD)


def test_there_is_one_of_this_format() -> None:
    assert {f"format{layout.VERSION}", f"format{layout.VERSION}-plain"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_restores_bit_for_bit(repo: repository.Repository, name: str) -> None:
    listing = snapshot.all_manifests(repo)
    assert listing.damaged == ()
    count = 2 if name.startswith("format0") else 3
    assert [found.id for found in listing.manifests] == list(EXPECTED)[:count]
    for found in listing.manifests:
        vda, sda = found.disks
        assert samples.restored(repo, vda) == samples.Image(goldens.SIZE, EXPECTED[found.id])
        assert list(tree.walk(repo, sda.root, sda.size)) == []
        assert attachment.read_attachment(repo, found.attachments[0]) == goldens.DEFINITION
    assert verify.verify_all(repo, lambda done, total: None).findings == ()


@pytest.mark.parametrize("name", NAMES)
def test_facts(repo: repository.Repository, name: str) -> None:
    assert (repo.block_size, repo.encrypted) == (goldens.BLOCK, not name.endswith("-plain"))
    found = snapshot.load(repo, goldens.SECOND)
    assert (found.created, found.base, found.consistency) == (1_700_003_600.0, goldens.FIRST, "crash")
    assert found.facts == {"v": [0]}
    assert found.disks[0].facts == {"qdev": "/machine/disk0"}
    assert (found.disks[1].name, found.disks[1].size, found.disks[1].serial) == ("sda", 1 << 40, None)
    assert snapshot.is_revoked(repo, goldens.REVOKED)


@pytest.mark.parametrize("name", NAMES)
def test_drafts(repo: repository.Repository) -> None:
    [found], damaged = samples.all_drafts(repo)
    assert (found.draft.id, found.heartbeat, found.records, damaged) == (goldens.DRAFT, 1_700_007_201.5, 2, [])
    record = list(draft.records(repo, found.draft.id))[1]
    assert list(record.entries["vda"]) == [(7, bytes(range(32)))]
    assert record.packs == ("ab" * 16,)


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_with_it(name: str, tmp_path: Path) -> None:
    shutil.copytree(goldens.FOLDER / name, tmp_path / name)
    repo = repository.open(LocalStore(tmp_path / name), lambda: goldens.PASSWORD)
    with repo.writer(samples.ignore) as writer:
        samples.put(repo, writer, goldens.TWO)
    assert writer.packs == [], "known content is recognised"


@pytest.mark.parametrize("name", ["format1", "format1-plain"])
def test_what_comes_and_goes(repo: repository.Repository) -> None:
    assert label.of(repo, goldens.SECOND) == Labels(frozenset({"kept"}), protected=True)
    assert lease.read(repo, lease.key_of(goldens.LEASE.id, 0)) == goldens.LEASE
    repo.holdings.refresh()
    assert repo.index.doomed == repo.index.aside == {goldens.PACK}


def test_the_password_of_a_server() -> None:
    store = LocalStore(goldens.FOLDER / "format1")
    opened = repository.open(store, lambda: goldens.SERVER_PASSWORD, structure_is_enough=True)
    assert not opened.secrets.opens_content
    assert verify.verify_all(opened, lambda done, total: None).findings == ()


@pytest.mark.parametrize("name", ["format0", "format1"])
def test_the_second_password(name: str) -> None:
    store = LocalStore(goldens.FOLDER / name)
    assert repository.open(store, lambda: goldens.SECOND_PASSWORD).encrypted
