"""Who reads on gets ever more ahead, up to a limit; who jumps about gets nothing."""

from __future__ import annotations

import random

from headstart.restore.serving.streams import Streams

FULL = 100


def streams(most: int = 4) -> Streams:
    return Streams(most, enough=50)


def test_one_reader_is_ahead_by_twice_as_much_each_time() -> None:
    reader = streams()
    assert [reader.read(window, FULL) for window in range(10, 17)] == [
        range(0),
        range(11, 14),
        range(14, 17),
        range(17, 18),
        range(18, 19),
        range(19, 20),
        range(20, 21),
    ]


def test_each_window_is_asked_for_once_and_before_it_is_read() -> None:
    reader = streams()
    asked: list[int] = []
    for window in range(100):
        for _ in range(10):
            asked += reader.read(window, FULL // 10)
            assert window == 0 or window in asked
    assert len(asked) == len(set(asked))


def test_readers_at_several_places_are_told_apart() -> None:
    reader = streams()
    starts = [0, 1000, 2000, 3000]
    for step in range(5):
        found = [reader.read(start + step, FULL) for start in starts]
    assert found == [range(start + 8, start + 9) for start in starts]


def test_requests_that_overtake_each_other() -> None:
    reader = streams()
    parts = [window for window in range(12) for _ in range(10)]
    chosen = random.Random(3)
    order = sorted(range(len(parts)), key=lambda at: at + chosen.uniform(0, 12))
    asked = [window for at in order for window in reader.read(parts[at], FULL // 10)]
    assert set(range(2, 15)) <= set(asked)


def test_who_jumps_about_gets_nothing() -> None:
    """Even if he comes to all windows of a small disk, again and again."""
    reader = streams()
    chosen = random.Random(1)
    assert not any(reader.read(chosen.randrange(500), 1) for _ in range(10_000))


def test_no_reading_ahead() -> None:
    reader = streams(0)
    assert not any(reader.read(window, FULL) for window in range(20))
