"""Reading in the guest: how fast the agent is, what it costs the guest, and whether the guest notices."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import figure, spans
from bench.figure import Figure
from bench.spans import Span
from headstart.extents import Extent
from headstart.guest.channel import Channel
from headstart.guest.reader import AgentReader
from headstart.reading import Reader
from headstart.units import GIB, MIB
from headstart.wire import nbd
from tests.kit import disks, workloads
from tests.kit.vm import Vm

SIZE = 512 * MIB
DD = "dd iflag=direct bs=1M to the same port"
IDLE = "idle guest"
#: Long enough for several hundred fsyncs.
SPAN_SECONDS = 8.0
RATE = 8.0 * MIB
_RECEIVE = 1 << 20
_STOPPED = "/run/no-agentd"


@dataclass(frozen=True, slots=True)
class Trial:
    seconds: float
    #: Of the process in the guest that reads and sends.
    processor: float


def run(folder: Path, runs: int, say: Callable[[str], None]) -> list[Figure]:
    """``folder`` is made."""
    folder.mkdir(parents=True)
    data = disks.Disk(disks.make_filled(folder / "data.raw", SIZE), "raw", "data")
    work = disks.Disk(disks.make_empty(folder / "work.raw", 64 * MIB), "raw", "work")
    with Vm((data, work)) as vm:
        ours, peer = [], []
        for number in range(runs):
            say(f"reading {SIZE >> 20} MiB in the guest, by the agent and by dd: run {number + 1} of {runs}")
            ours.append(by_agent(vm))
            peer.append(by_dd(vm))
        pairs = [latencies(vm, say, number, runs) for number in range(runs)]
    speed = [SIZE / MIB / each.seconds for each in ours], [SIZE / MIB / each.seconds for each in peer]
    cost = [each.processor * GIB / SIZE for each in ours], [each.processor * GIB / SIZE for each in peer]
    found = [
        figure.of("read in the guest and sent", *speed, DD, "MiB/s"),
        figure.of("processor time in the guest, per GiB", *cost, DD, "s"),
    ]
    for name in ("idle guest again", "the agent copies", "the host copies"):
        told = [pair[name] for pair in pairs], [pair[IDLE] for pair in pairs]
        found.append(figure.of(f"fsync of the guest, p99: {name}", *told, IDLE, "ms"))
    return found


# bytes and their cost


def by_agent(vm: Vm) -> Trial:
    with _channel(vm) as channel:
        process = int(channel.welcome["pid"])
        before = _processor(vm, process)
        began = time.monotonic()
        _drain(AgentReader(channel, {"disk": _name(vm, "data")}, SIZE))
        return Trial(time.monotonic() - began, _processor(vm, process) - before)


def by_dd(vm: Vm) -> Trial:
    """agentd lets go of its port meanwhile."""
    agentd = "ps -o pid,args | awk '/[h]eadstart-agentd/ && /python3/ {print $1}'"
    vm.guest.run(f'touch {_STOPPED}; while [ -n "$({agentd})" ]; do kill $({agentd}); sleep 0.1; done')
    port = vm.guest.run("grep -l org.headstart.agent.0 /sys/class/virtio-ports/*/name").output.split("/")[4]
    command = f"{{ time dd if={vm.device('data')} of=/dev/{port} bs=1M iflag=direct; }} >/dev/null 2>/run/dd.log &"
    with _link(vm) as link:
        began = time.monotonic()
        vm.guest.run(command)
        left = SIZE
        while left:
            data = link.recv(min(left, _RECEIVE))
            if not data:
                raise RuntimeError("the port was closed")
            left -= len(data)
        seconds = time.monotonic() - began
    told = _until(lambda: re.findall(r"(?:user|sys)\s+(\d+)m ([\d.]+)s", vm.guest.run("cat /run/dd.log").output))
    vm.guest.run(f"rm {_STOPPED}")
    return Trial(seconds, sum(60 * int(minutes) + float(rest) for minutes, rest in told))


def _processor(vm: Vm, process: int) -> float:
    """Seconds (proc(5), /proc/PID/stat: utime and stime in ticks of 10 ms)."""
    fields = vm.guest.run(f"cat /proc/{process}/stat").output.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _drain(reader: Reader) -> None:
    for piece in reader.read([Extent(0, SIZE)]):
        piece.release()


# what the guest notices


def latencies(vm: Vm, say: Callable[[str], None], number: int, runs: int) -> dict[str, float]:
    """p99 of the guest's fsyncs on another disk, in milliseconds: idle, idle again, and while its data are copied."""
    say(f"fsync latency while blocks are copied: run {number + 1} of {runs}")
    region = workloads.Region(vm.device("work"), 0, 32 * MIB)
    with workloads.churn(vm.guest, [region], rate=RATE, write_size=16 * 1024, seed=number) as churn:
        _rest(churn)
        found = {IDLE: _span(churn, time.sleep), "idle guest again": _span(churn, time.sleep)}
        with _channel(vm) as channel:
            reader = AgentReader(channel, {"disk": _name(vm, "data")}, SIZE)
            found["the agent copies"] = _span(churn, lambda seconds: _copy(reader, seconds))
        with _exported(vm) as client:
            found["the host copies"] = _span(churn, lambda seconds: _copy(client, seconds))
    return found


def _rest(churn: workloads.Churn) -> None:
    churn.wait_changed(4 * MIB)


def _span(churn: workloads.Churn, happen: Callable[[float], object]) -> float:
    begin = time.monotonic()
    happen(SPAN_SECONDS)
    span = Span(begin, time.monotonic())
    return spans.latencies(churn.samples(begin), span.overlaps).worst


def _copy(reader: Reader, seconds: float) -> None:
    """Again and again, as fast as it goes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for piece in reader.read([Extent(0, SIZE)]):
            piece.release()
            if time.monotonic() > end:
                break


@contextlib.contextmanager
def _exported(vm: Vm) -> Iterator[nbd.Client]:
    socket_path = vm.agent_socket.with_name("nbd")
    vm.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket_path)}})
    vm.qmp("block-export-add", type="nbd", id="bench", name="bench", **{"node-name": "data"})
    try:
        with nbd.Client(nbd.Export(socket_path, "bench")) as client:
            yield client
    finally:
        vm.qmp("nbd-server-stop")


# the channel


@contextlib.contextmanager
def _link(vm: Vm) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(60.0)
        link.connect(str(vm.agent_socket))
        yield link


@contextlib.contextmanager
def _channel(vm: Vm) -> Iterator[Channel]:
    """agentd may have to start first."""
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.connect(str(vm.agent_socket))
    with Channel(link, seconds=60.0) as channel:
        yield channel


def _name(vm: Vm, disk: str) -> str:
    return vm.device(disk).removeprefix("/dev/")


def _until(look: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    for _ in range(100):
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise RuntimeError("dd in the guest told no times")
