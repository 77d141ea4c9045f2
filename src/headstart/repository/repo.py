"""A repository that is open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from blake3 import blake3

from headstart import errors, units
from headstart.repository import cache, config, keys, layout, objects, protection, seal
from headstart.repository.config import Config
from headstart.repository.holdings import Holdings
from headstart.repository.index import Index
from headstart.repository.reader import Reader
from headstart.repository.whole import Whole
from headstart.repository.writer import Writer
from headstart.store import contract
from headstart.store.contract import Data, Exists, Store

Token = TypeVar("Token")


class Repository:
    """Chunks, and the sealed objects that refer to them. Every method may be called from several threads at once."""

    def __init__(
        self,
        store: Store,
        secrets: keys.Secrets,
        settings: Config,
        encrypted: bool,
        immutable_days: int | None = None,
    ) -> None:
        self.store = store
        self.secrets = secrets
        #: Hex. It commits to the secrets: a repository with other keys has another id. Remember it between runs,
        #: and a repository put in this one's place is found out.
        self.id = secrets.repository_id.hex()
        #: Bytes.
        self.block_size = settings.block_size
        self.tree_leaf = settings.tree_leaf
        self.tree_fanout = settings.tree_fanout
        #: For so long after a snapshot is made, nobody can remove what it needs; 0: there is no such promise.
        self.promised_days = settings.immutable_days
        #: As many, unless its place kept objects for fewer when it was last asked.
        self.immutable_days = settings.immutable_days if immutable_days is None else immutable_days
        #: False where encryption was declined: whoever can read the store can read everything.
        self.encrypted = encrypted
        #: Names of key objects that the password opened.
        self.opened_by: tuple[str, ...] = ()
        self.holdings = Holdings(secrets, store)
        self.index = Index(self.holdings)
        #: For ``lost``.
        self.whole = Whole()
        self._id_keys = {layout.ChunkClass.TREE: seal.derive(secrets.structure, b"tree id")}
        if secrets.opens_content:
            self._id_keys[layout.ChunkClass.CONTENT] = seal.derive(secrets.of_content_ids, b"content id")
        self._reader = Reader(secrets, store, self.holdings, self.index, self.chunk_id)
        self._nodes = cache.ChunkCache(self._reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def chunk_id(self, data: Data, chunk_class: layout.ChunkClass = layout.ChunkClass.CONTENT) -> bytes:
        """The id under which this data is, or would be, stored: 32 bytes."""
        if chunk_class not in self._id_keys:
            raise keys.NoContent
        return blake3(data, key=self._id_keys[chunk_class]).digest()

    def missing(self, chunk_ids: Iterable[bytes]) -> list[bytes]:
        """Those of ``chunk_ids`` that are not known to be durable, each once."""
        return self.index.missing(chunk_ids)

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self.index

    def adopt(self, pack_id: str) -> None:
        """Take up a durable pack (hex) that a run left without an index object. ``Damaged`` if it is not whole."""
        self.holdings.adopt(bytes.fromhex(pack_id))

    def drop_lost(self) -> set[str]:
        """Look whether every pack that is known is in the store, and whole.

        What was in the others counts as missing from now on, and is stored again. Returns their ids (hex). Costs one
        listing of the packs. Raises ``StoreFailed`` when the whole repository is gone.
        """
        return {pack_id.hex() for pack_id in self.holdings.drop_lost()}

    def gone(self, packs: Iterable[str]) -> set[str]:
        """As ``drop_lost``, and of these packs (hex) also those that were found lost before."""
        return {each.hex() for each in self.holdings.gone(map(bytes.fromhex, packs))}

    def writer(self, on_durable: Callable[[list[Token]], None]) -> Writer[Token]:
        """For use in a ``with`` block. Knows what other writers made durable before now."""
        self.holdings.refresh()
        return Writer(self.secrets, self.store, self.holdings, self.index, on_durable)

    def read_chunk(self, chunk_id: bytes) -> bytes:
        """One chunk, in the calling thread; ``Damaged`` when it is missing or not what was written."""
        return bytes(self._reader.read_one(chunk_id))

    def read_chunks(self, chunk_ids: Iterable[bytes]) -> Iterator[tuple[bytes, Data]]:
        """Id and content of each of the chunks once, in an order that suits the store; ``Damaged`` as ``read_chunk``.

        All the ids are held in memory (about 300 bytes each): give a whole disk in windows. Of the content, only a few
        MiB are in memory at a time. The contents belong to the caller.
        """
        return self._reader.read_many(chunk_ids)

    def scan_chunks(self, chunk_ids: Iterable[bytes]) -> Iterator[tuple[bytes, Data | errors.Damaged]]:
        """Like ``read_chunks``, but with the error in place of a chunk that cannot be read."""
        return self._reader.scan(chunk_ids)

    def read_nodes(self, node_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Tree nodes, through a cache of a few MiB."""
        return self._nodes.read(node_ids)

    def scan_copies(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes, Data | errors.Damaged]]:
        """Position in the index, id and content of each of these copies, or the error in place of the content."""
        return self._reader.scan_copies(positions)

    def key_names(self) -> tuple[str, ...]:
        """The objects that wrap the secrets."""
        return tuple(keys.names(self.store))

    def put_object(self, kind: layout.Kind, key: str, payload: bytes) -> int:
        """Seal and create a structure object; ``Exists`` when the key is taken. Returns its bytes."""
        data = seal.seal_object(self.secrets, kind, key, payload)
        self.store.create(key, data)
        return len(data)

    def get_object(self, kind: layout.Kind, key: str, most: int = layout.MAX_OBJECT_LENGTH) -> bytes:
        """The payload of a structure object, of ``most`` bytes; ``Damaged``, or ``Missing`` (which is one)."""
        return seal.open_object(self.secrets, kind, key, self.store.read(key), most)


def create(
    store: Store,
    password: bytes | None,
    *,
    block_size: int = units.BLOCK_SIZE,
    cost: keys.Argon2 = keys.DEFAULT_COST,
    immutable_days: int = 0,
    now: float | None = None,
) -> Repository:
    """Make a repository in an empty store. ``password`` None declines encryption.

    ``block_size`` is a power of two in bytes; ``cost`` that of guessing at the password; ``immutable_days``: see
    ``protection``; ``now`` is noted with the key, in seconds since 1970. Raises ``TargetRefused`` when the store is not
    empty, ``Usage`` for a block size that cannot be, ``Unsupported`` for a store that cannot keep what is wanted, and
    what the store raises.
    """
    _check_block_size(block_size)
    if password == b"":
        raise errors.Usage("The password is empty. Give one, or decline encryption.")
    if immutable_days:
        protection.require(store, immutable_days)
    _check_empty(store)
    kept_days = protection.protect(store, immutable_days)
    secrets = keys.Secrets.generate()
    settings = Config(secrets.repository_id, block_size, immutable_days=immutable_days)
    key, wrapped = keys.wrap(secrets, password, cost, now)
    objects.put(store, key, wrapped)
    _check_refusal(store, key)
    try:
        config.put(store, settings, secrets)
    except Exists:
        store.delete(key)
        raise errors.TargetRefused(f"Another repository was just created in {store!r}.") from None
    return Repository(store, secrets, settings, password is not None, kept_days)


#: From the id of a repository to its secrets.
_Unlock = Callable[[bytes], keys.Unlocked]


def open_repository(
    store: Store,
    password: Callable[[], bytes],
    *,
    to_mend: bool = False,
    structure_is_enough: bool = False,
    every_key: bool = False,
) -> Repository:
    """Open the repository in ``store``. ``password`` is called once, if a password is needed at all.

    ``to_mend``: also where ``config`` is damaged or missing, by its twin. ``structure_is_enough``: also with a password
    that opens no content; without it, that raises ``keys.NoContent``. ``every_key``: note all that the password opens,
    not one that is enough. Raises ``NoRepository``, ``WrongPassword``,
    ``Unsupported`` when it is newer than this program, ``Damaged``.
    """
    asked = functools.cache(password)
    opened = _open_any(store, lambda id_: keys.unlock(store, id_, asked, every_key=every_key), to_mend)
    if not opened.secrets.opens_content and not structure_is_enough:
        opened.close()
        raise keys.NoContent
    return opened


def open_with(store: Store, secrets: keys.Secrets) -> Repository:
    """Open the repository in ``store`` without a key object, also where ``config`` is damaged or missing. Raises
    ``WrongPassword`` when the secrets are of another one, else what ``open_repository`` does."""

    def unlock(repository_id: bytes) -> keys.Unlocked:
        if secrets.repository_id != repository_id:
            raise errors.WrongPassword(
                f"The key is of repository {secrets.repository_id.hex()}, and this is {repository_id.hex()}."
            )
        return keys.Unlocked(secrets, guarded=True)

    return _open_any(store, unlock, to_mend=True)


def _open_any(store: Store, unlock: _Unlock, to_mend: bool) -> Repository:
    try:
        return _open(store, layout.CONFIG_KEY, unlock)
    except (errors.NoRepository, errors.Unsupported, errors.WrongPassword, errors.Damaged) as error:
        if isinstance(error, errors.Unsupported) and not to_mend:
            raise
        opened = _by_twin(store, unlock)
        if opened is None:
            raise
        if not to_mend:
            opened.close()
            raise errors.Damaged(
                f"{error} {layout.CONFIG_KEY} has a twin, so nothing is lost: put it back with 'headstart repair'.",
                object=layout.CONFIG_KEY,
            ) from error
        return opened


def _by_twin(store: Store, unlock: _Unlock) -> Repository | None:
    """None where the twin is of no use either; ``WrongPassword`` where only the password is missing."""
    try:
        if _content(store, layout.CONFIG_TWIN) == _content(store, layout.CONFIG_KEY):
            return None
        return _open(store, layout.CONFIG_TWIN, unlock)
    except errors.WrongPassword:
        raise
    except errors.HeadstartError:
        return None


def _content(store: Store, name: str) -> bytes:
    try:
        return store.read(name)
    except errors.Damaged:
        return b""


def _open(store: Store, name: str, unlock: _Unlock) -> Repository:
    stored = config.read(store, name)
    unlocked = unlock(stored.config.repository_id)
    settings = stored.check(unlocked.secrets)
    kept_days = protection.protect(store, settings.immutable_days)
    opened = Repository(store, unlocked.secrets, settings, unlocked.guarded, kept_days)
    opened.opened_by = unlocked.keys
    return opened


def _check_empty(store: Store) -> None:
    """Keys without a config are what is left of an attempt that was interrupted: they open nothing."""
    for name, _ in store.list(""):
        if not name.startswith(layout.KEYS):
            what = "holds a repository already" if name == layout.CONFIG_KEY else f"is not empty ({name})"
            raise errors.TargetRefused(f"{store!r} {what}. Name a place that is empty.")


def _check_refusal(store: Store, key: str) -> None:
    """Whether the store, a server that we do not know, refuses to create what is there."""
    try:
        store.create(key, b"")  # nobody can take it for what we created
    except Exists:
        return
    store.delete(key)
    raise contract.overwrites(store)


def _check_block_size(block_size: int) -> None:
    power_of_two = block_size > 0 and not block_size & (block_size - 1)
    if not power_of_two or not layout.MIN_BLOCK_SIZE <= block_size <= layout.MAX_BLOCK_SIZE:
        raise errors.Usage(
            f"A block size of {block_size} bytes cannot be: it is a power of two "
            f"from {units.format_bytes(layout.MIN_BLOCK_SIZE)} to {units.format_bytes(layout.MAX_BLOCK_SIZE)}."
        )
