"""A guest's load, as it is seen from outside and from inside; and our own reading, which must not be taken for it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.backup.meeting import meet
from headstart.extents import Extent
from headstart.guest import agent
from headstart.guest.agent import Agent
from headstart.guest.reader import AgentReader
from headstart.hypervisor.counters import Counters
from headstart.hypervisor.qemu import counters
from headstart.load import inside, outside, signals
from headstart.load.signals import Signals
from tests.e2e.agents import wait_for_agentd
from tests.e2e.rig import NAME, Rig
from tests.kit import disks, workloads
from tests.kit.vm import Vm

pytestmark = [pytest.mark.vm, pytest.mark.alone]

MIB = disks.MIB
SIZES = {"fast": 64 * MIB, "slow": 64 * MIB}
#: Bytes a second of the slow disk.
SLOW = 4_000_000
#: A burst is seen within this.
SEEN_SECONDS = 2.0
#: Between figures, and between looks.
EVERY = 0.4


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("load")
    pair = [disks.Disk(disks.make_filled(folder / name, size), "raw", name) for name, size in SIZES.items()]
    with Vm(pair, cpus=2) as running:
        wait_for_agentd(running)
        throttle = f"block_set_io_throttle /machine/peripheral/{running.disk('slow').device_id}/virtio-backend"
        said = running.qmp("human-monitor-command", command_line=f"{throttle} {SLOW} 0 0 0 0 0")
        assert not said.strip(), said
        yield running


class Sensors:
    """Both, several times a second; what they said, by name."""

    def __init__(self, vm: Vm, connected: Agent) -> None:
        self._vm = vm
        self.agent = connected
        self._counters: Counters | None = None
        self._figures: dict[str, Any] | None = None
        self.heard = time.monotonic()
        self.outside: list[Signals] = []
        self.inside: list[Signals] = []
        connected.watch(EVERY)

    def forget(self) -> None:
        self._counters = self._figures = None
        self.outside, self.inside = [], []

    def look(self) -> None:
        """Without waiting."""
        now = time.monotonic()
        if self._counters is None or now - self._counters.moment >= EVERY:
            found = counters.look(self._vm.qmp_socket)
            if self._counters is not None:
                self.outside.append(outside.signals(self._counters, found))
            self._counters = found
        figures = self.agent.latest()
        if figures is not None:
            if self._figures is not None:
                self.inside.append(inside.signals(now, self._figures, figures))
            self._figures, self.heard = figures, now

    def until(self, seen: Callable[[], bool], seconds: float) -> float:
        """How long it took. Fails after ``seconds``."""
        begun = time.monotonic()
        while not seen():
            assert time.monotonic() - begun < seconds, (self.outside, self.inside)
            self.agent.pump(0.05)
            self.look()
        return time.monotonic() - begun

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end, seconds + 1)

    def read(self, disk: str, seconds: float) -> int:
        """As fast as it goes; bytes."""
        name = self._vm.device(disk).rpartition("/")[2]
        reader = AgentReader(self.agent._channel, {"disk": name}, SIZES[disk])
        end, count = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            with contextlib.closing(reader.read([Extent(0, SIZES[disk])])) as pieces:  # type: ignore[type-var]
                for piece in pieces:
                    count += piece.extent.length
                    piece.release()
                    self.look()
                    if time.monotonic() > end:
                        break
        return count

    def highest(self, name: str, *, seen: list[Signals]) -> float:
        return max((each.values[name] for each in seen if name in each.values), default=0.0)


@pytest.fixture
def sensors(vm: Vm) -> Iterator[Sensors]:
    with agent.connect(str(vm.agent_socket)) as connected:
        found = Sensors(vm, connected)
        found.watch(1.5)
        assert found.highest("guest.disk", seen=found.inside + found.outside) < 0.1
        found.forget()
        yield found


@contextlib.contextmanager
def busy(vm: Vm, processes: int) -> Iterator[None]:
    loop = "sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"
    started = [vm.guest.run(loop).output.strip() for _ in range(processes)]
    try:
        yield
    finally:
        vm.guest.run(f"kill {' '.join(started)}")


def test_a_burst_of_cpu_is_seen_from_both_sides(vm: Vm, sensors: Sensors) -> None:
    with busy(vm, 1):
        took = sensors.until(
            lambda: min(sensors.highest("guest.cpu", seen=each) for each in (sensors.outside, sensors.inside)) > 0.3,
            SEEN_SECONDS,
        )
    print(f"seen from both sides after {took:.1f} s")


def test_a_guest_without_a_moment_for_the_agent_is_seen_by_its_silence(vm: Vm, sensors: Sensors) -> None:
    with busy(vm, 4):
        sensors.until(lambda: sensors.highest("guest.cpu", seen=sensors.outside) > 0.3, SEEN_SECONDS)

        def noticed() -> bool:
            silent = inside.silence(time.monotonic(), sensors.heard)
            return signals.load(signals.together(*sensors.inside[-1:], silent))[0] > 0.8

        sensors.until(noticed, SEEN_SECONDS + inside.SILENCE_SECONDS)


def test_a_burst_of_writes_is_seen_from_both_sides(vm: Vm, sensors: Sensors) -> None:
    with workloads.churn(vm.guest, [workloads.Region(vm.device("slow"), 0, 32 * MIB)]):
        took = sensors.until(
            lambda: min(sensors.highest("guest.disk", seen=each) for each in (sensors.outside, sensors.inside)) > 0.5,
            SEEN_SECONDS,
        )
        sensors.watch(1.0)
    assert sensors.highest("guest.pressure.io", seen=sensors.inside) > 0.3
    assert max(each.latency or 0.0 for each in sensors.outside) > 0.001
    print(f"seen from both sides after {took:.1f} s")


@pytest.mark.parametrize(("disk", "seconds"), [("fast", 6.0), ("slow", 6.0)])
def test_our_own_reading_is_not_the_guests_load(vm: Vm, sensors: Sensors, disk: str, seconds: float) -> None:
    count = sensors.read(disk, seconds)
    assert count > 4 * MIB
    assert len(sensors.inside) > 3
    names = {name for each in sensors.inside for name in each.values}
    for name in sorted(names):
        told = [each.values[name] for each in sensors.inside if name in each.values]
        print(f"{disk}: {name} median {statistics.median(told):.3f}, highest {max(told):.3f}")
        assert statistics.median(told) < 0.2, name
        assert max(told) < 0.4, name
    # From outside it is.
    own = "guest.cpu" if disk == "fast" else "guest.disk"
    assert sensors.highest(own, seen=sensors.outside) > 0.3


def test_the_guests_writes_are_seen_beside_our_reading(vm: Vm, sensors: Sensors) -> None:
    with workloads.churn(vm.guest, [workloads.Region(vm.device("slow"), 0, 32 * MIB)]):
        sensors.forget()
        sensors.read("slow", 4.0)
    told = [each.values["guest.disk"] for each in sensors.inside]
    print(f"guest.disk {told}")
    assert statistics.median(told) > 0.5


def test_the_histograms_of_a_run_go_with_a_release(vm: Vm, tmp_path: Path) -> None:
    def there() -> int:
        told = [disk.write_latency for disk in counters.look(vm.qmp_socket).disks.values()]
        return sum(histogram is not None for histogram in told)

    rig = Rig(tmp_path / "rig", vm, qga=False)
    rig.precopy()
    assert there() == 0
    with rig.context() as context, meet(context, context.journal.vm(NAME)) as contact:
        contact.machine.counters()
    assert there() == len(SIZES)
    rig.backup()
    rig.precopy()
    assert there() == len(SIZES)
    rig.release()
    assert there() == 0
