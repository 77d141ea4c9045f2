"""Which trees were found whole, so that they are not walked again and again once something was lost."""

from __future__ import annotations

#: So many are remembered, 100 bytes each. A snapshot of a disk is one.
_MOST = 1 << 14


class Whole:
    """``as_of`` tells what was known of losses: what was found before that changed means nothing."""

    def __init__(self) -> None:
        self._as_of: object = None
        self._found: set[tuple[bytes, int]] = set()

    def knows(self, as_of: object, root: bytes, size: int) -> bool:
        return self._as_of == as_of and (root, size) in self._found

    def add(self, as_of: object, root: bytes, size: int) -> None:
        if self._as_of != as_of or len(self._found) >= _MOST:
            self._as_of, self._found = as_of, set()
        self._found.add((root, size))
