"""The file of a segment, a qcow2 image: what its header says, and the one thing that we change in it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

#: docs/interop/qcow2.txt: magic, version, offset and length of the backing file's name, all big-endian.
_HEADER = struct.Struct(">4sIQI")
#: At 24 the guest's size; at 36 number of entries and offset of the L1 table, an entry being 8 bytes.
_SIZE = struct.Struct(">Q")
_TABLE = struct.Struct(">IQ")
#: At 60 the number of internal snapshots.
_SNAPSHOTS_AT = 60
#: Of the incompatible features bit 1, ``corrupt``: the image may be read, and is refused to who wants to write.
_FEATURES_AT, _FEATURES = 72, struct.Struct(">Q")
_READ_ONLY = 2
_MAGIC = b"QFI\xfb"


def freeze(path: Path) -> None:
    """Whoever would write to this segment is refused, also one that has opened it already, to use it later: a QEMU that
    was started to receive the VM, when another segment was topmost. It can be read as before."""
    _mark(path, _READ_ONLY, 0)


def thaw(path: Path) -> None:
    _mark(path, 0, _READ_ONLY)


def _mark(path: Path, added: int, taken: int) -> None:
    """Durable when this returns. QEMU writes this part of the header only when it changes options of the image."""
    with path.open("r+b") as file:
        file.seek(_FEATURES_AT)
        (before,) = _FEATURES.unpack(file.read(_FEATURES.size))
        after = (before | added) & ~taken
        if after != before:
            file.seek(_FEATURES_AT)
            file.write(_FEATURES.pack(after))
            file.flush()
            os.fsync(file.fileno())


def is_empty(path: Path) -> bool:
    """Nobody has ever written to this segment."""
    return not any(_first_table(path))


def holds_snapshots(path: Path) -> bool:
    """Somebody keeps internal snapshots in this segment."""
    return any(_read(path, _SNAPSHOTS_AT, 4))


def size_of(path: Path) -> int:
    """As the guest sees it."""
    (size,) = _SIZE.unpack(_read(path, 24, _SIZE.size))
    return int(size)


def _first_table(path: Path) -> bytes:
    entries, offset = _TABLE.unpack(_read(path, 36, _TABLE.size))
    return _read(path, offset, entries * 8)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def backing(path: Path) -> Path | None:
    """What an image stands on; None where it is no qcow2, or on nothing."""
    try:
        with path.open("rb") as file:
            magic, _, offset, length = _HEADER.unpack(file.read(_HEADER.size))
            if magic != _MAGIC or not offset:
                return None
            file.seek(offset)
            return path.parent / file.read(length).decode()
    except (OSError, struct.error, UnicodeDecodeError):
        return None
