"""Signals from what the agent tells: without its own part, and whatever a guest makes up."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.agentd import figures
from headstart.load import inside

CPU = dict.fromkeys(("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"), 1000)
DISK = dict.fromkeys(
    ("reads", "writes", "read_bytes", "written_bytes", "read_ms", "write_ms", "flush_ms", "busy_ms"), 1000
)
BEFORE: dict[str, Any] = {
    "time": 50.0,
    "ticks": 100,
    "cpus": 2,
    "cpu": CPU,
    "disks": {"vda": dict(DISK), "vdb": dict(DISK)},
    "network": {"received": 1000, "sent": 1000, "speed": 1_000_000},
    "pressure": {name: {"avg10": 0.0, "total": 1000} for name in ("cpu", "io", "memory")},
    "own": {
        "cpu_seconds": 1.0,
        "read_bytes": {"vda": 1000},
        "read_seconds": {"vda": 1.0},
        "last_read": 49.0,
        "sent_bytes": 0,
    },
}
MIB = 1 << 20


def later(seconds: float = 1.0, **grown: Any) -> dict[str, Any]:
    """``BEFORE`` and so much more, by parts: ``cpu={"user": 5}``."""
    found = copy.deepcopy(BEFORE)
    found["time"] += seconds

    def add(where: dict[str, Any], more: dict[str, Any]) -> None:
        for name, value in more.items():
            if isinstance(value, dict):
                add(where.setdefault(name, {}), value)
            else:
                where[name] = where.get(name, 0) + value

    add(found, grown)
    return found


def values(after: Any, before: Any = BEFORE) -> dict[str, float]:
    return dict(inside.signals(7.0, before, after).values)


def test_an_idle_guest() -> None:
    found = inside.signals(7.0, BEFORE, later(cpu={"idle": 200}))
    assert found.moment == 7.0
    assert found.values == dict.fromkeys(inside.NAMES, 0.0)
    assert (found.latency, found.missing) == (None, ())


@pytest.mark.parametrize(
    ("grown", "name", "expected"),
    [
        ({"cpu": {"idle": 100, "user": 50, "system": 30, "softirq": 10, "steal": 10}}, "guest.cpu", 0.5),
        ({"cpu": {"idle": 100, "nice": 100}}, "guest.cpu", 0.5),
        ({"cpu": {"idle": 150, "iowait": 50}}, "guest.iowait", 0.25),
        ({"disks": {"vdb": {"busy_ms": 400, "write_ms": 350, "flush_ms": 30}}}, "guest.disk", 0.38),
        ({"disks": {"vdb": {"busy_ms": 400, "read_ms": 9000}}}, "guest.disk", 0.4),
        ({"network": {"received": 250_000, "sent": 100_000}}, "guest.network", 0.25),
        ({"network": {"received": 0, "sent": 9_000_000}}, "guest.network", 1.0),
        ({"pressure": {"io": {"total": 300_000}}}, "guest.pressure.io", 0.3),
        ({"pressure": {"cpu": {"total": 2_000_000}}}, "guest.pressure.cpu", 1.0),
        ({"pressure": {"memory": {"total": 100_000}}}, "guest.pressure.memory", 0.1),
    ],
)
def test_a_busy_guest(grown: dict[str, Any], name: str, expected: float) -> None:
    assert values(later(**({"cpu": {"idle": 200}} | grown)))[name] == pytest.approx(expected)


def test_while_only_the_agent_is_busy_the_guest_is_idle() -> None:
    """As measured: 1 MiB reads as fast as the disk goes."""
    after = later(
        cpu={"nice": 25, "system": 25, "iowait": 50, "idle": 100},
        disks={"vda": {"reads": 100, "read_bytes": 100 * MIB, "read_ms": 690, "busy_ms": 700}},
        pressure={"io": {"total": 690_000}, "cpu": {"total": 100_000}},
        network={"sent": 600_000},
        own={
            "cpu_seconds": 0.49,
            "read_bytes": {"vda": 100 * MIB},
            "read_seconds": {"vda": 0.7},
            "sent_bytes": 590_000,
        },
    )
    found = values(after)
    assert max(found.values()) <= 0.011, found


@pytest.mark.parametrize(
    ("grown", "name", "least", "most"),
    [
        # One small write after the other, each waiting behind our reads.
        ({"disks": {"vda": {"busy_ms": 300, "write_ms": 950, "written_bytes": MIB}}}, "guest.disk", 0.94, 1.0),
        # As many bytes read by others.
        ({"disks": {"vda": {"busy_ms": 300, "read_ms": 1000, "read_bytes": 100 * MIB}}}, "guest.disk", 0.5, 0.6),
        # Others stalled in half of what is left, and for all we know in half of the rest.
        ({"pressure": {"io": {"total": 150_000}}}, "guest.pressure.io", 0.45, 0.5),
        ({"cpu": {"user": 60}}, "guest.cpu", 0.2, 0.25),
    ],
)
def test_others_are_seen_beside_the_agent(grown: dict[str, Any], name: str, least: float, most: float) -> None:
    ours = later(
        cpu={"nice": 50, "idle": 150},
        disks={"vda": {"read_bytes": 100 * MIB, "read_ms": 700, "busy_ms": 700}},
        pressure={"io": {"total": 700_000}},
        own={"cpu_seconds": 0.5, "read_bytes": {"vda": 100 * MIB}, "read_seconds": {"vda": 0.7}},
    )
    both = copy.deepcopy(ours)
    for part, more in grown.items():
        for key, value in more.items():
            if isinstance(value, dict):
                for each, count in value.items():
                    both[part][key][each] += count
            else:
                both[part][key] += value
    assert values(ours)[name] < 0.02
    assert least <= values(both)[name] <= most


@pytest.mark.parametrize(
    ("softirq", "own", "expected"), [(25, 1.0, 0.0), (65, 1.0, 0.2), (40, 0.0, 0.2), (10, 0.0, 0.05)]
)
def test_a_part_of_the_interrupts_is_ours(softirq: int, own: float, expected: float) -> None:
    ticks = int(own * 100)
    after = later(cpu={"nice": ticks, "softirq": softirq, "idle": 200 - ticks - softirq}, own={"cpu_seconds": own})
    assert values(after)["guest.cpu"] == pytest.approx(expected)


def test_what_is_read_through_a_volume_is_read_of_disks() -> None:
    after = later(
        cpu={"idle": 200},
        disks={name: {"read_bytes": 50 * MIB, "read_ms": 400, "busy_ms": 400, "reads": 50} for name in ("vda", "vdb")},
        own={"read_bytes": {"dm-0": 100 * MIB}, "read_seconds": {"dm-0": 0.8}},
    )
    assert values(after)["guest.disk"] == pytest.approx(0, abs=1e-6)


def test_what_the_kernel_does_not_tell_is_missing() -> None:
    after = later(cpu={"idle": 100})
    del after["network"]["speed"], after["pressure"]["memory"], after["disks"]
    found = inside.signals(7.0, BEFORE, after)
    assert found.missing == ("guest.disk", "guest.network", "guest.pressure.memory")
    assert "guest.cpu" in found.values


def test_a_kernel_without_times_of_flushes() -> None:
    before, after = copy.deepcopy(BEFORE), later(disks={"vda": {"busy_ms": 400, "write_ms": 20}})
    for each in (before, after):
        del each["disks"]["vda"]["flush_ms"]
    assert values(after, before)["guest.disk"] == pytest.approx(0.4)


def test_a_guest_that_was_started_again_is_not_compared() -> None:
    for seconds in (0.0, -10.0, 10_000.0):
        found = inside.signals(7.0, BEFORE, later(seconds))
        assert found.values == {} and found.missing == inside.NAMES


def test_an_agent_that_was_renewed_has_read_nothing() -> None:
    """Its counters begin anew, the guest's go on."""
    after = later(cpu={"idle": 100, "user": 100})
    after["own"] = {"cpu_seconds": 0.1, "read_bytes": {}, "read_seconds": {}, "last_read": 0.0}
    assert values(after)["guest.cpu"] == 0.5


def test_figures_of_this_machine() -> None:
    first, second = (json.loads(json.dumps(figures.figures())) for _ in range(2))
    found = inside.signals(7.0, first, second)
    assert set(found.values) | set(found.missing) == set(inside.NAMES)
    assert all(0 <= value <= 1 for value in found.values.values())


# -- silence


@pytest.mark.parametrize(("heard", "expected"), [(9.9, 0.0), (8.0, 0.0), (7.9, 1.0), (0.0, 1.0)])
def test_silence_is_load(heard: float, expected: float) -> None:
    assert inside.silence(10.0, heard).values == {"guest.silence": expected}


def test_silence_may_be_shorter() -> None:
    assert inside.silence(10.0, 9.0, limit=0.5).values == {"guest.silence": 1.0}


# -- hostile guests

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([0, 1, 1000, 10**18, 2**63, 2**64, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324])
)
NAMES = st.sampled_from(
    [*BEFORE, *CPU, *DISK, *BEFORE["own"], "vda", "vdb", "io", "memory", "total", "received", "sent", "speed", ""]
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6), max_leaves=12
)


def assert_sound(before: Any, after: Any) -> None:
    found = inside.signals(7.0, before, after)
    assert set(found.values) | set(found.missing) == set(inside.NAMES)
    assert all(0 <= value <= 1 for value in found.values.values())


@given(st.dictionaries(NAMES, ANYTHING), st.dictionaries(NAMES, ANYTHING))
def test_a_guest_may_say_anything(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert_sound(before, after)
    assert_sound(BEFORE, after)
    assert_sound(before, later())


PLACES = st.sampled_from(
    [
        ("time",),
        ("ticks",),
        ("cpu",),
        ("cpu", "user"),
        ("cpu", "iowait"),
        ("disks",),
        ("disks", "vda"),
        ("disks", "vda", "busy_ms"),
        ("disks", "vda", "read_bytes"),
        ("disks", "vdb", "flush_ms"),
        ("network", "speed"),
        ("network", "sent"),
        ("pressure",),
        ("pressure", "io", "total"),
        ("own",),
        ("own", "cpu_seconds"),
        ("own", "read_bytes"),
        ("own", "read_bytes", "vda"),
        ("own", "read_seconds", "vda"),
    ]
)


@given(st.lists(st.tuples(PLACES, ANYTHING), max_size=4), st.booleans())
def test_a_guest_may_spoil_single_numbers(spoilt: list[tuple[tuple[str, ...], Any]], first: bool) -> None:
    before, after = copy.deepcopy(BEFORE), later(cpu={"idle": 50, "user": 50}, own={"cpu_seconds": 0.1})
    for place, value in spoilt:
        at: Any = before if first else after
        for name in place[:-1]:
            at = at.get(name) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at[place[-1]] = value
    assert_sound(before, after)
