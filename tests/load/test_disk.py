"""How busy others keep a disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.load import disk
from headstart.load.disk import Activity

NOTHING = Activity(busy=0, reading=0, writing=0, flushing=0, read_bytes=0, written_bytes=0)


@pytest.mark.parametrize(
    ("what", "activity", "own_reads", "own_writes", "expected"),
    [
        ("idle", NOTHING, 0, 0, 0),
        ("we read, nobody else", replace(NOTHING, busy=0.9, reading=1.8), 1, 0, 0),
        ("we read nearly all of it", replace(NOTHING, busy=0.9, reading=1.8), 0.9, 0, 0.09),
        ("small writes beside our reads", replace(NOTHING, busy=1, reading=1.5, writing=0.95), 1, 0, 0.95),
        ("as many reads as ours", replace(NOTHING, busy=1, reading=1.5), 0.5, 0, 0.5),
        ("flushes beside our reads", replace(NOTHING, busy=0.8, reading=0.6, flushing=0.5), 1, 0, 0.5),
        ("our flushes", replace(NOTHING, busy=0.8, writing=0.6, flushing=0.5), 0, 1, 0),
        ("deep queues", replace(NOTHING, busy=0.3, reading=9, writing=9), 0, 0, 0.3),
        ("deep queues of ours beside a few others", replace(NOTHING, busy=1, writing=50), 0, 0.98, 0.02),
        ("many short ones, each a tick by the kernel", replace(NOTHING, busy=0.4, reading=0.02), 0, 0, 0.02),
        ("an old kernel", replace(NOTHING, busy=0.4, reading=0.02, flushing=None), 0, 0, 0.4),
        ("an old kernel and we", replace(NOTHING, busy=0.4, reading=0.4, writing=0.1, flushing=None), 1, 0, 0.1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_others(what: str, activity: Activity, own_reads: float, own_writes: float, expected: float) -> None:
    assert disk.others(activity, own_reads, own_writes) == pytest.approx(expected)


SECONDS = st.floats(0, 1e6)
SHARES = st.floats(0, 1)


@given(SECONDS, SECONDS, SECONDS, SECONDS | st.none(), SHARES, SHARES)
def test_others_are_never_more_than_all_and_the_fewer_the_more_is_ours(
    busy: float, reading: float, writing: float, flushing: float | None, own_reads: float, own_writes: float
) -> None:
    activity = Activity(busy, reading, writing, flushing, 0, 0)
    found = disk.others(activity, own_reads, own_writes)
    assert 0 <= found <= busy
    assert found <= disk.others(activity)
    assert found >= disk.others(activity, 1, 1) == 0 or (own_reads, own_writes) == (0, 0)
