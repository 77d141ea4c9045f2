"""The names in a directory of XFS that does not fit into its inode.

Not the library's, which takes a directory's blocks for as large as those of the file system, and passes over what it
does not understand. Format: the Linux kernel's fs/xfs/libxfs/xfs_da_format.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from headstart.volumes.filesystem import Malformed

#: How long the header is, and whether the entries' hashes are at the end of the same block.
_KINDS = {b"XD2B": (16, True), b"XD2D": (16, False), b"XDB3": (64, True), b"XDD3": (64, False)}
#: Those that say which directory they are of.
_OWNED = (b"XDB3", b"XDD3")
_FREE = 0xFFFF
#: Names lie below this; above are hashes, which ``di_size`` does not count.
LARGEST = 1 << 35
_LONGEST_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class Directory:
    """``owner``: the number of its inode. ``block_size``: of the directory."""

    owner: int
    size: int
    block_size: int
    has_type: bool

    def names(self, file: BinaryIO, is_hole: Callable[[int], bool]) -> Iterator[tuple[int, bytes]]:
        """Numbers of inodes and names, with ``.`` and ``..``. ``is_hole``: whether nothing lies at an offset. Raises
        ``Malformed``."""
        if not 0 < self.size <= LARGEST or self.size % self.block_size or self.block_size > _LONGEST_BLOCK:
            raise Malformed("a directory of a size that cannot be")
        for at in range(0, self.size, self.block_size):
            if at and is_hole(at):  # all names of that block were deleted. "." never is
                continue
            file.seek(at)
            block = file.read(self.block_size)
            if len(block) < self.block_size:
                raise Malformed("a directory without an end")
            if block[:4] in _OWNED and int.from_bytes(block[40:48], "big") != self.owner:
                raise Malformed("a directory with a block of another one")
            yield from _names(block, self.has_type)


def _names(block: bytes, has_type: bool) -> Iterator[tuple[int, bytes]]:
    if block[:4] not in _KINDS:
        raise Malformed("a directory's block that is none")
    at, has_hashes = _KINDS[block[:4]]
    end = len(block)
    if has_hashes:
        (count,) = struct.unpack_from(">I", block, end - 8)
        end -= 8 + 8 * count
        if end < at:
            raise Malformed("a directory that makes no sense")
    while at < end:
        if at + 8 > end:
            raise Malformed("a directory that makes no sense")
        tag, length = struct.unpack_from(">HH", block, at)
        if tag != _FREE:
            if at + 16 > end:
                raise Malformed("a directory that makes no sense")
            number, name_length = struct.unpack_from(">QB", block, at)
            # The number, the length, the name, its type, where the entry begins: a multiple of 8 bytes.
            length = (9 + name_length + has_type + 2 + 7) // 8 * 8
            yield number, block[at + 9 : at + 9 + name_length]
        if length < 8 or at + length > end:
            raise Malformed("a directory that makes no sense")
        at += length
