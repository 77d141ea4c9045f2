"""Packs as a server takes them, without a repository."""

from __future__ import annotations

import hashlib

from headstart.repository import layout


def pack(seed: int, size: int = 64 * 1024) -> bytes:
    """Something that the server takes for a pack."""
    block = hashlib.sha256(seed.to_bytes(8, "little")).digest()
    return layout.header(layout.Kind.PACK) + block * (size // len(block))
