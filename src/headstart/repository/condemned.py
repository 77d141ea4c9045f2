"""Lists of packs that go: *condemned*, nothing new is built on them; *doomed*, they are being deleted.

Both are for ever: no pack is ever pardoned. What is still needed of one is copied into another pack before it goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from headstart import errors
from headstart.repository import layout, values


def encode(packs: Iterable[bytes]) -> bytes:
    return json.dumps({"packs": sorted(pack.hex() for pack in packs)}, separators=(",", ":")).encode()


def decode(name: str, payload: bytes) -> frozenset[bytes]:
    """``Damaged`` when it is no such list."""
    try:
        packs = [values.text(each) for each in values.items(values.parse(payload)["packs"])]
        if not all(map(layout.is_object_id, packs)):
            raise ValueError("no pack")
    except (ValueError, KeyError):
        raise errors.Damaged(f"{name} is damaged: it cannot be decoded.", object=name) from None
    return frozenset(map(bytes.fromhex, packs))
