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


def runs(source: Source, block_size: int, root: bytes) -> Iterator[Run]:
    """``root``: the 60 bytes in the inode. Raises ``Malformed``."""
    return _Tree(source, block_size).below(root, None)


class _Tree:
    def __init__(self, source: Source, block_size: int) -> None:
        self._source = source
        self._block_size = block_size
        self._seen: set[int] = set()

    def below(self, node: bytes, expected: int | None) -> Iterator[Run]:
        """``expected``: how many levels are below it."""
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _MAGIC or count > len(node) // _EACH - 1 or depth > _DEEPEST or expected not in (None, depth):
            raise Malformed("a file of which it cannot be told where it lies")
        for at in range(_EACH, _EACH * (count + 1), _EACH):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self.below(self._block(low | high << 32), depth - 1)
            else:
                start, length, high, low = struct.unpack_from("<IHHI", node, at)
                written = length <= _LONGEST
                length -= 0 if written else _LONGEST
                place = (low | high << 32) * self._block_size if written else None
                yield Run(start * self._block_size, length * self._block_size, place)

    def _block(self, number: int) -> bytes:
        """None twice: trees that share branches would have no end."""
        found = self._source.read(number * self._block_size, self._block_size)
        if len(found) < self._block_size or number in self._seen:
            raise Malformed("a file of which it cannot be told where it lies")
        self._seen.add(number)
        return found
