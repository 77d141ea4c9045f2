"""Objects under names that nobody else can have chosen."""

from __future__ import annotations

from headstart.repository import layout
from headstart.store.contract import Data, Exists, Store


def put(store: Store, key: str, data: Data) -> None:
    """``create``, where finding the very same bytes means that an earlier try of ours came through."""
    try:
        store.create(key, data)
    except Exists:
        if store.read(key) != data:
            raise


def names(store: Store, prefix: str) -> list[str]:
    """Of all objects under ``prefix`` that are named by an id: others are foreign."""
    listed = (name for name, _ in store.list(prefix))
    return sorted(name for name in listed if layout.is_object_id(name.removeprefix(prefix)))
