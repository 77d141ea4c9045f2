"""Signals of several places, and the highest of them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.load import signals
from headstart.load.signals import Signals


def test_the_load_is_the_highest() -> None:
    found = Signals(1.0, {"guest.cpu": 0.2, "host.disk": 0.7, "guest.disk": 0.1})
    assert signals.load(found) == (0.7, "host.disk")


def test_without_sensors_there_is_no_load() -> None:
    assert signals.load(Signals(1.0, {}, missing=("guest.cpu",))) == (0.0, "")


def test_what_is_seen_from_inside_counts() -> None:
    outside = Signals(1.0, {"guest.cpu": 0.9, "guest.disk": 0.5}, latency=0.004)
    inside = Signals(1.2, {"guest.cpu": 0.1, "guest.iowait": 0.0}, missing=("guest.disk", "guest.network"))
    host = Signals(1.1, {}, missing=("host.cpu", "guest.network"))
    assert signals.together(outside, inside, host) == Signals(
        1.2,
        {"guest.cpu": 0.1, "guest.disk": 0.5, "guest.iowait": 0.0},
        latency=0.004,
        missing=("guest.network", "host.cpu"),
    )


def test_no_signals_together_are_none() -> None:
    assert signals.together() == Signals(0.0, {})


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(1, 4, 0.25), (5, 4, 1), (-1, 4, 0), (1, 0, 0), (0, 0, 0), (1, -1, 0)]
)
def test_a_share(part: float, whole: float, expected: float) -> None:
    assert signals.share(part, whole) == expected


@given(st.floats(-1e18, 1e18), st.floats(-1e18, 1e18))
def test_a_share_is_one(part: float, whole: float) -> None:
    assert 0 <= signals.share(part, whole) <= 1
    assert not math.isnan(signals.share(part, whole))
