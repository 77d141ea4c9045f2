"""Creating and opening, and everything that can be in the way."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from headstart import errors, repository
from headstart.repository import config, keys, layout
from headstart.repository.repo import Repository
from headstart.store import open_store
from headstart.store.contract import Data, Store
from headstart.store.memory import MemoryStore
from tests.kit import stores
from tests.kit.stores import PASSWORD, QUICK, FaultyStore
from tests.repository import samples
from tests.repository.samples import block


def must_not_ask() -> bytes:
    raise AssertionError("asked for a password")


def keys_of(store: Store) -> list[str]:
    return [name for name, _ in store.list("keys/")]


def test_a_repository_on_a_disk(tmp_path: Path) -> None:
    image = samples.Image(10 * samples.BLOCK, {3: block(3)})
    with repository.create(open_store(str(tmp_path / "r")), PASSWORD, cost=QUICK) as repo:
        manifest = samples.add_snapshot(repo, {"vda": image})
    with repository.open(open_store(str(tmp_path / "r")), lambda: PASSWORD) as repo:
        assert samples.restored(repo, manifest.disks[0]) == image


def test_opens_as_it_was_created() -> None:
    store = MemoryStore()
    with repository.create(store, PASSWORD, block_size=4096, cost=QUICK) as created:
        opened = repository.open(store, lambda: PASSWORD)
    assert (opened.id, opened.block_size, opened.encrypted) == (created.id, 4096, True)
    assert (opened.tree_leaf, opened.tree_fanout) == (256, 256)
    assert opened.chunk_id(b"x") == created.chunk_id(b"x")


def test_the_usual_cost_of_a_password() -> None:
    store = MemoryStore()
    repository.create(store, PASSWORD).close()
    [name] = keys_of(store)
    assert keys.KeyObject.decode(name, store.read(name)).argon2 == keys.Argon2(64 * 1024, 3, 4)
    repository.open(store, lambda: PASSWORD).close()


def test_encryption_declined_needs_no_password() -> None:
    store = MemoryStore()
    repository.create(store, None).close()
    with repository.open(store, must_not_ask) as repo:
        assert not repo.encrypted


def test_other_keys_give_other_ids() -> None:
    one, two = stores.new_repository(), stores.new_repository()
    assert one.id != two.id
    assert one.chunk_id(b"x") != two.chunk_id(b"x")


def test_ids_of_content_and_of_nodes_differ(repo: Repository) -> None:
    """So that no guest can write a block that is a node of a tree."""
    assert repo.chunk_id(b"x") != repo.chunk_id(b"x", layout.ChunkClass.TREE)


def test_a_wrong_password_opens_nothing() -> None:
    repo = stores.new_repository()
    with pytest.raises(errors.WrongPassword, match="No key of this repository"):
        repository.open(repo.store, lambda: b"wrong")


def test_an_empty_password_is_refused() -> None:
    with pytest.raises(errors.Usage, match="empty"):
        repository.create(MemoryStore(), b"")


def test_each_of_several_passwords_opens_it() -> None:
    repo = stores.new_repository()
    repo.store.create(*keys.wrap(repo.secrets, b"second", QUICK))
    for password in (PASSWORD, b"second"):
        assert repository.open(repo.store, lambda given=password: given).id == repo.id  # type: ignore[misc]


def test_asks_once_for_several_keys() -> None:
    repo = stores.new_repository()
    repo.store.create(*keys.wrap(repo.secrets, b"second", QUICK))
    asked: list[int] = []

    def ask() -> bytes:
        asked.append(1)
        return b"wrong"

    with pytest.raises(errors.WrongPassword):
        repository.open(repo.store, ask)
    assert len(asked) == 1


def test_the_key_of_another_repository_opens_nothing() -> None:
    """As an interrupted creation leaves one behind: same password, other secrets."""
    repo = stores.new_repository()
    other = stores.new_repository()
    [foreign] = keys_of(other.store)
    repo.store.create(foreign, other.store.read(foreign))
    assert repository.open(repo.store, lambda: PASSWORD).id == repo.id
    [own] = [name for name in keys_of(repo.store) if name != foreign]
    repo.store.delete(own)
    with pytest.raises(errors.Damaged, match="different repositories"):
        repository.open(repo.store, lambda: PASSWORD)


def test_a_damaged_key_is_told_from_a_wrong_password() -> None:
    repo = stores.new_repository()
    [name] = keys_of(repo.store)
    samples.rewrite(repo, name, samples.flipped(repo.store.read(name), [60]))
    with pytest.raises(errors.Damaged, match=f"{name} is damaged"):
        repository.open(repo.store, must_not_ask)
    repo.store.create(*keys.wrap(repo.secrets, b"second", QUICK))
    assert repository.open(repo.store, lambda: b"second").id == repo.id
    with pytest.raises(errors.WrongPassword, match=f"{name} is damaged"):
        repository.open(repo.store, lambda: PASSWORD)


def test_no_key_at_all() -> None:
    repo = stores.new_repository()
    for name in keys_of(repo.store):
        repo.store.delete(name)
    with pytest.raises(errors.Damaged, match="no key under keys/"):
        repository.open(repo.store, must_not_ask)


def test_a_key_that_would_take_all_memory_is_refused() -> None:
    repo = stores.new_repository()
    _, data = keys.wrap(repo.secrets, PASSWORD, QUICK)
    greedy = data[:12] + (1 << 31).to_bytes(4, "little") + data[16:]
    for old in keys_of(repo.store):
        repo.store.delete(old)
    repo.store.create(f"keys/{keys._key_id(greedy)}", greedy)
    with pytest.raises(errors.Unsupported, match="key derivation"):
        repository.open(repo.store, must_not_ask)


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(errors.NoRepository, match=r"There is no repository in .*headstart init"):
        repository.open(open_store(str(tmp_path)), must_not_ask)


@pytest.mark.parametrize("content", [b"", b"[core]\n\tbare = true\n", b"HDSTRTP\0", b"\0" * 100])
def test_a_foreign_directory(content: bytes) -> None:
    store = MemoryStore()
    store.create("config", content)
    with pytest.raises(errors.NoRepository, match="something else"):
        repository.open(store, must_not_ask)
    with pytest.raises(errors.TargetRefused):
        repository.create(store, PASSWORD)


def test_a_newer_version() -> None:
    repo = stores.new_repository()
    data = repo.store.read("config")
    samples.rewrite(repo, "config", data[:7] + bytes([layout.VERSION + 1]) + data[8:])
    with pytest.raises(errors.Unsupported, match="newer version of headstart"):
        repository.open(repo.store, must_not_ask)


def test_a_config_that_was_changed() -> None:
    repo = stores.new_repository()
    data = repo.store.read("config")
    assert b'"block_size":65536' in data
    samples.rewrite(repo, "config", data.replace(b'"block_size":65536', b'"block_size":32768'))
    with pytest.raises(errors.Damaged, match="config is damaged: its content was changed"):
        repository.open(repo.store, lambda: PASSWORD)


def test_a_config_of_another_repository() -> None:
    repo, other = stores.new_repository(), stores.new_repository()
    samples.rewrite(repo, "config", other.store.read("config"))
    with pytest.raises(errors.Damaged, match="different repositories"):
        repository.open(repo.store, lambda: PASSWORD)
    with pytest.raises(errors.WrongPassword):
        repository.open(repo.store, lambda: b"wrong")


@pytest.mark.parametrize(
    "change",
    [
        {"block_size": "x"},
        {"block_size": -1},
        {"tree_leaf": 0},
        {"repository": 5},
        {"tree_fanout": None},
        {"immutable_days": -1},
    ],
)
def test_a_config_that_makes_no_sense(change: dict[str, object]) -> None:
    store = MemoryStore()
    values = {"repository": "00" * 16, "block_size": 65536, "tree_leaf": 1024, "tree_fanout": 256} | change
    store.create("config", layout.header(layout.Kind.CONFIG) + bytes(32) + json.dumps(values).encode())
    with pytest.raises(errors.Damaged, match="config is damaged"):
        config.read(store)


@pytest.mark.parametrize("block_size", [0, -65536, 1000, 2048, 65537, 2 << 20])
def test_block_sizes_that_cannot_be(block_size: int) -> None:
    with pytest.raises(errors.Usage, match=r"power of two from 4\.0 KiB to 1\.0 MiB"):
        repository.create(MemoryStore(), PASSWORD, block_size=block_size)


def test_never_over_another_repository() -> None:
    repo = stores.new_repository()
    with pytest.raises(errors.TargetRefused, match="holds a repository already"):
        repository.create(repo.store, PASSWORD)


def test_never_into_a_directory_with_files(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(errors.TargetRefused, match=r"not empty \(photo.jpg\)"):
        repository.create(open_store(str(tmp_path)), PASSWORD)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_creating_is_repeatable_after_any_failure() -> None:
    for number in (1, 2, 3, 4):
        for fault in (stores.fail, stores.lose):
            store = FaultyStore(MemoryStore())
            store.plan("create", fault(errors.StoreFailed("power cut")), number=number)
            # What is created a second time, to see it refused, is refused before the answer can be lost.
            refused = number == 2 and fault is stores.lose
            with contextlib.nullcontext() if refused else pytest.raises(errors.StoreFailed):
                repository.create(store, PASSWORD, cost=QUICK)
            if "config" in dict(store.list("")):
                assert repository.open(store, lambda: PASSWORD).encrypted
            else:
                repository.create(store, PASSWORD, cost=QUICK).close()
                assert repository.open(store, lambda: PASSWORD).encrypted


def test_a_store_that_overwrites_is_refused() -> None:
    """A server that does not know conditional writes, and says nothing."""

    class Overwriting(MemoryStore):
        def create(self, key: str, data: Data) -> None:
            self.delete(key)
            super().create(key, data)

    store = Overwriting()
    with pytest.raises(errors.Unsupported, match="conditional writes"):
        repository.create(store, PASSWORD, cost=QUICK)
    assert list(store.list("")) == []


@pytest.mark.parametrize(("days", "kind"), [(1, errors.Unsupported), (-1, errors.Usage), (3651, errors.Usage)])
def test_an_immutable_repository_wants_a_place_that_can_lock(days: int, kind: type[Exception]) -> None:
    store = MemoryStore()
    with pytest.raises(kind, match="immutable"):
        repository.create(store, PASSWORD, cost=QUICK, immutable_days=days)
    assert list(store.list("")) == []


def test_two_creators_at_once() -> None:
    store = FaultyStore(MemoryStore())
    first = repository.create(MemoryStore(), PASSWORD, cost=QUICK)

    def overtake(act: object) -> object:
        for name, _ in first.store.list(""):
            store.store.create(name, first.store.read(name))
        return act()  # type: ignore[operator]

    store.plan("create", overtake, prefix="config")
    with pytest.raises(errors.TargetRefused, match="just created"):
        repository.create(store, PASSWORD, cost=QUICK)
    assert repository.open(store, lambda: PASSWORD).id == first.id
    assert len(keys_of(store)) == 1


def test_secrets_do_not_show() -> None:
    secrets = keys.Secrets.generate()
    assert secrets.content is not None and secrets.content.hex() not in repr(secrets)
    assert repr(secrets.structure) not in repr(secrets)
