"""The ``config`` object: what a repository is. Readable by anybody, changeable by nobody without its secrets."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass

from blake3 import blake3

from headstart import errors
from headstart.repository import layout
from headstart.repository.keys import Secrets
from headstart.store.contract import Missing, Store

_BODY = layout.HEADER_LENGTH + layout.DIGEST_LENGTH


@dataclass(frozen=True, slots=True)
class Config:
    """``block_size`` in bytes; the blocks that a leaf of a tree covers; the children of an inner node."""

    repository_id: bytes
    block_size: int
    tree_leaf: int = layout.TREE_LEAF
    tree_fanout: int = layout.TREE_FANOUT

    def encode(self, secrets: Secrets) -> bytes:
        """Header, a keyed hash of the rest under the structure secret, JSON."""
        values = {
            "repository": self.repository_id.hex(),
            "block_size": self.block_size,
            "tree_leaf": self.tree_leaf,
            "tree_fanout": self.tree_fanout,
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        return layout.header(layout.Kind.CONFIG) + _code(secrets, text) + text


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A config object as it was read: not to be believed before ``check``."""

    config: Config
    _text: bytes
    _code: bytes

    def check(self, secrets: Secrets) -> Config:
        if not hmac.compare_digest(self._code, _code(secrets, self._text)):
            raise _damaged("its content was changed")
        return self.config


def read(store: Store) -> StoredConfig:
    """Raises ``NoRepository``, ``Unsupported`` when it is newer than this program, or ``Damaged``."""
    try:
        data = store.read(layout.CONFIG_KEY)
    except Missing:
        raise errors.NoRepository(
            f"There is no repository in {store!r}. Check the address, or create one with: headstart init"
        ) from None
    _check_start(store, data)
    text = data[_BODY:]
    try:
        config = _decode(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged("it cannot be decoded") from None
    return StoredConfig(config, text, data[layout.HEADER_LENGTH : _BODY])


def _check_start(store: Store, data: bytes) -> None:
    start = layout.header(layout.Kind.CONFIG)
    if data[: len(start) - 1] != start[:-1]:
        raise errors.NoRepository(f"{store!r} holds something else, not a repository of headstart.")
    if data[len(start) - 1 : len(start)] != start[-1:]:
        raise errors.Unsupported(
            f"The repository in {store!r} was written by a newer version of headstart. Update headstart."
        )


def _decode(text: bytes) -> Config:
    values = json.loads(text)
    numbers = [values[name] for name in ("block_size", "tree_leaf", "tree_fanout")]
    if not all(isinstance(number, int) and 2 <= number <= layout.MAX_BLOCK_SIZE for number in numbers):
        raise ValueError("out of range")
    return Config(bytes.fromhex(values["repository"]), *numbers)


def _code(secrets: Secrets, text: bytes) -> bytes:
    return blake3(b"config\0" + text, key=secrets.structure).digest()


def _damaged(reason: str) -> errors.Damaged:
    return errors.Damaged(f"{layout.CONFIG_KEY} is damaged: {reason}.", object=layout.CONFIG_KEY)
