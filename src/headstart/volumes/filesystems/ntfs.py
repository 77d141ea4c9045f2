"""NTFS through The Sleuth Kit, and what it does not tell from the file's record in the master file table.

It tells neither how much of a file was ever written, which reads as zeroes from there on whatever the clusters hold,
nor what a reparse point means. Format: the Linux kernel's fs/ntfs3/ntfs.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytsk3

from headstart.volumes.filesystem import UNREPLAYED, Details, Malformed, Node, NotSupported, Run, Source
from headstart.volumes.filesystems.tsk import Tsk, written

_LOG, _VOLUME, _FIRST_FREE = 2, 3, 24
_STANDARD, _LIST, _NAME, _VOLUME_INFORMATION, _DATA, _NAMES, _REPARSE = 0x10, 0x20, 0x30, 0x70, 0x80, 0xA0, 0xC0
#: Of a record.
_IN_USE = 0x01
#: Of an attribute.
_COMPRESSED = 0x0001
#: Of a file, in its standard information, which is in its first record.
_IS_REPARSE_POINT, _IS_ENCRYPTED = 0x400, 0x4000
#: Offline, to be recalled when it is opened, or read.
_IS_ELSEWHERE = 0x1000 | 0x40000 | 0x400000
_DIRTY = 0x01
_END = 0xFFFFFFFF
_SYMLINK, _JUNCTION, _WOF = 0xA000000C, 0xA0000003, 0x80000017
_DEDUPLICATED = 0x80000013
_LINKS = (_SYMLINK, _JUNCTION)
#: Of the cloud: OneDrive and others, which have a digit of their own.
_CLOUD, _WHICH_CLOUD = 0x9000001A, 0xF000
_LONGEST_REPARSE = 16384
#: Streams that a note names.
_NAMED = 20


@dataclass(frozen=True, slots=True)
class _Attribute:
    """``value`` None: it is elsewhere. ``initialized``: bytes that were written."""

    kind: int
    name: str
    flags: int
    value: bytes | None
    initialized: int


class Ntfs(Tsk):
    def __init__(self, source: Source) -> None:
        super().__init__(source, pytsk3.TSK_FS_TYPE_NTFS_DETECT)
        boot = source.read(0, 512)
        cluster = struct.unpack_from("<H", boot, 11)[0] * _clusters(boot[13])
        per_record = struct.unpack_from("<b", boot, 0x40)[0]
        self._last = (-1, bytearray())
        self._record_size = 1 << -per_record if per_record < 0 else per_record * cluster
        if not 256 <= self._record_size <= 65536:
            raise Malformed("file records of a size that cannot be")

    def notes(self) -> Iterable[str]:
        information = next((each.value for each in self._record(_VOLUME) if each.kind == _VOLUME_INFORMATION), None)
        flags = information[10:11] if information else b""
        if (flags and flags[0] & _DIRTY) or not self._log_is_clean():
            yield UNREPLAYED

    def is_hidden(self, directory: int, name: bytes, number: int) -> bool:
        return directory == self.root and number < _FIRST_FREE

    def details(self, number: int) -> Details:
        found = super().details(number)
        data = [each.info for each in self._meta(number) if int(each.info.type) == _DATA]
        notes = []
        streams = sorted({each.name.decode("utf-8", "replace") for each in data if each.name})
        if streams:
            more = f" and {len(streams) - _NAMED} more" if len(streams) > _NAMED else ""
            notes.append(f"alternate data streams were left out: {', '.join(streams[:_NAMED])}{more}")
        if found.node.kind == "directory":
            notes.extend(self._about_folder(number))
        if found.node.kind == "file":
            notes.extend(self._check_content(number, found))
            if any(int(each.flags) & pytsk3.TSK_FS_ATTR_ENC for each in data if not each.name):
                raise NotSupported("it is encrypted by Windows (EFS)")
        return replace(found, notes=tuple(notes))

    def _check_content(self, number: int, found: Details) -> Iterator[str]:
        attributes = list(self._record(number))
        flags = _flags(attributes)
        if flags & _IS_ENCRYPTED:
            raise NotSupported("it is encrypted by Windows (EFS)")
        reparse = self._reparse(number, attributes)
        if reparse is not None:
            has_holes = self._is_sparse(number) if found.runs is None else _has_holes(found)
            yield from _judge(struct.unpack_from("<I", reparse)[0], flags, has_holes=has_holes)
        elif flags & _IS_REPARSE_POINT:
            raise NotSupported("what stands for its content cannot be told (a reparse point without its data)")

    def _about_folder(self, number: int) -> Iterator[str]:
        attributes = list(self._record(number))
        if _flags(attributes) & _IS_ELSEWHERE:
            yield "not all that is in a directory is on this disk: Windows fetches it (OneDrive and the like)"
        reparse = self._reparse(number, attributes)
        if reparse is not None and not _is_cloud(tag := struct.unpack_from("<I", reparse)[0]):
            yield _left_out(tag)

    def _is_sparse(self, number: int) -> bool:
        """As the library has it. Compression has holes of its own."""
        data = [each for each in self._meta(number) if int(each.info.type) == _DATA and not each.info.name]
        return any(
            int(run.flags) & pytsk3.TSK_FS_ATTR_RUN_FLAG_SPARSE
            for each in data
            if not int(each.info.flags) & pytsk3.TSK_FS_ATTR_COMP
            for run in each
        )

    def target(self, file: Any, node: Node) -> str:
        reparse = self._reparse(node.number, list(self._record(node.number)))
        if reparse is None:
            raise Malformed("a link to nowhere")
        return _target(reparse)

    def runs(self, file: Any, node: Node) -> tuple[Run, ...] | None:
        """Where it can be told; else the library has to read."""
        data = [each for each in self._record(node.number) if each.kind in (_DATA, _LIST) and not each.name]
        if any(each.kind == _LIST for each in data):
            self._require_whole(file)
        if len(data) != 1 or data[0].kind == _LIST or data[0].value is not None or data[0].flags & _COMPRESSED:
            return () if not node.size else None
        for attribute in file:
            if int(attribute.info.type) == _DATA and not attribute.info.name:
                return tuple(written(map(self.run, attribute), data[0].initialized))
        return None

    def names(self, number: int) -> Iterator[tuple[str, int, Any]]:
        for attribute in self._meta(number):
            if int(attribute.info.type) == _NAMES:
                for run in attribute:
                    self.run(run)
        for name, its, file in super().names(number):
            try:
                now = self._now(its, file)
                is_called = now is not None and self._is_called(number, name, its, now)
            except (Malformed, OSError):
                now, is_called = file, True
            if is_called:
                yield name, its, now

    def _now(self, number: int, file: Any) -> Any:
        """What is in its record now; None if nothing is. Of two entries of one name and one record the library gives
        the first, and that may be of a file that was deleted before another got both."""
        if file.info.meta is not None:
            return file
        sequence, flags = struct.unpack_from("<H4xH", self._raw_record(number), 0x10)
        if not flags & _IN_USE:
            return None
        return file if sequence == file.info.name.meta_seq else self._meta(number)

    def _is_called(self, directory: int, name: str, number: int, file: Any) -> bool:
        """Whether a file says so too. The library reads also the blocks of a directory that it no longer uses, in which
        stands what files were called that were deleted or renamed. Raises where it cannot be told."""
        if file.info.meta is None:
            return True
        attributes = list(self._record(number))
        its = [each.value for each in attributes if each.kind == _NAME and each.value is not None]
        are_all = True
        if any(each.kind == _LIST for each in attributes):
            its, lists = _values(file, _NAME), _values(file, _LIST)
            are_all = bool(lists) and len(its) >= sum(map(_listed_names, lists))
        return not are_all or any(_names(each, directory, name) for each in its)

    def _require_whole(self, file: Any) -> None:
        """The library passes over other records that it cannot read."""
        data = [each for each in file if int(each.info.type) == _DATA and not each.info.name]
        if not data:
            raise Malformed("a file of which it cannot be told where it lies")
        for attribute in data:
            for run in attribute:
                self.run(run)

    def _node(self, number: int, file: Any) -> Node:
        node = super()._node(number, file)
        reparse = self._reparse(number, list(self._record(number)))
        if reparse is not None and struct.unpack_from("<I", reparse)[0] in _LINKS:
            target = _target(reparse).encode("utf-8", "surrogateescape")
            return replace(node, kind="symlink", mode=0o777, size=len(target))
        return node

    def _reparse(self, number: int, attributes: Iterable[_Attribute]) -> bytes | None:
        """The data of a reparse point. The library looks also into other records than the first, and at long ones."""
        for each in attributes:
            if each.kind == _REPARSE and each.value is not None and len(each.value) >= 8:
                return each.value
        if not _flags(attributes) & _IS_REPARSE_POINT:
            return None
        file = self._meta(number)
        for each in file:
            its = each.info
            if int(its.type) == _REPARSE and 8 <= its.size <= _LONGEST_REPARSE:
                return bytes(file.read_random(0, its.size, its.type, its.id))
        return None

    def _record(self, number: int) -> Iterator[_Attribute]:
        """The attributes in a file's first record; the library knows those in others."""
        return _attributes(self._raw_record(number))

    def _raw_record(self, number: int) -> bytearray:
        """The last one is kept, as it is mostly looked at again."""
        if self._last[0] != number:
            self._last = (number, self._read_record(number))
        return self._last[1]

    def _read_record(self, number: int) -> bytearray:
        table = self._meta(0)
        record = bytearray(table.read_random(number * self._record_size, self._record_size))
        if len(record) != self._record_size or record[:4] != b"FILE":
            raise Malformed("a file without a record")
        _undo_fixups(record)
        return record

    def _log_is_clean(self) -> bool:
        """As ntfs-3g has it: either restart page says that no client is open, or the volume clean."""
        for start in (0, 4096):
            try:
                page = self._meta(_LOG).read_random(start, 4096)
            except OSError:
                return True
            if page[:4] == b"RSTR":
                (area,) = struct.unpack_from("<H", page, 24)
                if area + 16 <= len(page):
                    client, flags = struct.unpack_from("<HH", page, area + 12)
                    return bool(client == 0xFFFF or flags & 2)
        return True


def _clusters(sectors: int) -> int:
    """More than 128 sectors a cluster are told as a negative power of two."""
    return sectors if sectors <= 128 else 1 << (256 - sectors)


def _undo_fixups(record: bytearray) -> None:
    """The last two bytes of each sector stand in an array of their own."""
    place, count = struct.unpack_from("<HH", record, 4)
    for number in range(1, count):
        end, at = number * 512, place + 2 * number
        if end <= len(record) and at + 2 <= len(record):
            record[end - 2 : end] = record[at : at + 2]


def _attributes(record: bytearray) -> Iterator[_Attribute]:
    (at,) = struct.unpack_from("<H", record, 0x14)
    while at + 16 <= len(record):
        kind, length = struct.unpack_from("<II", record, at)
        if kind == _END:
            return
        if length < 24 or at + length > len(record):
            raise Malformed("a file record that makes no sense")
        yield _attribute(bytes(record[at : at + length]), kind)
        at += length


def _values(file: Any, kind: int) -> list[bytes]:
    """Of attributes in any record that the library can read: it passes over the others."""
    found = [each.info for each in file if int(each.info.type) == kind]
    return [bytes(file.read_random(0, each.size, each.type, each.id)) for each in found]


def _listed_names(told: bytes) -> int:
    """How many names a list of a file's attributes has."""
    at = count = 0
    while at + 8 <= len(told):
        kind, length = struct.unpack_from("<IH", told, at)
        if length < 24:
            raise Malformed("a file record that makes no sense")
        count += kind == _NAME
        at += length
    return count


def _names(told: bytes, directory: int, name: str) -> bool:
    """Whether a name of a file is this one. What is no text the library writes in its own way."""
    if len(told) < 0x42 or int.from_bytes(told[:6], "little") != directory:
        return False
    try:
        return told[0x42 : 0x42 + 2 * told[0x40]].decode("utf-16-le") == name
    except UnicodeDecodeError:
        return True


def _attribute(told: bytes, kind: int) -> _Attribute:
    nonresident, name_length, name_at, flags = struct.unpack_from("<BBHH", told, 8)
    name = told[name_at : name_at + 2 * name_length].decode("utf-16-le", "replace")
    if nonresident:
        if len(told) < 0x40:
            raise Malformed("an attribute without an end")
        return _Attribute(kind, name, flags, None, struct.unpack_from("<Q", told, 0x38)[0])
    length, at = struct.unpack_from("<IH", told, 16)
    value = told[at : at + length]
    return _Attribute(kind, name, flags, value, len(value))


def _flags(attributes: Iterable[_Attribute]) -> int:
    """Of the file, as FILE_ATTRIBUTE_* of Windows."""
    for each in attributes:
        if each.kind == _STANDARD and each.value is not None and len(each.value) >= 0x24:
            return int(struct.unpack_from("<I", each.value, 0x20)[0])
    return 0


def _target(reparse: bytes) -> str:
    """What Windows shows, else what it follows; with slashes."""
    tag = struct.unpack_from("<I", reparse)[0]
    if len(reparse) < 20:
        raise Malformed("a link to nowhere")
    real_at, real_length, shown_at, shown_length = struct.unpack_from("<HHHH", reparse, 8)
    base = 20 if tag == _SYMLINK else 16
    at, length = (shown_at, shown_length) if shown_length else (real_at, real_length)
    found = reparse[base + at : base + at + length].decode("utf-16-le", "replace")
    return found.removeprefix("\\??\\").replace("\\", "/")


def _judge(tag: int, flags: int, *, has_holes: bool) -> Iterator[str]:
    """What is to say of a file with a reparse point. Where there are holes, what stands for them may be elsewhere."""
    if tag == _WOF:
        raise NotSupported("Windows has compressed it in a way that is not known here (CompactOS)")
    if tag == _DEDUPLICATED:
        raise NotSupported("Windows Server has deduplicated it")
    if flags & _IS_ELSEWHERE or (_is_cloud(tag) and has_holes):
        raise NotSupported(
            "its content is not on this disk: Windows fetches it when it is read (OneDrive and the like)"
        )
    if has_holes:
        raise NotSupported(f"what stands for its content only Windows can tell (a reparse point of kind 0x{tag:08X})")
    if not _is_cloud(tag):
        yield _left_out(tag)


def _is_cloud(tag: int) -> bool:
    return tag & ~_WHICH_CLOUD == _CLOUD


def _left_out(tag: int) -> str:
    return f"what it means to Windows was left out (a reparse point of kind 0x{tag:08X})"


def _has_holes(found: Details) -> bool:
    size = found.node.size
    return sum(min(run.length, size - run.start) for run in found.runs or () if run.place is not None) < size
