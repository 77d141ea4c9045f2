"""Several passwords, fewer, others; and who has the structure alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headstart import errors, repository
from headstart.repository import attachment, keyring, keys, layout, snapshot, verify
from headstart.repository.layout import ChunkClass
from headstart.repository.repo import Repository
from headstart.store.contract import Store
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import PASSWORD, QUICK, FaultyStore
from tests.repository import samples
from tests.repository.samples import BLOCK, Image, noise

IMAGE = Image(3000 * BLOCK, {0: noise(1), 2000: noise(2)})
SECOND = b"battery staple"


def opened(store: Store, password: bytes = PASSWORD, *, structure: bool = False) -> Repository:
    return repository.open(store, lambda: password, structure_is_enough=structure)


def objects(store: Store) -> dict[str, bytes]:
    return {name: store.read(name) for name, _ in store.list("")}


def added(repo: Repository, password: bytes = SECOND, **options: bool) -> str:
    return keyring.add(repo, password, 5.0, cost=QUICK, **options)


def test_one_more_password_opens_the_same_and_touches_nothing_else(repo: Repository) -> None:
    made = samples.add_snapshot(repo, {"vda": IMAGE})
    before = objects(repo.store)
    key_id = added(repo)
    after = objects(repo.store)
    assert after.keys() - before.keys() == {f"keys/{key_id}"}
    assert {name: after[name] for name in before} == before
    with opened(repo.store, SECOND) as again:
        assert again.opened_by == (f"keys/{key_id}",)
        assert samples.restored(again, made.disks[0]) == IMAGE


def test_the_list_tells_what_is_known(repo: Repository) -> None:
    key_id = added(repo)
    added(repo, b"server", structure_alone=True)
    with opened(repo.store, SECOND) as again:
        found = {each.key.name: each for each in keyring.listed(again)}
    assert len(found) == 3
    mine = found[f"keys/{key_id}"]
    assert (mine.now, mine.key.created, mine.key.opens_content, mine.key.argon2) == (True, 5, True, QUICK)
    others = {each.key.opens_content: each.key.created for each in found.values() if not each.now}
    assert others == {False: 5, True: None}


def test_a_removed_key_opens_nothing_and_nobody_misses_it(repo: Repository) -> None:
    key_id = added(repo)
    samples.add_snapshot(repo, {"vda": IMAGE})  # its manifest names both keys
    with opened(repo.store) as first:
        assert keyring.remove(first, key_id[:8], 6.0) == key_id
    with pytest.raises(errors.WrongPassword):
        opened(repo.store, SECOND)
    with opened(repo.store) as again:
        assert verify.verify_all(again, samples.silent).findings == ()


def test_a_key_that_was_only_deleted_is_missed(repo: Repository) -> None:
    key_id = added(repo)
    samples.add_snapshot(repo, {"vda": IMAGE})
    repo.store.delete(f"keys/{key_id}")
    assert [found.object for found in verify.verify_all(stores.reopened(repo), samples.silent).findings] == [
        f"keys/{key_id}"
    ]


def test_the_key_that_opened_now_is_never_removed(repo: Repository) -> None:
    """However many others there are: nobody knows that their passwords are known."""
    added(repo)
    with opened(repo.store) as first:
        [mine] = first.opened_by
        with pytest.raises(errors.Usage, match="may be the last one"):
            keyring.remove(first, mine.removeprefix("keys/"), 6.0)
    with opened(repo.store, SECOND) as second:
        keyring.remove(second, mine.removeprefix("keys/"), 6.0)
    assert opened(repo.store, SECOND).id == repo.id


@pytest.mark.parametrize("prefix", ["losses/", "indexes/"])
def test_two_who_remove_each_others_keys_leave_one(repo: Repository, prefix: str) -> None:
    theirs = added(repo)
    store = FaultyStore(repo.store)
    with opened(store) as one, opened(repo.store, SECOND) as other:
        [mine] = one.opened_by

        def overtaken(act: object) -> object:
            done = act()  # type: ignore[operator]
            if prefix == "losses/":
                with pytest.raises(errors.Usage, match="Somebody else removes"):
                    keyring.remove(other, mine.removeprefix("keys/"), 6.0)
            else:
                repo.store.delete(mine)
            return done

        store.plan("create", overtaken, prefix=prefix)
        with pytest.raises(errors.Usage, match="Somebody else removes"):
            keyring.remove(one, theirs, 6.0)
    assert opened(repo.store, SECOND).id == repo.id


def test_no_such_key(repo: Repository) -> None:
    with opened(repo.store) as first:
        for wrong in ("", "zz", "../config"):
            with pytest.raises(errors.NotFound, match="key list"):
                keyring.remove(first, wrong, 6.0)


def test_another_password_in_place_of_the_old_one(repo: Repository) -> None:
    samples.add_snapshot(repo, {"vda": IMAGE})
    added(repo, b"third")
    with opened(repo.store) as first:
        key_id, removed = keyring.replace(first, SECOND, 6.0, QUICK)
        assert removed == [name.removeprefix("keys/") for name in first.opened_by]
    with pytest.raises(errors.WrongPassword):
        opened(repo.store)
    assert opened(repo.store, b"third").id == repo.id
    with opened(repo.store, SECOND) as again:
        assert again.opened_by == (f"keys/{key_id}",)
        assert verify.verify_all(again, samples.silent).findings == ()


def test_a_password_that_several_keys_have_opens_none_of_them_afterwards(repo: Repository) -> None:
    added(repo, PASSWORD)
    added(repo, PASSWORD)
    with repository.open(repo.store, lambda: PASSWORD, every_key=True) as first:
        assert len(keyring.replace(first, SECOND, 6.0, QUICK)[1]) == 3
    with pytest.raises(errors.WrongPassword):
        opened(repo.store)


def test_no_more_keys_are_tried_than_it_takes(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a tenth of a second."""
    for number in range(9):
        added(repo, b"%d" % number)
    tried: list[bytes] = []
    derive = keys.Argon2.derive

    def counted(cost: keys.Argon2, password: bytes, salt: bytes) -> bytes:
        tried.append(salt)
        return derive(cost, password, salt)

    monkeypatch.setattr(keys.Argon2, "derive", counted)
    for number in range(9):
        tried.clear()
        [mine] = opened(repo.store, b"%d" % number).opened_by
        assert len(tried) == repo.key_names().index(mine) + 1


def test_a_store_that_loses_the_new_key_keeps_the_old_one(repo: Repository) -> None:
    store = FaultyStore(repo.store)
    with opened(store) as first:
        store.plan("create", stores.forget, prefix="keys/")
        with pytest.raises(errors.StoreFailed, match="Nothing was removed"):
            keyring.replace(first, SECOND, 6.0, QUICK)
    assert opened(repo.store).id == repo.id


@pytest.mark.parametrize("fault", [stores.fail, stores.lose])
@pytest.mark.parametrize(("method", "prefix"), [("create", "losses/"), ("create", "indexes/"), ("delete", "keys/")])
def test_a_change_that_fails_anywhere_leaves_a_way_in(
    method: str, prefix: str, fault: Callable[[Exception], stores.Fault]
) -> None:
    repo = stores.new_repository()
    samples.add_snapshot(repo, {"vda": IMAGE})
    store = FaultyStore(repo.store)
    with opened(store) as first:
        store.plan(method, fault(errors.StoreFailed("power cut")), prefix=prefix)
        with pytest.raises(errors.StoreFailed):
            keyring.replace(first, SECOND, 6.0, QUICK)
    with opened(repo.store, SECOND) as second:
        for name in set(second.key_names()) - set(second.opened_by):
            keyring.remove(second, name.removeprefix("keys/"), 7.0)
        assert verify.verify_all(second, samples.silent).findings == ()
    with pytest.raises(errors.WrongPassword):
        opened(repo.store)


def test_without_encryption_there_is_nothing_to_guard() -> None:
    with repository.create(MemoryStore(), None) as plain, pytest.raises(errors.Usage, match="headstart copy"):
        keyring.add(plain, SECOND, 5.0, cost=QUICK)


# -- the structure alone


@pytest.fixture
def server(repo: Repository) -> Repository:
    samples.add_snapshot(repo, {"vda": IMAGE})
    added(repo, b"server", structure_alone=True)
    return opened(repo.store, b"server", structure=True)


def test_the_structure_alone_is_not_enough_unless_it_is_said(server: Repository) -> None:
    with pytest.raises(keys.NoContent, match="opens the structure of the repository, not its content"):
        opened(server.store, b"server")


def test_the_structure_alone_tells_snapshots_and_no_content(server: Repository) -> None:
    [made] = snapshot.all_manifests(server).manifests
    assert (server.secrets.content, server.secrets.chunk_id) == (None, None)
    with pytest.raises(keys.NoContent):
        attachment.read_attachment(server, made.attachments[0])
    with pytest.raises(keys.NoContent):
        server.chunk_id(b"is this there?")
    with pytest.raises(keys.NoContent), server.writer(samples.ignore) as writer:
        writer.put(ChunkClass.CONTENT, bytes(32), b"x")


def test_the_key_object_of_the_structure_holds_no_other_secret(repo: Repository) -> None:
    """What is wrapped are images, from which the secrets cannot be had."""
    name, data = keys.wrap(repo.secrets.structure_alone(), b"server", QUICK, 5.0)
    unwrapped = keys.KeyObject.decode(name, data).unwrap(b"server")
    assert unwrapped is not None and unwrapped.repository_id == repo.secrets.repository_id
    assert repo.secrets.content and repo.secrets.chunk_id
    assert repo.secrets.content not in unwrapped.joined and repo.secrets.chunk_id not in unwrapped.joined


def test_the_structure_alone_changes_its_own_password_and_no_other_key(server: Repository) -> None:
    with pytest.raises(keys.NoContent):
        keyring.remove(server, next(iter(set(server.key_names()) - set(server.opened_by)))[5:], 6.0)
    keyring.replace(server, b"new", 6.0, QUICK)
    with opened(server.store, b"new", structure=True) as again:
        assert not again.secrets.opens_content
    assert opened(server.store).secrets.opens_content
    with pytest.raises(errors.WrongPassword):
        opened(server.store, b"server", structure=True)


def test_one_password_for_both_opens_everything(server: Repository) -> None:
    added(stores.reopened(server), PASSWORD, structure_alone=True)
    assert opened(server.store, structure=True).secrets.opens_content


def test_a_key_that_says_more_than_this_version_knows(repo: Repository) -> None:
    _, data = keys.wrap(repo.secrets, SECOND, QUICK)
    for kdf, flags in ((1, 4), (0, 1)):
        strange = data[:8] + bytes([kdf, flags]) + data[10:]
        with pytest.raises(errors.Unsupported):
            keys.KeyObject.decode(layout.KEYS + keys._key_id(strange), strange)
