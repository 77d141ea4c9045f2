"""Signals of the host: shares of two samples, less our own; and what sampling finds on this machine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.load import carriers, machine, network
from headstart.load.disk import Activity
from headstart.load.machine import Cpu, Own, Sample
from headstart.load.network import Network

ZERO = Activity(0, 0, 0, 0, 0, 0)
BEFORE = Sample(
    10.0, Cpu(100, 400), {"sda": ZERO, "sdb": ZERO}, Network(0, 0, 1e6), {"cpu": 1.0, "io": 1.0, "memory": 1.0}
)
MIB = 1 << 20


def after(seconds: float = 2.0, busy: float = 0.0, **changes: object) -> Sample:
    """Of two CPUs."""
    cpu = Cpu(100 + busy, 400 + 2 * seconds)
    return replace(BEFORE, **({"moment": 10.0 + seconds, "cpu": cpu} | changes))  # type: ignore[arg-type]


def test_an_idle_host() -> None:
    found = machine.signals(BEFORE, after())
    assert found.moment == 12.0 and found.missing == ()
    assert found.values == dict.fromkeys(
        (
            "host.cpu",
            "host.disk",
            "host.network",
            "host.pressure.cpu",
            "host.pressure.io",
            "host.pressure.memory",
        ),
        0.0,
    )


BUSY = after(
    busy=2.0,
    disks={"sda": ZERO, "sdb": Activity(1.0, 1.0, 0.4, 0.0, 100 * MIB, 20 * MIB)},
    network=Network(200_000, 1_000_000, 1e6),
    pressures={"cpu": 1.4, "io": 2.2, "memory": 1.2},
)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (Own(), {"cpu": 0.5, "disk": 0.5, "network": 0.5}),
        (Own(), {"pressure.cpu": 0.2, "pressure.io": 0.6, "pressure.memory": 0.1}),
        (Own(cpu_seconds=1.0), {"cpu": 0.25, "pressure.cpu": 0.1, "pressure.io": 0.6}),
        (Own(read_bytes=100 * MIB), {"disk": 0.2, "pressure.io": 0.1, "cpu": 0.5}),
        (Own(read_bytes=50 * MIB), {"disk": 0.45}),
        (Own(read_bytes=100 * MIB, written_bytes=20 * MIB), {"disk": 0.0, "pressure.io": 0.0}),
        (Own(sent_bytes=1_000_000), {"network": 0.1}),
        (Own(9e9, 9e9, 9e9, 9e9), {"cpu": 0.0, "disk": 0.0, "pressure.io": 0.0, "pressure.memory": 0.1}),
    ],
)
def test_our_part_is_taken_out(own: Own, expected: dict[str, float]) -> None:
    found = machine.signals(BEFORE, BUSY, own).values
    assert {name: found[f"host.{name}"] for name in expected} == pytest.approx(expected)


def test_what_is_not_there_is_missing() -> None:
    bare = Sample(10.0, None, {}, None, {})
    found = machine.signals(bare, replace(bare, moment=11.0))
    assert found.values == {}
    assert found.missing == (
        "host.cpu",
        "host.disk",
        "host.network",
        "host.pressure.cpu",
        "host.pressure.io",
        "host.pressure.memory",
    )
    partly = after(missing=("host.disk of /dev/shm/image",), network=None)
    assert machine.signals(BEFORE, partly).missing == ("host.network", "host.disk of /dev/shm/image")
    assert machine.signals(BEFORE, replace(BEFORE, moment=9.0)).values == {}


def test_a_device_that_comes_goes_or_begins_anew_does_not_count() -> None:
    old = replace(BEFORE, disks={"sda": Activity(5, 5, 5, 5, 5, 5), "sdb": ZERO})
    new = after(disks={"sda": Activity(1, 5, 5, 5, 5, 5), "sdc": Activity(9, 9, 9, 9, 9, 9)})
    assert "host.disk" in machine.signals(old, new).missing


NUMBERS = st.floats(0, 1e12)


@given(st.lists(NUMBERS, min_size=10, max_size=10), st.builds(Own, NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_every_signal_is_a_share_and_less_with_more_of_ours(numbers: list[float], own: Own) -> None:
    busy, idle, *rest = numbers
    sample = after(
        disks={"sda": Activity(*rest[:6])},
        cpu=Cpu(100 + busy, 400 + busy + idle),
        network=Network(rest[6], rest[7], 1e6),
        pressures={"io": 1 + rest[5], "cpu": 1 + rest[4]},
    )
    with_us, without = machine.signals(BEFORE, sample, own).values, machine.signals(BEFORE, sample).values
    assert set(with_us) == set(without)
    for name, value in with_us.items():
        assert 0 <= value <= without[name] <= 1


# -- this machine


def test_a_sample_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"x" * MIB)
    found = machine.sample([tmp_path / "image", tmp_path])
    assert found.cpu is not None and 0 < found.cpu.busy < found.cpu.total
    assert abs(found.moment - time.monotonic()) < 1
    assert found.network is None
    later = machine.signals(found, machine.sample([tmp_path / "image", tmp_path]))
    assert all(0 <= value <= 1 for value in later.values.values())


def test_our_own_cpu_time_is_seen_and_taken_out() -> None:
    before, spent = machine.sample([]), time.process_time()
    while time.process_time() < spent + 0.5:
        pass
    after, used = machine.sample([]), time.process_time() - spent
    assert before.cpu is not None and after.cpu is not None
    part = used / (after.cpu.total - before.cpu.total)
    alone, less = machine.signals(before, after), machine.signals(before, after, Own(cpu_seconds=used))
    assert alone.values["host.cpu"] > 0.8 * part
    assert alone.values["host.cpu"] - less.values["host.cpu"] > 0.8 * part


def test_a_file_is_on_a_whole_disk(tmp_path: Path) -> None:
    found = carriers.activities([tmp_path, tmp_path / "missing", Path("/proc/version")])
    assert tmp_path / "missing" in found.without and Path("/proc/version") in found.without
    if found.devices:
        (name,) = found.devices
        assert Path("/sys/block", name).exists()
    else:
        assert tmp_path in found.without


def test_many_images_on_one_device_count_once(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.touch()
    assert len(carriers.activities(paths).devices) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 2 200 30 4 5 600 70 0 90 100", Activity(0.09, 0.03, 0.07, None, 102400, 307200)),
        ("1 2 200 30 4 5 600 70 0 90 100 0 0 0 0 7 80", Activity(0.09, 0.03, 0.07, 0.08, 102400, 307200)),
        ("1 2 3", None),
        ("nonsense", None),
    ],
)
def test_the_kernels_line(tmp_path: Path, text: str, expected: Activity | None) -> None:
    (tmp_path / "stat").write_text(text)
    assert carriers._activity(tmp_path) == expected


# -- the way to the store


def test_the_way_to_ourselves_is_the_loopback() -> None:
    assert network.interface_towards("127.0.0.1") == "lo"
    assert network.interface_towards("no such name.invalid") == ""


def test_the_loopback_has_no_speed() -> None:
    assert network.look("lo") is None
    assert network.look("no such interface") is None
