"""The guest comes first: the daemon reads in the pauses, is gone when a burst begins, and never in anybody's way."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.guest.agent import Agent
from headstart.guest.channel import Channel
from tests.e2e.agents import wait_for_agentd
from tests.e2e.hosted import Hosted, Sensors, hosted
from tests.e2e.rig import Rig
from tests.kit import disks, workloads
from tests.kit.vm import Vm

pytestmark = [pytest.mark.vm, pytest.mark.alone]

MIB = disks.MIB
SIZE = 288 * MIB
CPUS = 2
#: Bytes a second of the disk ``work``, which is not backed up: who writes there keeps it busy all the time.
SLOW = 4_000_000
#: No read of ours begins later than this after a burst began.
GONE_SECONDS = 2.0
#: Absolute ones, so that what is usual does not matter. Our own part that is left in is below the lower one.
MARKS = "low = 0.3\nhigh = 0.5"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    folder = tmp_path_factory.mktemp("disks")
    chosen = (
        disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data"),
        disks.Disk(disks.make_filled(folder / "work.raw", 32 * MIB), "raw", "work", interface="virtio-scsi"),
    )
    with Vm(chosen, cpus=CPUS) as vm:
        wait_for_agentd(vm)
        throttle = f"block_set_io_throttle /machine/peripheral/{vm.disk('work').device_id} {SLOW} 0 0 0 0 0"
        said = vm.qmp("human-monitor-command", command_line=throttle)
        assert not said.strip(), said
        yield vm


@pytest.fixture
def rig(tmp_path: Path, machine: Vm) -> Iterator[Rig]:
    made = Rig(tmp_path / "rig", machine, agent=True, excluded=("dev-work",))
    yield made
    made.release()


@pytest.fixture
def daemon(rig: Rig) -> Iterator[Hosted]:
    with hosted(rig, sensors=Sensors.GUEST) as made:
        yield made


@contextlib.contextmanager
def computing(vm: Vm) -> Iterator[float]:
    """All CPUs; when that began, by the guest's clock."""
    loop = "sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!; "
    began, *started = vm.guest.run("cut -d' ' -f1 /proc/uptime; " + CPUS * loop).output.split()
    try:
        yield float(began)
    finally:
        vm.guest.run(f"kill {' '.join(started)}")


@contextlib.contextmanager
def writing(vm: Vm) -> Iterator[float]:
    """As fast as a disk goes."""
    region = workloads.Region(vm.device("work"), 16 * MIB, 16 * MIB)
    with workloads.churn(vm.guest, [region], write_size=16 * 1024) as running:
        running.wait_changed(MIB)
        finished, took = vm.guest.call("workload_samples", workload=running.number, since=None, until=None)[0]
        yield finished - took


def last_read(vm: Vm) -> float:
    """When the agent began its last read, by the guest's clock."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(str(vm.agent_socket))
    with Agent(Channel(link, seconds=60.0)) as agent:
        agent.watch(0.2)
        while (found := agent.latest()) is None:
            agent.pump(0.05)
    return float(found["own"]["last_read"])


def gone(daemon: Hosted) -> bool:
    return daemon.status()["doing"] is None


def test_bursts_and_pauses_by_the_agents_own_record(machine: Vm, daemon: Hosted) -> None:
    daemon.configure(daemon.later(), rate="4MiB/s", interval="1h", load=MARKS)
    daemon.start()
    for burst in (computing, writing, computing):
        daemon.wait(daemon.copying, 40)
        time.sleep(1.0)
        with burst(machine) as begun:
            daemon.wait(lambda: gone(daemon), 15)
            assert daemon.runs("precopy")[-1]["halted"]
            time.sleep(4.0)
            # In the middle of a burst the agent may have no moment to answer us: it is asked afterwards.
            daemon.ask("pause")
            assert gone(daemon)
        late = last_read(machine) - begun
        print(f"{burst.__name__}: the last read began {late:.2f} s after the burst")
        assert -5 < late < GONE_SECONDS, daemon.log[-2000:]
        daemon.ask("resume")


class Watch:
    """When a round has got on, by the host's clock; from outside."""

    def __init__(self, daemon: Hosted) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.last = 0.0

    def _look(self) -> None:
        before = 0
        while not self._over.wait(0.05):
            doing = self._daemon.status()["doing"]
            done = doing["done"] if doing else 0
            if done > before:
                self.last = time.monotonic()
            before = done

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self._thread.join()


def test_bursts_and_pauses_from_outside(machine: Vm, daemon: Hosted) -> None:
    """Without an agent: nothing that was read arrives later than that. On a host with more work than cores a guest that
    computes looks half idle from outside: the marks allow for that."""
    marks = "low = 0.12\nhigh = 0.22"
    daemon.configure(daemon.later(), rate="4MiB/s", interval="1h", load=marks, transports=["host"])
    daemon.start()
    with Watch(daemon) as watch:
        for burst in (computing, writing):
            daemon.wait(daemon.copying, 40)
            time.sleep(1.0)
            with burst(machine) as at:
                begun = time.monotonic() - (machine.guest.clock() - at)
                daemon.wait(lambda: gone(daemon), 15)
                assert begun - 2 < watch.last < begun + GONE_SECONDS, daemon.log[-2000:]
                print(f"{burst.__name__}: the last of it arrived {watch.last - begun:.2f} s after the burst began")
                assert daemon.runs("precopy")[-1]["halted"] and daemon.runs("precopy")[-1]["transport"] == "host"
                time.sleep(3.0)
                assert gone(daemon)


def test_a_backup_during_load_comes_on_time(machine: Vm, daemon: Hosted) -> None:
    """Copying ahead is halted; the backup is not."""
    calendar, moment = daemon.soon(14.0)
    daemon.configure(calendar, rate="4MiB/s", interval="1h", load=MARKS)
    daemon.start()
    daemon.wait(lambda: daemon.copying(least=3 * MIB))
    with computing(machine), writing(machine):
        daemon.wait(lambda: gone(daemon), 15)
        assert time.time() < moment - 1 and daemon.status()["state"] in ("waiting", "halted")
        daemon.wait_backups(1)
        assert "above 0.50" in daemon.log
    [made] = daemon.runs("backup")
    assert moment <= made["created"] < moment + 3
    assert sum(disk["precopied_bytes"] for disk in made["disks"]) > MIB


def timed(call: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    began = time.monotonic()
    call(*arguments, **options)
    return time.monotonic() - began


def test_a_store_that_hangs_is_not_in_the_way_of_the_owner(machine: Vm, rig: Rig) -> None:
    """While a round reads from outside and nothing gets on, commands that wait for the disks do not wait for us."""
    with hosted(rig) as daemon:
        daemon.configure(daemon.later(), interval="1h", transports=["host"])
        daemon.hang.touch()
        daemon.start()
        daemon.wait(lambda: daemon.copying(least=64 * MIB))
        stalled(daemon)
        for number in range(3):
            add = {"node": "data", "name": f"theirs{number}"}
            actions = [{"type": "block-dirty-bitmap-add", "data": add}]
            assert timed(machine.qmp, "transaction", actions=actions) < 1
            assert timed(machine.qmp, "stop") < 1
            assert timed(machine.qmp, "cont") < 1
            assert timed(machine.qmp, "block-dirty-bitmap-remove", node="data", name=f"theirs{number}") < 1
        assert timed(machine.guest.write, machine.device("data"), 0, MIB, seed="meanwhile") < 5
        daemon.hang.unlink()
        daemon.wait(lambda: daemon.runs("precopy"))
        daemon.back_up()


def stalled(daemon: Hosted) -> None:
    """The round does not get on for two seconds: all buffers are full."""
    before, since = -1, time.monotonic()

    def still() -> bool:
        nonlocal before, since
        done = daemon.status()["doing"]["done"]
        if done != before:
            before, since = done, time.monotonic()
        return time.monotonic() - since > 2

    daemon.wait(still)


def test_it_can_be_stopped_while_the_store_hangs(machine: Vm, rig: Rig) -> None:
    """What hangs is left behind; nothing of it is left in the VM."""
    with Hosted(rig, constants={"headstart.host.daemon:FAREWELL_SECONDS": 2.0}) as daemon:
        daemon.configure(daemon.later(), interval="1h", transports=["host"])
        daemon.hang.touch()
        daemon.start()
        daemon.wait(lambda: daemon.copying(least=64 * MIB))
        stalled(daemon)
        assert daemon.stop() < 15
        assert "event=stopped hanging=guest" in daemon.log
        daemon.hang.unlink()
        daemon.start()
        daemon.back_up()
        daemon.stop()
        daemon.assert_exact()
        rig.assert_tidy()
