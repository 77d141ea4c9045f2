"""The ``config`` object: what a repository is. Readable by anybody, changeable by nobody without its secrets."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from headstart import errors
from headstart.repository import layout, objects, protection
from headstart.repository.keys import Secrets
from headstart.store.contract import Missing, Store

_BODY = layout.HEADER_LENGTH + layout.DIGEST_LENGTH


@dataclass(frozen=True, slots=True)
class Config:
    """``block_size`` in bytes; the blocks that a leaf of a tree covers; the children of an inner node. New objects are
    locked for ``immutable_days``, where that is not 0."""

    repository_id: bytes
    block_size: int
    tree_leaf: int = layout.TREE_LEAF
    tree_fanout: int = layout.TREE_FANOUT
    immutable_days: int = 0

    def encode(self, secrets: Secrets) -> bytes:
        """Header, a keyed hash of the rest under the structure secret, JSON."""
        values: dict[str, Any] = {
            "repository": self.repository_id.hex(),
            "block_size": self.block_size,
            "tree_leaf": self.tree_leaf,
            "tree_fanout": self.tree_fanout,
            "twin": True,
        }
        if self.immutable_days:
            values["immutable_days"] = self.immutable_days
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        return layout.header(layout.Kind.CONFIG) + _code(secrets, text) + text


def put(store: Store, config: Config, secrets: Secrets) -> None:
    """The config, with which the repository exists, then its twin. Raises ``Exists`` when there is a config."""
    data = config.encode(secrets)
    objects.put(store, layout.CONFIG_KEY, data)
    objects.put(store, layout.CONFIG_TWIN, data)


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A config object as it was read: not to be believed before ``check``. ``twin``: it has one."""

    name: str
    config: Config
    twin: bool
    data: bytes

    def check(self, secrets: Secrets) -> Config:
        code, text = self.data[layout.HEADER_LENGTH : _BODY], self.data[_BODY:]
        if not hmac.compare_digest(code, _code(secrets, text)):
            raise _damaged(self.name, "its content was changed")
        return self.config


def read(store: Store, name: str = layout.CONFIG_KEY) -> StoredConfig:
    """Raises ``NoRepository``, ``Unsupported`` when it is newer than this program, or ``Damaged``."""
    try:
        data = store.read(name)
    except Missing:
        raise errors.NoRepository(
            f"There is no repository in {store!r}. Check the address, or create one with: headstart init"
        ) from None
    _check_start(store, data)
    text = data[_BODY:]
    try:
        return StoredConfig(name, _decode(text), bool(json.loads(text).get("twin")), data)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(name, "it cannot be decoded") from None


def _check_start(store: Store, data: bytes) -> None:
    start = layout.header(layout.Kind.CONFIG)
    if data[: len(start) - 1] != start[:-1]:
        raise errors.NoRepository(f"{store!r} holds something else, not a repository of headstart.")
    if data[len(start) - 1 : len(start)] not in [bytes([version]) for version in layout.READABLE]:
        raise errors.Unsupported(
            f"The repository in {store!r} was written by a newer version of headstart. Update headstart."
        )


def _decode(text: bytes) -> Config:
    values = json.loads(text)
    block_size, leaf, fanout = numbers = [values[name] for name in ("block_size", "tree_leaf", "tree_fanout")]
    if not all(isinstance(number, int) and 2 <= number <= layout.MAX_BLOCK_SIZE for number in numbers):
        raise ValueError("out of range")
    days = values.get("immutable_days", 0)
    if not isinstance(days, int) or not 0 <= days <= protection.MAX_DAYS:
        raise ValueError("out of range")
    return Config(bytes.fromhex(values["repository"]), block_size, leaf, fanout, days)


def _code(secrets: Secrets, text: bytes) -> bytes:
    return blake3(b"config\0" + text, key=secrets.structure).digest()


def _damaged(name: str, reason: str) -> errors.Damaged:
    return errors.Damaged(f"{name} is damaged: {reason}.", object=name)


def require(store: Store) -> None:
    """A place that is not mounted has lost nothing. (One without its config may have, and have a twin of it.)"""
    if not (_is_there(store, layout.CONFIG_KEY) or _is_there(store, layout.CONFIG_TWIN)):
        raise errors.StoreFailed(f"{store!r} holds no repository now: check that it is mounted.")


def _is_there(store: Store, name: str) -> bool:
    try:
        store.read(name)
    except Missing:
        return False
    return True
