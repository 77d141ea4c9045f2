"""The tree nodes used last, as they were read and checked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from headstart import units
from headstart.repository.reader import Reader

_CAPACITY = 16 * units.MIB


class ChunkCache:
    """Least recently used chunks, at most 16 MiB and what one call needs. Any thread may use it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0

    def read(self, chunk_ids: Iterable[bytes]) -> dict[bytes, bytes]:
        wanted = dict.fromkeys(chunk_ids)
        found = self._cached(wanted)
        lacking = [chunk_id for chunk_id in wanted if chunk_id not in found]
        fetched = {chunk_id: bytes(data) for chunk_id, data in self._reader.read_many(lacking)}
        self._keep(fetched)
        return found | fetched

    def _cached(self, wanted: Iterable[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        with self._lock:
            for chunk_id in wanted:
                if chunk_id in self._chunks:
                    self._chunks.move_to_end(chunk_id)
                    found[chunk_id] = self._chunks[chunk_id]
        return found

    def _keep(self, fetched: dict[bytes, bytes]) -> None:
        with self._lock:
            for chunk_id, data in fetched.items():
                if chunk_id not in self._chunks:
                    self._chunks[chunk_id] = data
                    self._size += len(data)
            while self._size > _CAPACITY:
                self._size -= len(self._chunks.popitem(last=False)[1])
