"""A guest that floods its host, as a process of its own: it costs a little memory and a little time, and ends."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headstart.extents import Extent
from headstart.guest import agent as agents
from headstart.guest import channel as channels
from headstart.guest import links, mapping, reader
from headstart.guest.channel import Channel, Lost
from headstart.guest.mapping import Patience, Unproved
from headstart.guest.reader import AgentReader
from headstart.units import MIB
from tests.guest import enemy as enemies
from tests.kit.cli import ROOT

SIZE = 8 * MIB
#: Beside what is there before: the window of content, the limit of frames, a decoder's frame.
MEMORY = 16 * MIB
#: On a busy machine; alone it is a second at most.
SECONDS, CPU_SECONDS = 20.0, 5.0


@contextlib.contextmanager
def enemy(folder: Path, vice: str) -> Iterator[str]:
    """Its address."""
    disk = folder / "disk"
    disk.write_bytes(random.Random(4).randbytes(SIZE))
    address = folder / "agent"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.guest.enemy", str(address), vice, f"vda={disk}"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "serving\n"
        try:
            yield str(address)
        finally:
            process.kill()


@dataclass(slots=True)
class Cost:
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0


@contextlib.contextmanager
def costing() -> Iterator[Cost]:
    """What is inside may cost so much: seconds, and the peak of this process' memory (proc(5), clear_refs)."""
    cost = Cost()
    Path("/proc/self/clear_refs").write_text("5")
    before, began, cpu = peak(), time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    yield cost
    after = resource.getrusage(resource.RUSAGE_SELF)
    cost.seconds = time.monotonic() - began
    cost.cpu_seconds = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    cost.memory = peak() - before
    assert cost.memory < MEMORY and cost.seconds < SECONDS and cost.cpu_seconds < CPU_SECONDS, cost


def peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def read_all(address: str) -> int:
    """Bytes that came, piece by piece, until the agent is lost or all of it is there."""
    count = 0
    with Channel(links.connect(address)) as channel:
        for piece in AgentReader(channel, {"disk": "vda"}, SIZE).read([Extent(0, SIZE)]):
            count += piece.extent.length
            piece.release()
    return count


def test_an_agent_that_does_not_flood(tmp_path: Path) -> None:
    with enemy(tmp_path, "honest") as address, costing():
        for _ in range(20):
            assert read_all(address) == SIZE


@pytest.mark.parametrize("vice", [name for name in enemies.FLOODS if name != "a flooded map"])
def test_a_flood_ends(tmp_path: Path, vice: str) -> None:
    with enemy(tmp_path, vice) as address, costing(), pytest.raises(Lost):
        read_all(address)


def test_a_flood_instead_of_an_answer(tmp_path: Path) -> None:
    with (
        enemy(tmp_path, "a flooded map") as address,
        costing(),
        agents.connect(address) as agent,
        pytest.raises(Lost, match="without end"),
    ):
        agent.map()


def test_thousands_of_connections_that_are_hung_up(tmp_path: Path) -> None:
    with enemy(tmp_path, "hangs up") as address, costing():
        before = descriptors()
        for _ in range(2000):
            with pytest.raises(Lost):
                agents.connect(address)
        assert descriptors() <= before


def test_an_agent_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It always answers in time, and never comes to the end."""
    monkeypatch.setattr(channels, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(reader, "LEAST_RATE", 16 * MIB)
    with enemy(tmp_path, "drips") as address, costing(), pytest.raises(Lost, match="reads less than"):
        read_all(address)


def test_slow_consumers_are_not_the_agents_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(channels, "WINDOW", MIB)
    monkeypatch.setattr(reader, "LEAST_RATE", 64 * MIB)
    with enemy(tmp_path, "honest") as address, Channel(links.connect(address)) as channel:
        count = 0
        for piece in AgentReader(channel, {"disk": "vda"}, SIZE).read([Extent(0, SIZE)]):
            count += piece.extent.length
            time.sleep(0.02)
            piece.release()
    assert count == SIZE


def test_proofs_do_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "PROVE_SECONDS", 0.2)
    patience = Patience()
    with patience.waiting() as seconds:
        assert seconds == 0.2
        time.sleep(0.25)
    with pytest.raises(Unproved, match="to prove disks"), patience.waiting():
        raise AssertionError
