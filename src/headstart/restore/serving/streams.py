"""Who reads on and on, and what he will read next.

::

    windows of the disk    |  7  |  8  |  9  | 10  | 11  | 12  |
    read until now            x     x     x                        three in a row: a stream
    fetched ahead                               a     a     a      twice as many with each window, up to a limit

Requests of one reader overtake each other: a window counts as the next one also if one between was left out, and
again with each request that falls into it. Who jumps about seldom reads much of a window, and nothing is fetched ahead
for him: it would cost many times what he reads.
"""

from __future__ import annotations

import collections
from typing import NamedTuple

#: Windows that are remembered: those of as many readers as anybody has.
_REMEMBERED = 256
_LEFT_OUT = 2


class _Seen(NamedTuple):
    """``read``: bytes, until now. ``run``: windows in a row, with this one; 0 where it follows none. Up to ``ahead``
    they have been asked for."""

    read: int = 0
    run: int = 0
    ahead: int = 0


_NEVER = _Seen()


class Streams:
    """One thread at a time."""

    def __init__(self, most: int, enough: int) -> None:
        """``most``: windows ahead of a reader; 0: nothing is ever fetched ahead. ``enough``: bytes of a window after
        which somebody seems to be reading on and on."""
        self._most = most
        self._enough = enough
        self._seen: collections.OrderedDict[int, _Seen] = collections.OrderedDict()

    def read(self, window: int, count: int) -> range:
        """``count`` bytes of it are being read: windows that should be fetched now, itself among them."""
        seen = self._seen.pop(window, _NEVER)
        fetched = range(0)
        if not seen.run and (before := self._before(window)):
            fetched = range(max(window, before.ahead), window + 1 + min(2 << before.run, self._most))
            seen = _Seen(seen.read, before.run + 1, fetched.stop)
        self._seen[window] = seen._replace(read=seen.read + count)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return fetched

    def _before(self, window: int) -> _Seen | None:
        """What this window goes on with."""
        earlier = (self._seen.get(window - step, _NEVER) for step in range(1, _LEFT_OUT + 1))
        return max((each for each in earlier if self._most and each.read >= self._enough), default=None, key=_run_of)


def _run_of(seen: _Seen) -> int:
    return seen.run
