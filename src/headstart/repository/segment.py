"""A part of an index in a file of the cache. It is written once, whole and durable, and never changed.

::

    magic | place and length of the head, its code | columns, each from a page on ... | head

The head is JSON: the repository, the index objects that the segment was made of, and of each column its place and its
code. Codes are keyed by the secrets of the repository, so that a damaged file and one of another repository are found
out. The head's is looked at whenever a segment is opened, those of the columns, which are as large as the file, when
something does not fit (``is_sound``): then what is missing or damaged may only be so in the cache.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from blake3 import blake3

from headstart import units
from headstart.repository import known, layout, table
from headstart.repository.known import Known
from headstart.repository.packtable import Moved
from headstart.repository.table import Base, Columns, Part

_MAGIC = b"HSINDEX0"
_START = struct.Struct("<8sQQ32s")
_PAGE = 4096
_PIECE = units.MIB
#: The columns in their order, each with the type of its numbers. ``slots`` comes first: random places of it are read.
_TYPES: dict[str, Literal["I", "B", "Q"]] = {
    "slots": "I",
    "ids": "B",
    "lengths": "I",
    "frames": "I",
    "starts": "I",
    "offsets": "I",
    "sealed_lengths": "I",
    "flags": "B",
    "pack_ids": "B",
    "classes": "B",
    "sizes": "Q",
    "firsts": "I",
    "first_frames": "I",
}
#: Those that differ when parts are joined.
_NUMBERED = ("slots", "firsts", "first_frames")
#: Those whose codes are looked at whenever a segment is opened.
_SMALL = ("pack_ids", "classes", "sizes", "firsts", "first_frames", "moved", "listed")
#: Of a pack with moved frames, before their table: its number, its frames, the packs that they were sealed in.
_MOVED = struct.Struct("<III")


class Unusable(Exception):
    """No segment of this repository, or one that is damaged."""


class Segment(Part):
    """``known``: the index objects that it was made of. It may be used after its file was removed."""

    def __init__(self, path: Path, key: bytes, base: Base) -> None:
        """``Unusable``, or ``OSError``."""
        self.path = path
        self._key = key
        self._file = path.open("rb", buffering=0)
        try:
            head = _head(self._file.fileno(), key)
            mapped = mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ)
            mapped.madvise(mmap.MADV_RANDOM)  # what is asked for has no neighbours that are wanted too
            whole = memoryview(mapped)
            views = {name: whole[start : start + length] for name, (start, length, _) in head["columns"].items()}
            columns = {name: views[name].cast(kind) for name, kind in _TYPES.items()}
            self.known = known.of_json(head["objects"], bytes(views["listed"]))
            super().__init__(Columns(**columns, moved=_moved(bytes(views["moved"]))), base)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            self._file.close()
            raise Unusable(str(error)) from error
        self._places: dict[str, tuple[int, int, str]] = head["columns"]

    def is_sound(self) -> bool:
        """Whether every byte can be read, and is what was written. Reads the whole file."""
        try:
            return all(
                _code(self._key, _pieces(self._file.fileno(), start, length)).hex() == code
                for start, length, code in self._places.values()
            )
        except OSError:
            return False

    def raw(self, name: str) -> Iterator[bytes]:
        """A column, in pieces. (Not mapped, so that it does not count as ours.) ``Unusable`` where it is damaged."""
        start, length, expected = self._places[name]
        code = blake3(key=self._key)
        for piece in _pieces(self._file.fileno(), start, length):
            code.update(piece)
            yield piece
        if code.hexdigest() != expected:
            raise Unusable(f"{self.path} is damaged")


def write(path: Path, key: bytes, columns: Columns, objects: Sequence[Known]) -> None:
    """A new file. Raises ``OSError``."""
    with _Writing(path, key) as writing:
        for name in _TYPES:
            writing.column(name, [memoryview(getattr(columns, name)).cast("B")])
        writing.column("moved", [_encoded(columns.moved)])
        writing.end(objects)


def join(path: Path, key: bytes, parts: Sequence[Segment]) -> None:
    """A new file with the content of ``parts``, which follow one another. ``Unusable`` where one of them is damaged, or
    ``OSError``."""
    first = parts[0].base
    with _Writing(path, key) as writing:
        for name in _TYPES:
            if name not in _NUMBERED:
                writing.column(name, (piece for each in parts for piece in each.raw(name)))
        firsts, first_frames, moved = array("I"), array("I"), dict[int, Moved]()
        for each in parts:
            base = each.base
            firsts.extend(base.chunks - first.chunks + chunk for chunk in each.columns.firsts)
            first_frames.extend(base.frames - first.frames + frame for frame in each.columns.first_frames)
            moved |= {base.packs - first.packs + own: found for own, found in each.columns.moved.items()}
        writing.column("firsts", [firsts.tobytes()])
        writing.column("first_frames", [first_frames.tobytes()])
        writing.column("moved", [_encoded(moved)])
        writing.slots(sum(map(len, parts)))
        writing.end([each for segment in parts for each in segment.known])


class _Writing:
    """A file that is being written; removed again if that fails."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._key = key
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._columns: dict[str, tuple[int, int, str]] = {}
        self._end = _PAGE

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._file)
        if error is not None:
            self._path.unlink(missing_ok=True)

    def column(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        start, code = self._end, blake3(key=self._key)
        for piece in pieces:
            code.update(piece)
            self._end += _write(self._file, piece, self._end)
        self._ended(name, start, code.digest())

    def slots(self, chunks: int) -> None:
        """Once the ids are there."""
        start, length = self._end, 4 * table.slots_for(chunks)
        os.posix_fallocate(self._file, start, length)  # a mapped page without room would end the process
        with mmap.mmap(self._file, length, offset=start) as mapped, memoryview(mapped).cast("I") as slots:
            ids_start, ids_length, _ = self._columns["ids"]
            table.enter(slots, 0, _pieces(self._file, ids_start, ids_length))
        self._end += length
        self._ended("slots", start, _code(self._key, _pieces(self._file, start, length)))

    def _ended(self, name: str, start: int, code: bytes) -> None:
        self._columns[name] = start, self._end - start, code.hex()
        self._end = -(-self._end // _PAGE) * _PAGE

    def end(self, objects: Sequence[Known]) -> None:
        self.column("listed", [each.packs for each in objects])
        told = {"objects": known.told(objects), "columns": self._columns}
        head = json.dumps(told, separators=(",", ":")).encode()
        _write(self._file, head, self._end)
        code = _code(self._key, [head])
        os.fsync(self._file)  # the start makes it whole, so it comes last
        _write(self._file, _START.pack(_MAGIC, self._end, len(head), code), 0)
        os.fsync(self._file)


def _head(descriptor: int, key: bytes) -> dict[str, Any]:
    magic, start, length, code = _START.unpack(os.pread(descriptor, _START.size, 0))
    size = os.fstat(descriptor).st_size
    if magic != _MAGIC or start + length != size:
        raise ValueError("no segment, or a part of one")
    head = os.pread(descriptor, length, start)
    if _code(key, [head]) != code:
        raise ValueError("of another repository, or damaged")
    found = json.loads(head)
    for name in _SMALL:
        start, length, expected = found["columns"][name]
        if _code(key, _pieces(descriptor, start, length)).hex() != expected:
            raise ValueError(f"{name} is damaged")
    return dict(found)


def _encoded(moved: dict[int, Moved]) -> bytes:
    return b"".join(
        _MOVED.pack(number, len(each.places), len(each.packs)) + each.encode() for number, each in moved.items()
    )


def _moved(data: bytes) -> dict[int, Moved]:
    found, start = dict[int, Moved](), 0
    while start < len(data):
        number, frames, count = _MOVED.unpack_from(data, start)
        start += _MOVED.size
        length = layout.OBJECT_ID_LENGTH * count + 6 * frames
        found[number] = Moved.decode(count, frames, data[start : start + length])
        start += length
    return found


def _code(key: bytes, pieces: Iterable[bytes]) -> bytes:
    code = blake3(key=key)
    for piece in pieces:
        code.update(piece)
    return code.digest()


def _pieces(descriptor: int, start: int, length: int) -> Iterator[bytes]:
    for offset in range(start, start + length, _PIECE):
        yield os.pread(descriptor, min(_PIECE, start + length - offset), offset)


def _write(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    view = memoryview(data).cast("B")
    written = 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written:], offset + written)
    return written
