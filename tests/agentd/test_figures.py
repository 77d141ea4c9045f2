"""What figures tell, on this machine; and what the agent has taken itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from headstart.agentd import asks, figures, messages, usage
from headstart.units import MIB
from tests.agentd import served
from tests.agentd.served import Host


def test_figures_are_the_kernels() -> None:
    found = figures.figures()
    assert found["time"] <= time.monotonic()
    assert found["cpus"] >= 1 and found["ticks"] >= 1
    assert set(found["cpu"]) == {"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"}
    assert found["memory"]["available"] < found["memory"]["total"]
    assert {"received", "sent"} <= set(found["network"])
    assert set(found["own"]) == {"cpu_seconds", "read_bytes", "read_seconds", "last_read", "sent_bytes"}


def test_a_part_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = figures._lines

    def lines(path: str) -> list[str]:
        if path in ("/proc/stat", "/proc/pressure/io"):
            raise FileNotFoundError(path)
        return whole(path)

    monkeypatch.setattr(figures, "_lines", lines)
    found = figures.figures()
    assert "cpu" not in found and "io" not in found["pressure"]
    assert "memory" in found


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({}, {"received": 0, "sent": 0}),
        ({"eth0": ("up", "1000")}, {"received": 10, "sent": 20, "speed": 125_000_000}),
        ({"eth0": ("up", "1000"), "eth1": ("up", "10000")}, {"received": 20, "sent": 40, "speed": 1_375_000_000}),
        ({"eth0": ("up", "1000"), "eth1": ("up", "-1")}, {"received": 20, "sent": 40}),
        ({"eth0": ("up", "1000"), "eth1": ("down", "-1")}, {"received": 20, "sent": 40, "speed": 125_000_000}),
        ({"eth0": ("unknown", None)}, {"received": 10, "sent": 20}),
    ],
)
def test_a_network_has_a_speed_if_all_of_it_has(
    monkeypatch: pytest.MonkeyPatch, cards: dict[str, tuple[str, str | None]], expected: dict[str, int]
) -> None:
    """The loopback, and a bridge that the same bytes go through, do not count."""

    def lines(path: str) -> list[str]:
        if path == "/proc/net/dev":
            names = ["lo", "br0", *cards]
            return ["", "", *(f"  {name}: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0" for name in names)]
        _, _, _, _, name, what = path.split("/")
        state, speed = cards[name]
        if what == "operstate":
            return [state]
        if speed is None:
            raise OSError(22, "Invalid argument")
        return [speed]

    monkeypatch.setattr(figures, "_lines", lines)
    monkeypatch.setattr("os.path.exists", lambda path: path.split("/")[4] in cards)
    assert figures._network() == expected


def own(host: Host, request: int) -> dict[str, Any]:
    host.tell(messages.ASK, request, do="figures", seconds=60)
    return messages.unpack_json(host.next().payload)


def test_the_agent_tells_what_it_took_itself(tmp_path: Path) -> None:
    """Zeroes are read and not sent."""
    (tmp_path / "vdx").write_bytes(bytes(8 * MIB))
    with served.agent({"vdx": tmp_path / "vdx"}, handlers={"figures": asks.watch}) as link:
        host = Host(link)
        host.hello()
        before = own(host, 2)
        began = time.monotonic()
        host.read(3, {"disk": "vdx"}, (0, 4 * MIB), (5 * MIB, 512), credit=8 * MIB)
        host.content(3)
        after = own(host, 4)
    assert "vdx" not in before["own"]["read_bytes"]
    assert after["own"]["read_bytes"]["vdx"] == 4 * MIB + 512
    assert 0 < after["own"]["read_seconds"]["vdx"] < after["time"] - before["time"]
    assert began <= after["own"]["last_read"] <= after["time"]
    assert after["own"]["cpu_seconds"] >= before["own"]["cpu_seconds"]


def test_without_a_read_there_was_no_last_one() -> None:
    fresh = usage.Usage().told()
    assert (fresh["last_read"], fresh["read_bytes"], fresh["sent_bytes"]) == (0, {}, 0)
