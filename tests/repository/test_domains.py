"""Key domains: what hosts share that have one repository or two, and what one of them can do to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.repository import draft, snapshot, tree, verify
from headstart.repository.config import Config
from headstart.repository.layout import ChunkClass
from headstart.repository.manifest import Manifest
from headstart.repository.repo import Repository
from headstart.store.local import LocalStore
from tests.kit import stores
from tests.kit.stores import PASSWORD, QUICK
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, block, noise

IMAGE = Image(9 * BLOCK, {0: block(1), 5: block(2)})
OTHER = b"battery staple"


@pytest.fixture
def two(tmp_path: Path) -> tuple[Repository, Repository]:
    """Those of two hosts in one folder, each with a password of its own."""
    one = repository.create(LocalStore(tmp_path / "hv1"), PASSWORD, cost=QUICK)
    other = repository.create(LocalStore(tmp_path / "hv2"), OTHER, cost=QUICK)
    for repo in (one, other):
        samples.add_snapshot(repo, {"vda": IMAGE})
    return one, other


def test_two_repositories_in_one_place_share_nothing(two: tuple[Repository, Repository]) -> None:
    one, other = two
    assert one.id != other.id
    for data in IMAGE.contents.values():
        assert one.chunk_id(data) in one and one.chunk_id(data) not in other
    assert not {name for name, _ in one.store.list("")} & {name for name, _ in other.store.list("")} - {
        "config",
        "twins/config",
    }
    with pytest.raises(errors.WrongPassword):
        repository.open(other.store, lambda: PASSWORD)


def test_an_object_of_the_one_is_nothing_in_the_other(two: tuple[Repository, Repository]) -> None:
    one, other = two
    for name, _ in list(one.store.list("")):
        if not name.startswith(("config", "twins/config", "keys/")):
            other.store.create(name, one.store.read(name))
    with repository.open(other.store, lambda: OTHER) as again:
        findings = verify.verify_all(again, samples.silent).findings
    kinds = {found.object.partition("/")[0] for found in findings}
    assert kinds == {"indexes", "packs", "snapshots", "twins"}
    assert all(not found.touched for found in findings)


# -- two hosts with one key


@pytest.fixture
def second(repo: Repository) -> Repository:
    """Another host's, of the same repository."""
    return stores.reopened(repo)


def test_hosts_of_one_domain_store_the_same_content_once(repo: Repository, second: Repository) -> None:
    samples.add_snapshot(repo, {"vda": IMAGE}, "web")
    before = sum(size for name, size in repo.store.list("packs/"))
    made = samples.add_snapshot(second, {"vda": IMAGE}, "db")
    assert sum(size for name, size in repo.store.list("packs/")) == before
    assert samples.restored(repo, snapshot.load(repo, made.id).disks[0]) == IMAGE


def test_a_host_may_say_that_a_snapshot_is_anothers(repo: Repository, second: Repository) -> None:
    """So the newest one by name is whose ever; ids are not to be had twice."""
    made = samples.add_snapshot(repo, {"vda": IMAGE}, "web")
    forged = samples.add_snapshot(second, {"vda": Image(BLOCK, {0: noise(66)})}, "web", created=made.created + 1)
    assert snapshot.resolve(repo, "web@latest").id == forged.id
    with pytest.raises(errors.HeadstartError, match="is another snapshot"):
        snapshot.publish(second, Manifest(made.id, "web", 5.0, None, "crash", "host", "inst", forged.disks))
    assert samples.restored(repo, snapshot.load(repo, made.id).disks[0]) == IMAGE


def test_false_content_under_the_id_of_another_is_never_read(repo: Repository, second: Repository) -> None:
    """But it keeps the right one from being stored: who restores has nothing, and verify says so."""
    data = IMAGE.contents[5]
    with second.writer(samples.ignore) as writer:
        writer.put(ChunkClass.CONTENT, second.chunk_id(data), noise(66))
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    with pytest.raises(errors.Damaged, match="is not what was written"):
        samples.restored(repo, made.disks[0])
    [finding] = verify.verify_all(stores.reopened(repo), samples.silent).findings
    assert [extent.start for extent in finding.touched[0].extents] == [5 * BLOCK]


def test_a_host_may_give_up_anothers_draft(repo: Repository, second: Repository) -> None:
    begun = draft.begin(repo, "web", "hv1", 5.0)
    assert snapshot.revoke(second, begun.id)
    with pytest.raises(snapshot.Revoked):
        draft.record(repo, begun, 1, 6.0)


def test_who_has_the_structure_alone_cannot_make_content(repo: Repository) -> None:
    """Not even under an id that is known."""
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    known = repo.chunk_id(IMAGE.contents[5])
    repo.secrets = repo.secrets.structure_alone()
    server = Repository(repo.store, repo.secrets, _config(repo), encrypted=True)
    with pytest.raises(errors.WrongPassword), server.writer(samples.ignore) as writer:
        writer.put(ChunkClass.CONTENT, b"\1" * 32, b"false")
    with pytest.raises(errors.WrongPassword):
        server.read_chunk(known)
    assert dict(tree.walk(server, made.disks[0].root, IMAGE.size))[5] == known


def _config(repo: Repository) -> Config:
    return Config(repo.secrets.repository_id, repo.block_size)
