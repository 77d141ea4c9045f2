"""Creating an object under a name that nobody else can have chosen."""

from __future__ import annotations

from headstart.store.contract import Data, Exists, Store


def put(store: Store, key: str, data: Data) -> None:
    """``create``, where finding the very same bytes means that an earlier try of ours came through."""
    try:
        store.create(key, data)
    except Exists:
        if store.read(key) != data:
            raise
