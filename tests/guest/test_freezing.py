"""Points in time for which the agent freezes, or stands behind qga."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.agentd import frames, messages
from headstart.guest.channel import Channel, Lost, Refused
from headstart.guest.freezing import AgentFreezer
from headstart.hypervisor import freeze, guard_process
from headstart.hypervisor.contract import GuestFreezer, PointInTime, PointRequest
from headstart.hypervisor.guard import Guard, Order
from headstart.hypervisor.qemu.freeze import ThroughQga
from headstart.hypervisor.qemu.machine import QemuMachine
from tests.agentd import guests
from tests.agentd.guests import INNER, OUTER
from tests.e2e import ext4
from tests.guest import victim
from tests.hypervisor.qemu import points
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import disks, workloads
from tests.kit.vm import Vm

vm_test = pytest.mark.vm


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    with guests.mounted(tmp_path_factory.mktemp("freezing")) as vm:
        yield vm


def machine(vm: Vm, scratch: Path, *, qga: bool = False) -> QemuMachine:
    known = vm.qga_socket if qga else None
    return QemuMachine(vm.qmp_socket, installation=INSTALLATION, scratch=scratch, label="vm", qga=known)


def request(freezer: GuestFreezer | None, *, wanted: bool = True) -> PointRequest:
    return PointRequest((), (), {}, wanted, freezer=freezer)


@contextlib.contextmanager
def taken(vm: Vm, scratch: Path) -> Iterator[PointInTime]:
    """A point for which the agent is to freeze."""
    with (
        guests.session(vm) as channel,
        machine(vm, scratch) as connection,
        connection.take(request(AgentFreezer(channel))) as point,
    ):
        yield point


@vm_test
def test_a_point_is_as_after_an_unmount(guest: Vm, tmp_path: Path) -> None:
    regions = [workloads.Region(f"{path}/churn", 0, 4 * disks.MIB) for path in (OUTER, INNER)]
    with (
        workloads.churn(guest.guest, regions, rate=4 * disks.MIB),
        guests.session(guest) as channel,
        machine(guest, tmp_path) as connection,
    ):
        freezer = AgentFreezer(channel)
        for wanted in (True, False):
            with connection.take(request(freezer, wanted=wanted)) as point:
                assert (point.consistency, point.notes) == ("filesystem" if wanted else "crash", [])
                assert (point.freeze_seconds > 0) is wanted
                print(f"freeze {point.freeze_seconds * 1000:.0f} ms, pause {point.pause_seconds * 1000:.1f} ms")
                for disk in ("dev-one", "dev-two"):
                    image = tmp_path / f"{disk}-{wanted}.raw"
                    reader = point.reader(disk)
                    image.write_bytes(points.content(reader, 0, reader.size))
                    (ext4.assert_clean if wanted else ext4.assert_recovers)(image)
                point.check()
                point.release()
    assert guests.thawed(guest)


@vm_test
def test_nothing_to_freeze(guest: Vm, tmp_path: Path) -> None:
    guests.unmount(guest)
    try:
        with taken(guest, tmp_path) as point:
            assert point.consistency == "crash"
            assert point.notes == ["the agent in the guest found no file system to freeze"]
            point.release()
    finally:
        guests.mount(guest)


@vm_test
def test_frozen_by_somebody_else(guest: Vm, tmp_path: Path) -> None:
    guest.guest.freeze(OUTER)
    try:
        with taken(guest, tmp_path) as point:
            assert point.consistency == "crash"
            (note,) = point.notes
            assert "somebody else" in note and OUTER in note
            point.release()
        assert guests.both(guest) == (True, False)
    finally:
        guest.guest.thaw(OUTER)


@vm_test
def test_a_hook_that_fails(guest: Vm, tmp_path: Path) -> None:
    hook = f"{guests.HOOKS}/database"
    guest.guest.run(f"mkdir -p {guests.HOOKS}; printf '#!/bin/sh\\nexit 3\\n' > {hook}; chmod +x {hook}")
    try:
        with taken(guest, tmp_path) as point:
            assert point.consistency == "crash"
            (note,) = point.notes
            assert "database freeze ended with status 3" in note
            point.release()
    finally:
        guest.guest.run(f"rm -r {guests.HOOKS}")


@vm_test
@pytest.mark.parametrize("who", ["agentd", "keeper", "both", "admin"])
def test_a_freeze_that_did_not_stand(guest: Vm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Whoever ends it before the point stands: the point is not told to be more than it is."""
    original = freeze.ThroughAgent.freeze

    def meanwhile(self: freeze.ThroughAgent, notes: list[str]) -> bool | None:
        told = original(self, notes)
        found = guests.processes(guest)
        agentd = channel.welcome["pid"]
        victims = {"agentd": [agentd], "keeper": [pid for pid in found if pid != agentd], "both": found}
        if who == "admin":
            guest.guest.thaw(INNER)
        else:
            guests.kill(guest, *victims[who])
            guests.wait(lambda: guests.thawed(guest), 10)
        return told

    monkeypatch.setattr(freeze.ThroughAgent, "freeze", meanwhile)
    with (
        guests.session(guest) as channel,
        machine(guest, tmp_path) as connection,
        connection.take(request(AgentFreezer(channel))) as point,
    ):
        assert point.consistency == "crash"
        point.release()
    guests.wait(lambda: guests.thawed(guest), 5)


@vm_test
def test_qga_freezes_and_the_agent_stands_by(guest: Vm, tmp_path: Path) -> None:
    with guests.session(guest) as channel, machine(guest, tmp_path, qga=True) as connection:
        with connection.take(request(AgentFreezer(channel))) as point:
            assert (point.consistency, point.notes) == ("filesystem", [])
            point.release()
        guests.wait(lambda: len(guests.processes(guest)) == 1, 5)


@vm_test
@pytest.mark.parametrize("qga", [False, True], ids=["agent", "qga"])
@pytest.mark.parametrize("guarded", [False, True], ids=["unguarded", "guarded"])
def test_we_are_killed_while_it_is_frozen(guest: Vm, tmp_path: Path, qga: bool, guarded: bool) -> None:
    """qga's freeze without a guard is ended by the agent, at its deadline; the others at once."""
    places = [
        guest.qmp_socket,
        guest.agent_socket,
        tmp_path,
        guest.qga_socket if qga else "",
        "guarded" if guarded else "",
    ]
    command = [sys.executable, "-m", victim.__name__, *map(str, places)]
    began = time.monotonic()
    done = subprocess.run(command, timeout=60, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if qga and not guarded:
        assert guests.both(guest) == (True, True)
    took = guests.wait(lambda: guests.thawed(guest), 13)
    print(f"thawed {took:.1f} s after we had died, {time.monotonic() - began:.1f} s after we were started")
    assert took < 3 or (qga and not guarded)
    with guests.session(guest) as channel, machine(guest, tmp_path, qga=qga) as connection:
        connection.recover()
        with connection.take(request(AgentFreezer(channel))) as point:
            assert point.consistency == "filesystem"
            point.release()


# -- without a guest


class Scripted:
    """A channel on which each ask has the next of some answers."""

    def __init__(self, *answers: Any) -> None:
        self._answers = iter(answers)

    def start(self, do: str, **arguments: Any) -> int:
        return 1

    def answer(self, request: int, seconds: float) -> Any:
        told = next(self._answers)
        if isinstance(told, Exception):
            raise told
        return told

    def ask(self, do: str, seconds: float, **arguments: Any) -> Any:
        return self.answer(1, seconds)

    def forget(self, request: int) -> None:
        pass

    def order(self, do: str) -> bytes:
        return b""

    def fileno(self) -> int:
        return -1


def scripted(*answers: Any) -> AgentFreezer:
    return AgentFreezer(Scripted(*answers))  # type: ignore[arg-type]


LONG = {"point": "x" * 1000, "why": "busy"}


@pytest.mark.parametrize(
    ("answer", "frozen", "note"),
    [
        ({"frozen": 2, "skipped": []}, True, ""),
        ({"frozen": 2, "skipped": [{"point": "/boot", "type": "vfat", "why": "incapable"}]}, True, ""),
        ({"frozen": 2, "skipped": [LONG] * 100}, False, "somebody else"),
        ({"frozen": 0}, False, "found no file system"),
        ({"frozen": "all"}, None, "does not say"),
        ({"frozen": 2, "skipped": [3]}, None, "does not say"),
        ({"frozen": 2, "skipped": 3}, None, "does not say"),
        ({}, None, "does not say"),
        (Lost("gone"), None, "gone"),
        (Refused("failed", "no"), False, "no"),
    ],
)
def test_what_is_told_of_a_freeze(answer: Any, frozen: bool | None, note: str) -> None:
    notes: list[str] = []
    assert scripted(answer).freeze(1, notes) is frozen
    assert note in "".join(notes)
    assert len(notes) == bool(note)
    assert len("".join(notes)) < 600


@pytest.mark.parametrize(
    ("answer", "stood"),
    [
        ({"thawed": 2, "early": False}, True),
        ({"thawed": 1, "early": False}, False),
        ({"thawed": 2, "early": True}, False),
        ({"thawed": "many", "early": False}, None),
        ({}, None),
        (Lost("gone"), None),
        (Refused("failed", "no"), None),
    ],
)
def test_what_is_told_of_a_thaw(answer: Any, stood: bool | None) -> None:
    freezer = scripted({"frozen": 2, "skipped": []}, answer)
    freezer.freeze(1, [])
    assert freezer.thaw(1) is stood


def test_an_agent_that_does_not_stand_by() -> None:
    """The freeze goes on without it."""
    ours, theirs = socket.socketpair()

    class Qga:
        def fileno(self) -> int:
            return ours.fileno()

    notes: list[str] = []
    with ours, theirs:
        through = ThroughQga(Qga(), scripted(Refused("unknown", "cannot do 'arm'")))  # type: ignore[arg-type]
        through.stand_by(notes)
        through.stand_down()
    (note,) = notes
    assert "does not stand by" in note and "cannot do 'arm'" in note


def test_the_guard_gives_the_order(tmp_path: Path) -> None:
    """With us, it dies or hangs: what we said it should write is written, once, and nothing else."""
    order = frames.encode(messages.ASK, 7, 9, messages.pack_json({"do": "thaw"}))
    for arming in (True, False):
        (qmp, _monitor), (link, agent) = socket.socketpair(), socket.socketpair()
        with qmp, _monitor, link, agent:
            guard = Guard(qmp.fileno(), Order(link.fileno(), order), tmp_path / "note")
            if arming:
                guard._tell(b"F")
            # As if we were dead.
            guard._control.close()
            readable = select.select([agent], [], [], 2)[0]
            heard = agent.recv(65536) if readable else b""
            assert heard == (order if arming else b"")
            agent.sendall(frames.encode(messages.ANSWER, 7, 9, b'{"thawed":2,"early":false}'))
            began = time.monotonic()
            guard.close()
            assert time.monotonic() - began < guard_process.ANSWER_SECONDS / 2


def test_nobody_else_can_speak_over_tls() -> None:
    channel = object.__new__(Channel)
    channel._link = ssl.SSLSocket.__new__(ssl.SSLSocket)
    assert channel.order("thaw") == b""
    freezer = scripted()
    assert freezer.thaw_order == b"" and freeze.ThroughAgent(freezer).order is None
