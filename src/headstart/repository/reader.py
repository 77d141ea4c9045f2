"""Reading chunks back: grouped by pack, neighbours in one request, several requests at a time."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cryptography.exceptions import InvalidTag

from headstart import errors, units
from headstart.repository import codec, layout, pack, seal
from headstart.repository.index import Index
from headstart.repository.keys import Secrets
from headstart.repository.table import Location
from headstart.store.contract import Missing, Store

#: Threads that fetch, open and check. They wait for the store or run without the interpreter lock.
THREADS = max(2, min(4, os.cpu_count() or 1))
#: Bytes of chunks, as they are used, that one request is for. Two requests a thread are under way.
_REQUEST_BYTES = 2 * units.MIB
#: Bytes between two wanted chunks that are read along rather than asked for in a request of their own.
_GAP = 128 * units.KIB

Wanted = tuple[bytes, Location]
Checked = tuple[bytes, bytes | errors.Damaged]
ChunkIdOf = Callable[[bytes, layout.ChunkClass], bytes]


class Reader:
    """Reads and checks chunks. Any thread may use it."""

    def __init__(self, secrets: Secrets, store: Store, index: Index, chunk_id_of: ChunkIdOf) -> None:
        self._secrets = secrets
        self._store = store
        self._index = index
        self._chunk_id_of = chunk_id_of
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="chunk reader")

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def read_one(self, chunk_id: bytes) -> bytes:
        located, missing = self._locate([chunk_id])
        [(_, found)] = missing or self._fetch(located)
        return _or_raise(found)

    def read_many(self, chunk_ids: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for chunk_id, found in self.scan(chunk_ids):
            yield chunk_id, _or_raise(found)

    def scan(self, chunk_ids: Iterable[bytes]) -> Iterator[Checked]:
        """Like ``read_many``, with the error in place of what cannot be read."""
        located, missing = self._locate(chunk_ids)
        yield from missing
        if len(located) == 1:
            yield from self._fetch(located)  # a thread more would only cost
        else:
            yield from self._pipelined(_requests(located), self._fetch)

    def scan_copies(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes, bytes | errors.Damaged]]:
        """The copies at these ascending positions, also those that ``find`` does not give."""
        located = self._index.copies(positions)
        # Not from another pack where this one is damaged.
        found_in_place = self._pipelined(_requests(located), self._read)
        for (chunk_id, location), (_, found) in zip(located, found_in_place, strict=True):
            yield location.position, chunk_id, found

    def _pipelined(
        self, requests: Iterable[list[Wanted]], read: Callable[[list[Wanted]], list[Checked]]
    ) -> Iterator[Checked]:
        running: collections.deque[Future[list[Checked]]] = collections.deque()
        try:
            for request in requests:
                running.append(self._threads.submit(read, request))
                if len(running) >= 2 * THREADS:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            for future in running:
                future.cancel()

    def _locate(self, chunk_ids: Iterable[bytes]) -> tuple[list[Wanted], list[Checked]]:
        """What to read, in the order in which it lies in the packs, and what is nowhere."""
        wanted: list[Wanted] = []
        missing: list[Checked] = []
        for chunk_id, location in self._index.locate(chunk_ids).items():
            if isinstance(location, errors.Damaged):
                missing.append((chunk_id, location))
            else:
                wanted.append((chunk_id, location))
        wanted.sort(key=lambda item: item[1].position)
        return wanted, missing

    def _fetch(self, wanted: Sequence[Wanted]) -> list[Checked]:
        """Chunks of one pack, and what is damaged there from another one that has it as well."""
        found = self._read(wanted)
        return [
            (chunk_id, self._elsewhere(chunk_id, location, checked) if isinstance(checked, errors.Damaged) else checked)
            for (chunk_id, checked), (_, location) in zip(found, wanted, strict=True)
        ]

    def _elsewhere(self, chunk_id: bytes, location: Location, damaged: errors.Damaged) -> bytes | errors.Damaged:
        for other in self._index.others(chunk_id, location):
            [(_, found)] = self._read([(chunk_id, other)])
            if not isinstance(found, errors.Damaged):
                return found
        return damaged

    def _read(self, wanted: Sequence[Wanted]) -> list[Checked]:
        """Chunks of one pack, ascending and near each other, in one request."""
        first, last = wanted[0][1], wanted[-1][1]
        name = pack.pack_key(first.pack_id)
        end = last.offset + last.sealed_length
        try:
            piece = memoryview(self._store.read_range(name, first.offset, end - first.offset))
        except errors.Damaged as error:
            if len(wanted) == 1 or isinstance(error, Missing):
                return [(chunk_id, error) for chunk_id, _ in wanted]
            return [checked for item in wanted for checked in self._read([item])]  # save what can be read
        sealer = seal.ChunkSealer(self._secrets, first.chunk_class, first.pack_id)
        return [
            (chunk_id, self._open(sealer, chunk_id, location, piece[location.offset - first.offset :]))
            for chunk_id, location in wanted
        ]

    def _open(
        self, sealer: seal.ChunkSealer, chunk_id: bytes, location: Location, piece: memoryview
    ) -> bytes | errors.Damaged:
        try:
            data = sealer.open(location.number, chunk_id, piece[: location.sealed_length])
            if location.compressed:
                data = codec.decompress(data, location.raw_length)
            if self._chunk_id_of(data, location.chunk_class) != chunk_id:
                raise ValueError("another content")
        except (InvalidTag, ValueError):
            name = pack.pack_key(location.pack_id)
            return errors.Damaged(
                f"{name} is damaged: chunk {chunk_id.hex()} at {location.offset} is not what was written.",
                object=name,
                chunk=chunk_id.hex(),
                offset=location.offset,
                length=location.sealed_length,
            )
        return data


def _or_raise(found: bytes | errors.Damaged) -> bytes:
    if isinstance(found, errors.Damaged):
        raise found
    return found


def _requests(located: list[Wanted]) -> Iterator[list[Wanted]]:
    """Cut where the pack changes, a gap is large, or a request has grown to its size."""
    request: list[Wanted] = []
    size = 0
    for item, following in itertools.zip_longest(located, located[1:]):
        request.append(item)
        size += item[1].raw_length
        if following is None or size >= _REQUEST_BYTES or not _near(item[1], following[1]):
            yield request
            request, size = [], 0


def _near(one: Location, following: Location) -> bool:
    return one.pack_id == following.pack_id and following.offset - one.offset - one.sealed_length <= _GAP
