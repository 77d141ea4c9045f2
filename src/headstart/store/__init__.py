"""Named, immutable objects: where the repository lies."""

from headstart.store.address import open_store

__all__ = ["open_store"]
