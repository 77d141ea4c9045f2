"""Where a volume lies on disks: translation between a volume's addresses and those of its disks.

::

    volume   0 ......... 4 MiB ......... 12 MiB
             |-- segment --|---- segment ----|
    disks     vda at 1 MiB     vdb at 8 MiB             linear: one disk
              vda, vdb by turns, chunk by chunk         striped

Pure; the same text on both sides of the channel.
"""

from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

Span = Tuple[int, int]  # start, length


class Stripe(NamedTuple):
    """A column of a segment: a disk and where the segment begins there, in bytes."""

    disk: str
    start: int


class Segment(NamedTuple):
    """``length`` bytes of a volume from ``start``, over one stripe or over several, ``chunk`` bytes each by turns.

    ``chunk`` is 0 with one stripe."""

    start: int
    length: int
    stripes: Tuple[Stripe, ...]
    chunk: int = 0


class Run(NamedTuple):
    """``length`` bytes that are in one piece on both sides."""

    volume: int
    disk: str
    start: int
    length: int


def runs(segments: Iterable[Segment], wanted: Iterable[Span]) -> Iterator[Run]:
    """What of a volume's ``wanted`` spans lies where. What no segment covers is left out."""
    table = list(segments)
    for start, length in wanted:
        for segment in table:
            low, high = max(start, segment.start), min(start + length, segment.start + segment.length)
            if low < high:
                for run in _within(segment, low, high):
                    yield run


def _within(segment: Segment, low: int, high: int) -> Iterator[Run]:
    position = low
    while position < high:
        offset = position - segment.start
        if segment.chunk:
            number, inside = divmod(offset, segment.chunk)
            row, column = divmod(number, len(segment.stripes))
            stripe, at = segment.stripes[column], row * segment.chunk + inside
            length = min(segment.chunk - inside, high - position)
        else:
            stripe, at, length = segment.stripes[0], offset, high - position
        yield Run(position, stripe.disk, stripe.start + at, length)
        position += length


def back(segments: Iterable[Segment], disk: str, wanted: Iterable[Span]) -> Iterator[Run]:
    """What of a disk's ``wanted`` spans belongs to the volume, and where in it. The rest is left out."""
    table = list(segments)
    for start, length in wanted:
        for segment in table:
            for column, stripe in enumerate(segment.stripes):
                if stripe.disk == disk:
                    for run in _column(segment, column, stripe, start, start + length):
                        yield run


def _column(segment: Segment, column: int, stripe: Stripe, start: int, end: int) -> Iterator[Run]:
    """One stripe's part of ``[start, end)`` of its disk."""
    count = len(segment.stripes)
    extent = segment.length if not segment.chunk else share(segment, column)
    position, high = max(start, stripe.start), min(end, stripe.start + extent)
    while position < high:
        at = position - stripe.start
        if segment.chunk:
            row, inside = divmod(at, segment.chunk)
            volume = (row * count + column) * segment.chunk + inside
            length = min(segment.chunk - inside, high - position)
        else:
            volume, length = at, high - position
        yield Run(segment.start + volume, stripe.disk, position, length)
        position += length


def share(segment: Segment, column: int) -> int:
    """Bytes of a striped segment that lie in one column."""
    whole, rest = divmod(segment.length, segment.chunk * len(segment.stripes))
    return whole * segment.chunk + min(max(rest - column * segment.chunk, 0), segment.chunk)


def compose(upper: Iterable[Segment], lower: Dict[str, List[Segment]]) -> Optional[List[Segment]]:
    """A volume on volumes, told in terms of what is below those (``lower`` by name; a name that is not in
    there is a disk). None if that cannot be told in segments: stripes on what is not in one piece, or a piece
    of stripes that does not begin with a chunk."""
    found: List[Segment] = []
    for segment in upper:
        below = _striped(segment, lower) if segment.chunk else _linear(segment, lower)
        if below is None:
            return None
        found += below
    return found


def _striped(segment: Segment, lower: Dict[str, List[Segment]]) -> Optional[List[Segment]]:
    stripes = []
    for column, stripe in enumerate(segment.stripes):
        length = share(segment, column)
        if stripe.disk in lower and length:
            below = _cut(lower[stripe.disk], stripe.start, length)
            if below is None or len(below) != 1 or below[0].chunk or below[0].length != length:
                return None
            stripe = below[0].stripes[0]
        stripes.append(stripe)
    return [Segment(segment.start, segment.length, tuple(stripes), segment.chunk)]


def _linear(segment: Segment, lower: Dict[str, List[Segment]]) -> Optional[List[Segment]]:
    stripe = segment.stripes[0]
    if stripe.disk not in lower:
        return [segment]
    below = _cut(lower[stripe.disk], stripe.start, segment.length)
    if below is None:
        return None
    return [each._replace(start=segment.start + each.start - stripe.start) for each in below]


def _cut(table: Iterable[Segment], start: int, length: int) -> Optional[List[Segment]]:
    """What of a volume lies within ``length`` bytes from ``start``, as segments of the same volume."""
    found = []
    for segment in table:
        low, high = max(start, segment.start), min(start + length, segment.start + segment.length)
        if low < high:
            stripes = _from(segment, low - segment.start)
            if stripes is None:
                return None
            found.append(Segment(low, high - low, stripes, segment.chunk))
    return found


def _from(segment: Segment, offset: int) -> Optional[Tuple[Stripe, ...]]:
    """The stripes of what is left of a segment without its first ``offset`` bytes."""
    if not segment.chunk:
        return tuple(Stripe(disk, start + offset) for disk, start in segment.stripes)
    number, inside = divmod(offset, segment.chunk)
    if inside:
        return None
    row, column = divmod(number, len(segment.stripes))
    # The column that comes first now has one chunk less in front of it than those that were before it.
    shifted = [
        Stripe(disk, start + (row + (place < column)) * segment.chunk)
        for place, (disk, start) in enumerate(segment.stripes)
    ]
    return tuple(shifted[column:] + shifted[:column])
