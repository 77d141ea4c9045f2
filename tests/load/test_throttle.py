"""A throttled reader: every byte once, as fast as the governor says, and an end within two seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import extents
from headstart.extents import Extent
from headstart.load.governor import Governor, State
from headstart.load.throttle import LEAST_PORTION, Halted, Throttle, ThrottledReader
from headstart.reading import PIECE_SIZE, Piece
from headstart.units import MIB
from tests.kit.clock import Clock

BLOCK = 64 * 1024


class Disk:
    """Notes what is asked for, and when."""

    size = 1 << 40

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[float, int]] = []
        self.closed = 0

    def read(self, wanted: Iterable[Extent]) -> Iterator[Piece]:
        try:
            for extent in wanted:
                self.asked.append((self.clock(), extent.length))
                for piece in extents.split(extent, PIECE_SIZE):
                    yield Piece(piece, memoryview(bytes(1)))
        finally:
            self.closed += 1


def throttle(clock: Clock, *governors: tuple[float, Governor]) -> Throttle:
    """Each governor holds from its moment on."""

    def now() -> Governor:
        return [governor for moment, governor in governors if moment <= clock()][-1]

    return Throttle(now, clock, clock.sleep)


def paced(rate: float) -> Governor:
    return Governor(state=State.PACED, rate=rate)


HALTED = Governor(state=State.HALTED, reason="cpu 0.90 above 0.70")

EXTENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=12).map(
    lambda pairs: extents.merge(Extent(first * BLOCK, count * BLOCK) for first, count in pairs)
)


@given(EXTENTS, st.sampled_from([0.1 * MIB, 5.0 * MIB, 1e12]))
def test_every_byte_once_in_pieces_of_whole_blocks(wanted: list[Extent], rate: float) -> None:
    clock = Clock()
    reader = ThrottledReader(Disk(clock), throttle(clock, (0, paced(rate))))
    pieces = [piece.extent for piece in reader.read(wanted)]
    assert extents.merge(pieces) == wanted
    assert sum(piece.length for piece in pieces) == sum(extent.length for extent in wanted)
    assert all(piece.start % BLOCK == 0 and piece.length % BLOCK == 0 for piece in pieces)


@pytest.mark.parametrize("rate", [0.5 * MIB, 10.0 * MIB, 200.0 * MIB])
def test_the_rate_is_held_and_reached(rate: float) -> None:
    clock = Clock()
    disk = Disk(clock)
    began = clock()
    total = int(rate) * 10 // BLOCK * BLOCK
    for _ in ThrottledReader(disk, throttle(clock, (0, paced(rate)))).read([Extent(0, total)]):
        pass
    assert total / (clock() - began) == pytest.approx(rate, rel=0.05)
    # Evenly: no second has more than the rate and a burst.
    for second in range(9):
        within = sum(count for moment, count in disk.asked if second <= moment - began < second + 1)
        assert within <= 1.6 * rate + LEAST_PORTION


def test_a_halt_ends_the_reading_within_two_seconds() -> None:
    clock = Clock()
    disk = Disk(clock)
    rose = clock() + 7.3
    reader = ThrottledReader(disk, throttle(clock, (0, paced(20.0 * MIB)), (rose, HALTED)))
    with pytest.raises(Halted, match=r"cpu 0\.90"):
        for _ in reader.read([Extent(0, 1 << 30)]):
            clock.sleep(0.001)
    assert disk.asked[-1][0] <= rose + 0.6
    assert sum(count for _, count in disk.asked) > 100 * MIB, "it had not begun to read"


def test_what_was_asked_for_is_called_off() -> None:
    clock = Clock()
    disk = Disk(clock)
    reader = ThrottledReader(disk, throttle(clock, (0, paced(1e12))))
    pieces = reader.read([Extent(0, 64 * MIB)])
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert disk.closed == 1


def test_nothing_is_read_while_halted() -> None:
    clock = Clock()
    disk = Disk(clock)
    with pytest.raises(Halted):
        list(ThrottledReader(disk, throttle(clock, (0, HALTED))).read([Extent(0, BLOCK)]))
    assert not disk.asked


def test_a_rate_that_falls_counts_for_what_is_waited_for() -> None:
    clock = Clock()
    began = clock()
    governed = throttle(clock, (0, paced(1.0 * MIB)), (began + 3, paced(100.0 * MIB)))
    for _ in ThrottledReader(Disk(clock), governed).read([Extent(0, 103 * MIB)]):
        pass
    assert clock() - began == pytest.approx(4.0, abs=0.7)
