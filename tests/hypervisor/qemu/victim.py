"""A run of ours that is killed by SIGKILL at a chosen place: ``victim.py PLACE MONITOR SCRATCH [QGA]``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from headstart.hypervisor.contract import PointRequest, Start
from headstart.hypervisor.guard import Guard
from headstart.hypervisor.qemu.bitmaps import QemuBitmaps
from headstart.hypervisor.qemu.freeze import ThroughQga
from headstart.hypervisor.qemu.machine import QemuMachine
from headstart.wire.qmp import Qmp
from tests.hypervisor.qemu import points
from tests.hypervisor.subjects import INSTALLATION
from tests.kit import crash

#: Before or after the first call of what.
PLACES = {
    "view": ("before", "headstart.wire.nbd:Client.dirty"),
    "preparing": ("before", "headstart.hypervisor.qemu.pull:PullPoint._flush"),
    "frozen": ("after", "headstart.hypervisor.qemu.freeze:ThroughQga.freeze"),
    "inserted": ("before", "headstart.hypervisor.qemu.pull:PullPoint._offer"),
    "offering": ("after", "headstart.hypervisor.qemu.pull:PullPoint._offer"),
    "removing": ("before", "headstart.hypervisor.qemu.pull:put_back"),
    "removed": ("after", "headstart.hypervisor.qemu.pull:put_back"),
    "wishing": ("before", "headstart.wire.nbd:Client.zero"),
    "prepared": ("before", "headstart.hypervisor.qemu.fleece:Fleece._insert"),
    "filtered": ("before", "headstart.hypervisor.qemu.fleece:Fleece._tell"),
    "told": ("before", "headstart.hypervisor.qemu.push:PushPoint._copy"),
    "copying": ("before", "headstart.hypervisor.qemu.push:PushPoint._learn"),
    "copied": ("before", "headstart.hypervisor.qemu.jobs:end"),
}
#: It hangs where the guest is frozen: stopped itself, or waiting for a monitor that is silent.
HANGING = {"frozen, stopped": signal.SIGSTOP, "frozen, silent": None}
#: QEMU hangs in the stop: it dies after so many seconds, before or after its guard has acted.
STOPPING = {"stopping": 0.02, "stopping, guarded": 0.3}
#: A disk that is none of ours.
SLOW = "dev-slow"
#: Its guard dies with it.
UNGUARDED = "unguarded"


def stop_and_die(qmp: Qmp, commands: Any) -> Any:
    """Instead of the batch that stops, inserts and continues."""
    qmp.execute("stop")
    crash.die()


def die_after(seconds: float) -> None:
    """Of the batch."""
    batch = Qmp.batch

    def batch_and_die(self: Qmp, commands: Any) -> Any:
        threading.Timer(seconds, crash.die).start()
        return batch(self, commands)

    Qmp.batch = batch_and_die  # type: ignore[method-assign]


def hang(stop: signal.Signals | None) -> None:
    """Right after the freeze; tells the moment of its order."""
    freeze = ThroughQga.freeze

    def freeze_and_tell(self: ThroughQga, notes: list[str]) -> bool | None:
        began = time.time()
        frozen = freeze(self, notes)
        print(began, flush=True)
        if stop is not None:
            os.kill(os.getpid(), stop)
        return frozen

    ThroughQga.freeze = freeze_and_tell  # type: ignore[method-assign]
    QemuBitmaps.transact = lambda *_: time.sleep(600)  # type: ignore[method-assign]


_tell = Guard._tell


def kill_guard(guard: Guard, order: bytes) -> None:
    """As soon as it has answered."""
    _tell(guard, order)
    os.kill(guard._process.pid, signal.SIGKILL)
    guard._process.wait()


def main(place: str, monitor: str, scratch: str, qga: str = "") -> None:
    when, name = PLACES.get(place, ("", ""))
    if name:
        crash.Place(name, die_before=int(when == "before"), die_after=int(when == "after"))
    if place in ("stopped", UNGUARDED):
        Qmp.batch = stop_and_die  # type: ignore[assignment, method-assign]
    if place in STOPPING:
        die_after(STOPPING[place])
    if place == UNGUARDED:
        Guard._tell = kill_guard  # type: ignore[assignment, method-assign]
    if place in HANGING:
        QemuMachine.transact = lambda *_: None  # type: ignore[method-assign]
        hang(HANGING[place])
    machine = QemuMachine(
        Path(monitor),
        installation=INSTALLATION,
        scratch=Path(scratch),
        label="vm",
        qga=Path(qga) if qga else None,
        excluded=[SLOW],
    )
    starts = (Start("dev-one", "old"), Start("dev-two", "old"))
    machine.transact(starts)
    if place not in HANGING:
        machine.changed({"dev-one": ["old"]})
    with machine.live(["dev-two"]) as readers:
        points.content(readers["dev-two"], 0, 1 << 20)
        if place == "live":
            crash.die()
    new = tuple(Start(start.disk, "new") for start in starts)
    with machine.take(PointRequest(new, (), points.everything(), freeze=bool(qga))) as point:
        if place == "standing":
            crash.die()
        point.release()
    raise AssertionError(f"nothing went by {place}")


if __name__ == "__main__":
    main(*sys.argv[1:])
