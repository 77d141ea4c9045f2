"""Where the content of a file of ext4 lies: its tree of extents.

Not the library's, which forgets the highest 16 bits of where an extent lies, and tells no trouble.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from headstart.volumes.filesystem import Malformed, Run, Source

_MAGIC = 0xF30A
_DEEPEST = 5
#: Header and entries have the same length.
_EACH = 12
#: Longer ones are reserved, not written.
_LONGEST = 32768
#: Blocks of a file.
_END = 1 << 32
_UNKNOWN = "a file of which it cannot be told where it lies"


def runs(source: Source, block_size: int, root: bytes) -> Iterator[Run]:
    """``root``: the 60 bytes in the inode. Raises ``Malformed``."""
    return _Tree(source, block_size).below(root, None, 0, _END)


class _Tree:
    def __init__(self, source: Source, block_size: int) -> None:
        self._source = source
        self._block_size = block_size
        self._seen: set[int] = set()

    def below(self, node: bytes, expected: int | None, first: int, end: int) -> Iterator[Run]:
        """``expected``: how many levels are below it. ``first`` and ``end``: what it is about, in blocks of the file.
        Only the root may be empty: of a file without blocks."""
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _MAGIC or count > len(node) // _EACH - 1 or depth > _DEEPEST or expected not in (None, depth):
            raise Malformed(_UNKNOWN)
        if not count and (depth or expected is not None):
            raise Malformed(_UNKNOWN)
        places = range(_EACH, _EACH * (count + 1), _EACH)
        starts = [struct.unpack_from("<I", node, at)[0] for at in places]
        for at, start, following in zip(places, starts, [*starts[1:], end], strict=False):
            if not first <= start < following <= end:
                raise Malformed(_UNKNOWN)
            if depth:
                low, high = struct.unpack_from("<IH", node, at + 4)
                yield from self.below(self._block(low | high << 32), depth - 1, start, following)
            else:
                length, high, low = struct.unpack_from("<HHI", node, at + 4)
                written = length <= _LONGEST
                length -= 0 if written else _LONGEST
                if not 0 < length <= following - start:
                    raise Malformed(_UNKNOWN)
                place = (low | high << 32) * self._block_size if written else None
                yield Run(start * self._block_size, length * self._block_size, place)

    def _block(self, number: int) -> bytes:
        """None twice: trees that share branches would have no end."""
        found = self._source.read(number * self._block_size, self._block_size)
        if len(found) < self._block_size or number in self._seen:
            raise Malformed(_UNKNOWN)
        self._seen.add(number)
        return found
