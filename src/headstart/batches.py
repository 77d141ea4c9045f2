"""Much in portions: what Python has from 3.12 on (``itertools.batched``), as lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """``size`` items at a time, the last ones fewer. ``items`` is read no further than that."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
