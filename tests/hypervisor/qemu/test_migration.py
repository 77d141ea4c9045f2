"""A migration never meets anything of ours, and we never touch what one has left behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart import errors
from headstart.blocks import Blocks
from headstart.hypervisor.contract import Migrating, PointRequest, Start
from headstart.hypervisor.qemu import pull
from headstart.hypervisor.qemu.inventory import Attachment
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.hypervisor.qemu.push import PushPoint
from headstart.wire.qmp import Command
from tests.hypervisor.qemu import bare, points
from tests.hypervisor.qemu.agent import Agent
from tests.kit import travel
from tests.wire import scripted

pytestmark = pytest.mark.vm

#: So slow that a busy host's threads have their turn before the memory is sent.
BANDWIDTH = 256 << 10


@contextlib.contextmanager
def pair(folder: Path, *, iothread: bool = False) -> Iterator[tuple[bare.Bare, bare.Bare]]:
    """A VM, and a QEMU that waits for it."""
    arguments = bare.two(folder, iothread=iothread)
    with bare.running(*arguments) as here, bare.running(*arguments, "-incoming", "defer") as there:
        yield here, there


def depart(here: bare.Bare, there: bare.Bare, *, bitmaps: bool = True) -> None:
    travel.begin(here, there, there.folder / "migration", bitmaps=bitmaps, bandwidth=BANDWIDTH)


def arrive(here: bare.Bare, there: bare.Bare) -> None:
    assert travel.wait(here, *travel.OVER) == "completed"
    deadline = time.monotonic() + travel.SECONDS
    while there.status != "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begin(machine: QemuMachine) -> None:
    machine.transact([Start(disk, "a") for disk in points.SIZES])


@pytest.mark.parametrize("bitmaps", [True, False])
def test_a_point_in_time_lets_go_at_once(tmp_path: Path, bitmaps: bool) -> None:
    with pair(tmp_path) as (here, there), here.machine() as machine:
        begin(machine)
        with machine.take(points.request()) as point:
            depart(here, there, bitmaps=bitmaps)
            arrive(here, there)
            for attempt in (
                lambda: points.content(point.reader("dev-two"), 0, 1 << 20),
                lambda: point.keep("dev-one", Blocks([0])),
                point.recorded,
                point.check,
            ):
                with pytest.raises(Migrating, match="migrat"):
                    attempt()
            point.release()
        assert here.leftovers() == []
        there.write("dev-one", 0, 1, 1)
        with there.machine() as other:
            assert [disk for disk, found in other.bitmaps().items() if found] == list(points.SIZES)[: 1 + bitmaps]
            with other.take(points.request()) as point:
                point.release()


def test_jobs_of_ours_let_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``dirty-bitmaps``: with it, QEMU refuses while a job of anybody's has a bitmap."""
    learn = PushPoint._learn

    def depart_and_learn(point: PushPoint, request: PointRequest) -> None:
        depart(here, there, bitmaps=False)
        time.sleep(0.2)
        learn(point, request)

    monkeypatch.setattr(PushPoint, "_learn", depart_and_learn)
    with pair(tmp_path, iothread=True) as (here, there), here.machine() as machine:
        with pytest.raises(Migrating):
            machine.take(points.request())
        arrive(here, there)
        assert here.leftovers() == []


def test_reading_a_running_disk_ends(tmp_path: Path) -> None:
    with pair(tmp_path) as (here, there), here.machine() as machine:
        begin(machine)
        with machine.live(["dev-one"]) as readers:
            depart(here, there)
            arrive(here, there)
            time.sleep(1)
            with pytest.raises(Migrating, match="migration of the VM began"):
                points.content(readers["dev-one"], 0, 1 << 20)
        assert here.leftovers() == []


def test_a_guest_is_thawed_before_it_leaves(tmp_path: Path) -> None:
    """Its agent has frozen it and does not come back in time: on the other side nobody would reach it."""

    class Slow(Agent):
        def answer(self, request: dict[str, object]) -> bytes:
            answer = super().answer(request)
            if request["execute"] == "guest-fsfreeze-freeze":
                threading.Thread(target=depart, args=(here, there)).start()
                return b""
            return answer

    agent = Slow()
    with (
        pair(tmp_path) as (here, there),
        scripted.listening(agent.serve) as qga,
        here.machine(qga=qga) as machine,
    ):
        failures: list[errors.HeadstartError] = []

        def take() -> None:
            failures.append(failure(lambda: machine.take(points.request(freeze=True))))

        taking = threading.Thread(target=take)
        taking.start()
        with agent.changed:
            assert agent.changed.wait_for(lambda: agent.state == "frozen", 10)
            assert agent.changed.wait_for(lambda: agent.state == "thawed", 5)
        arrive(here, there)
        taking.join()
        assert isinstance(failures[0], Migrating)


def failure(attempt: Callable[[], object]) -> errors.HeadstartError:
    with pytest.raises(errors.HeadstartError) as raised:
        attempt()
    return raised.value


def test_what_it_left_behind_and_where_it_is_to_come(tmp_path: Path) -> None:
    """The disks are another QEMU's. A point in time there made the old one abort."""
    with pair(tmp_path) as (here, there):
        with there.machine() as machine:
            refuses(machine, "waits for a VM")
        with here.machine() as machine:
            begin(machine)
        depart(here, there)
        arrive(here, there)
        with here.machine() as machine:
            refuses(machine, "away from this QEMU")
            assert len(machine.inventory().disks) == 2
        assert here.process.poll() is None
        with there.machine() as machine:
            assert machine.recover() == ()


def refuses(machine: QemuMachine, words: str) -> None:
    attempts: list[Callable[[], Any]] = [
        machine.recover,
        machine.bitmaps,
        lambda: begin(machine),
        lambda: machine.changed({}),
        lambda: machine.live(["dev-two"]).__enter__(),
        lambda: machine.take(points.request()),
    ]
    for attempt in attempts:
        with pytest.raises(Migrating, match=words):
            attempt()


def test_bitmaps_where_nodes_have_other_names(tmp_path: Path) -> None:
    """With a mapping they come along; without one they are lost, and the VM arrives all the same."""
    arguments = bare.two(tmp_path)
    other = [word.replace("node-name=one", "node-name=uno").replace("drive=one", "drive=uno") for word in arguments]
    for mapped in (False, True):
        with bare.running(*arguments) as here, bare.running(*other, "-incoming", "defer") as there:
            with here.machine() as machine:
                begin(machine)
            for vm, node in ((here, "one"), (there, "uno")) if mapped else ():
                alias = {"node-name": node, "alias": "system", "bitmaps": [{"name": "a", "alias": "a"}]}
                vm.qmp("migrate-set-parameters", block_bitmap_mapping=[alias])
            depart(here, there)
            arrive(here, there)
            with there.machine() as machine:
                assert bool(machine.bitmaps()["dev-one"]) is mapped
        for name in ("one.qcow2", "two.raw"):
            (tmp_path / name).unlink()
        bare.two(tmp_path)


def test_a_filter_that_cannot_be_inserted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to put a device on the node that it stands on, this QEMU aborts."""
    insert = pull._root

    def fail_at_one(attachment: Attachment, node: str) -> Command:
        return insert(attachment, node if attachment.disk.name == "dev-one" else "nowhere")

    monkeypatch.setattr(pull, "_root", fail_at_one)
    with bare.running(*bare.two(tmp_path)) as vm, vm.machine() as machine:
        with pytest.raises(errors.PointLost, match="could not be inserted"):
            machine.take(points.request())
        assert vm.status == "running"
        assert vm.leftovers() == []
