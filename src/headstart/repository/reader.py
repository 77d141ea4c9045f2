"""Reading chunks back: grouped by pack, neighbours in one request, several requests at a time."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cryptography.exceptions import InvalidTag

from headstart import errors, units
from headstart.repository import codec, layout, pack, seal
from headstart.repository.holdings import Holdings
from headstart.repository.index import Index
from headstart.repository.keys import Secrets
from headstart.repository.table import Frame, Location
from headstart.store.contract import Data, Missing, Store

#: Requests that are under way or wait to be used, at least: bounds memory.
AHEAD = 8
#: Bytes of chunks, as they are used, that one request is for.
_REQUEST_BYTES = 2 * units.MIB
#: Bytes between two wanted chunks that are read along rather than asked for in a request of their own.
_GAP = 128 * units.KIB

Wanted = tuple[bytes, Location]
Checked = tuple[bytes, Data | errors.Damaged]
ChunkIdOf = Callable[[Data, layout.ChunkClass], bytes]


class Reader:
    """Reads and checks chunks. Any thread may use it."""

    def __init__(
        self, secrets: Secrets, store: Store, holdings: Holdings, index: Index, chunk_id_of: ChunkIdOf
    ) -> None:
        self._secrets = secrets
        self._store = store
        self._holdings = holdings
        self._index = index
        self._chunk_id_of = chunk_id_of
        self._missed: set[bytes] = set()
        # They wait for the store, or run without the interpreter's lock.
        self._threads = ThreadPoolExecutor(store.window, thread_name_prefix="chunk reader")
        self._ahead = max(AHEAD, store.window)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def read_one(self, chunk_id: bytes) -> Data:
        located, missing = self._locate([chunk_id])
        [(_, found)] = missing or self._fetch(located)
        return _or_raise(found)

    def read_many(self, chunk_ids: Iterable[bytes]) -> Iterator[tuple[bytes, Data]]:
        for chunk_id, found in self.scan(chunk_ids):
            yield chunk_id, _or_raise(found)

    def scan(self, chunk_ids: Iterable[bytes]) -> Iterator[Checked]:
        """Like ``read_many``, with the error in place of what cannot be read."""
        located, missing = self._locate(chunk_ids)
        yield from missing
        requests = list(_requests(located))
        if len(requests) == 1:
            yield from self._fetch(requests[0])  # a thread more would only cost
        else:
            yield from self._pipelined(requests, self._fetch)

    def scan_copies(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes, Data | errors.Damaged]]:
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
                if len(running) >= self._ahead:
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
        return wanted, missing

    def _fetch(self, wanted: Sequence[Wanted]) -> list[Checked]:
        """Chunks of one pack, and what is damaged there from another one that has it as well."""
        found = self._read(wanted)
        return [
            (chunk_id, self._elsewhere(chunk_id, location, checked) if isinstance(checked, errors.Damaged) else checked)
            for (chunk_id, checked), (_, location) in zip(found, wanted, strict=True)
        ]

    def _elsewhere(self, chunk_id: bytes, location: Location, damaged: errors.Damaged) -> Data | errors.Damaged:
        if isinstance(damaged, Missing) and location.pack_id not in self._missed:
            # What was needed of it may have been moved, or stored again, also where no index lists it.
            self._missed.add(location.pack_id)
            self._holdings.refresh()
            self._holdings.adopt_all()
        for other in self._index.others(chunk_id, location):
            [(_, found)] = self._read([(chunk_id, other)])
            if not isinstance(found, errors.Damaged):
                return found
        self._holdings.recheck()
        moved = self._index.find(chunk_id)
        if moved is None or moved.position == location.position:
            return damaged
        [(_, found)] = self._read([(chunk_id, moved)])
        return found

    def _read(self, wanted: Sequence[Wanted]) -> list[Checked]:
        """Chunks of one pack, ascending and near each other, in one request."""
        first, last = wanted[0][1].frame, wanted[-1][1].frame
        name = pack.pack_key(first.pack_id)
        end = last.offset + last.sealed_length
        try:
            piece = memoryview(self._store.read_range(name, first.offset, end - first.offset))
        except errors.Damaged as error:
            if first.place == last.place or isinstance(error, Missing):
                return [(chunk_id, error) for chunk_id, _ in wanted]
            frames = itertools.groupby(wanted, key=_place_of)
            return [
                checked for _, of_frame in frames for checked in self._read(list(of_frame))
            ]  # save what can be read
        sealers: dict[bytes, seal.FrameSealer] = {}
        found: list[Checked] = []
        for _, group in itertools.groupby(wanted, key=_place_of):
            of_frame = list(group)
            frame = of_frame[0][1].frame
            if frame.origin not in sealers:
                sealers[frame.origin] = seal.FrameSealer(self._secrets, frame.chunk_class, frame.origin)
            found += self._open(sealers[frame.origin], of_frame, piece[frame.offset - first.offset :])
        return found

    def _open(self, sealer: seal.FrameSealer, wanted: Sequence[Wanted], piece: memoryview) -> Iterator[Checked]:
        """The chunks of one frame, which ``piece`` begins with."""
        frame = wanted[0][1].frame
        try:
            if frame.length > max(layout.MAX_CHUNK_LENGTH, layout.FRAME_SIZE):
                raise ValueError("longer than a frame can be")
            bound = wanted[0][0] if frame.flags & layout.BOUND else b""
            data: Data = sealer.open(frame.number, piece[: frame.sealed_length], bound)
            if frame.flags & layout.COMPRESSED:
                data = codec.decompress(data, frame.length)
        except (InvalidTag, ValueError):
            for chunk_id, _ in wanted:
                yield chunk_id, _damaged(chunk_id, frame)
            return
        view = memoryview(data)
        for chunk_id, location in wanted:
            whole = location.length == len(data)
            chunk = data if whole else view[location.start : location.start + location.length]
            if self._chunk_id_of(chunk, frame.chunk_class) == chunk_id:
                yield chunk_id, chunk
            else:
                yield chunk_id, _damaged(chunk_id, frame)


def _place_of(wanted: Wanted) -> int:
    return wanted[1].frame.place


def _damaged(chunk_id: bytes, frame: Frame) -> errors.Damaged:
    name = pack.pack_key(frame.pack_id)
    return errors.Damaged(
        f"{name} is damaged: chunk {chunk_id.hex()} at {frame.offset} is not what was written.",
        object=name,
        chunk=chunk_id.hex(),
        offset=frame.offset,
        length=frame.sealed_length,
    )


def _or_raise(found: Data | errors.Damaged) -> Data:
    if isinstance(found, errors.Damaged):
        raise found
    return found


def _requests(located: list[Wanted]) -> Iterator[list[Wanted]]:
    """Cut where the pack changes, a gap is large, or a request has grown to its size; never within a frame."""
    request: list[Wanted] = []
    size = 0
    for item, following in itertools.zip_longest(located, located[1:]):
        request.append(item)
        size += item[1].length
        if following is None or _cut(item[1].frame, following[1].frame, size):
            yield request
            request, size = [], 0


def _cut(one: Frame, following: Frame, size: int) -> bool:
    if one.place == following.place:
        return False
    gap = following.offset - one.offset - one.sealed_length
    return size >= _REQUEST_BYTES or one.pack_id != following.pack_id or gap > _GAP
