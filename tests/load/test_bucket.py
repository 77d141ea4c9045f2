"""The token bucket: nothing passes faster than its rate, over any time longer than a burst."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.load.bucket import BURST_SECONDS, Bucket
from tests.kit.clock import Clock


def spent(bucket: Bucket, clock: Clock, counts: list[int]) -> float:
    """Seconds that it takes to take these and wait for each."""
    began = clock()
    for count in counts:
        bucket.take(count)
        clock.sleep(bucket.debt())
    return clock() - began


@given(st.integers(1, 1 << 30), st.lists(st.integers(1, 1 << 26), min_size=1, max_size=20))
def test_never_more_than_the_rate_and_a_burst(rate: int, counts: list[int]) -> None:
    clock = Clock()
    seconds = spent(Bucket(rate, clock), clock, counts)
    assert sum(counts) <= rate * (seconds + BURST_SECONDS) * (1 + 1e-6) + 1
    assert seconds <= sum(counts) / rate * (1 + 1e-6) + 1e-6


def test_a_pause_is_made_up_for_by_a_burst_and_no_more() -> None:
    clock = Clock()
    bucket = Bucket(1000.0, clock)
    clock.sleep(3600)
    assert spent(bucket, clock, [10_000]) == pytest.approx(10 - BURST_SECONDS)


def test_without_a_rate_everything_passes() -> None:
    clock = Clock()
    bucket = Bucket(None, clock)
    assert spent(bucket, clock, [1 << 40] * 3) == 0
    bucket.set_rate(100.0)
    assert spent(bucket, clock, [100]) == pytest.approx(1.0), "what passed before is no debt"


def test_at_rate_zero_nothing_passes_until_it_is_raised() -> None:
    clock = Clock()
    bucket = Bucket(0.0, clock)
    bucket.take(100)
    assert bucket.debt() == float("inf")
    clock.sleep(1000)
    assert bucket.debt() == float("inf")
    bucket.set_rate(50.0)
    assert bucket.debt() == pytest.approx(2.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    clock = Clock()
    bucket = Bucket(100.0, clock)
    bucket.take(100)
    clock.now -= 500
    assert bucket.debt() == pytest.approx(1.0)


def test_two_threads_share_one_rate() -> None:
    rate, seconds = 4 << 20, 0.6
    bucket = Bucket(float(rate))
    end = time.monotonic() + seconds
    taken = [0, 0]

    def work(number: int) -> None:
        while time.monotonic() < end:
            bucket.take(64 << 10)
            taken[number] += 64 << 10
            while (debt := bucket.debt()) > 0:
                time.sleep(min(debt, 0.02))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) <= rate * (seconds + BURST_SECONDS + 0.2)
    # Neither is left out; how they share is the scheduler's, which may have other work.
    assert min(taken) > 0.05 * sum(taken), taken
