"""A real VM, a guest that writes and reads its own disks, and one fault in each cycle, drawn from a seed.

After each fault: the guest writes on, nothing of ours holds it, the next backup needs no option, leaves nothing behind
and is what another reader saw at its point in time, byte by byte.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.e2e.rig import NAME, Rig
from tests.kit import disks, qmp, workloads
from tests.kit.cli import Cli
from tests.kit.vm import Vm

MIB = disks.MIB
BLOCK = 64 * 1024
SIZE = 16 * MIB
#: At the end of each disk, not in a file system: the ledger, then what is written between runs.
FREE = 4 * MIB
DISKS = ("system", "data")
#: Longer than any time-out that holds for the guest: a freeze has 10 s.
STOPPED_SECONDS = 12.0
#: A run that was neither killed nor stopped has ended by then.
RUN_SECONDS = 120.0

Verb = Literal["precopy", "backup"]
#: Where the program can be killed, or lose its sockets: in front of each.
PLACES = {
    "QMP command": "headstart.wire.qmp:Qmp._execute",
    "journal commit": "headstart.state.journal:Journal._commit",
    "object put": "headstart.store.local:LocalStore.create",
}


@dataclass(slots=True)
class Endured:
    """Of all cycles: faults by kind; the longest stall of a guest's write, our longest pause and freeze, in seconds."""

    cycles: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    stall: float = 0.0
    pause: float = 0.0
    freeze: float = 0.0


class Machine:
    """An installation, its VM, and the guest's ledger on both disks. A context manager."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.endured = Endured()
        self._random = random.Random(seed)
        self._stack = contextlib.ExitStack()
        self._book: workloads.Ledger | None = None
        self._writes = 0

    def __enter__(self) -> Machine:
        with contextlib.ExitStack() as stack:
            self.vm = stack.enter_context(Vm(disks.two_disks(self.folder, SIZE, FREE)))
            self.rig = Rig(self.folder / "headstart", self.vm, agent=True)
            self._begin_book()
            self.rig.backup()
            self._calls = {verb: self._count(verb) for verb in ("precopy", "backup")}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def _count(self, verb: str) -> dict[str, int]:
        """How often a run comes to each place."""
        self._write()
        found = Cli(self.rig.folder).count_calls(list(PLACES.values()), verb, NAME)
        return {name: found[place] for name, place in PLACES.items()}

    # -- the guest

    def _begin_book(self) -> None:
        devices = [self.vm.device(name) for name in DISKS]
        self._book = workloads.ledger(self.vm.guest, devices, offset=SIZE - FREE, slots=100, pause=0.05)

    def _write(self) -> None:
        for disk in DISKS:
            start = SIZE - FREE + 2 * MIB + self._random.randrange(16) * BLOCK
            self._writes += 1
            self.vm.guest.write(self.vm.device(disk), start, self._random.randint(1, 8) * BLOCK, seed=self._writes)

    # -- a cycle

    def cycle(self) -> str:
        """Returns what was done to whom, for people. Raises ``AssertionError``."""
        began = time.monotonic()
        self._write()
        if self._random.random() < 0.5:
            self.rig.precopy()
            self._write()
        kind = self._random.choice(list(FAULTS))
        verbs: tuple[Verb, ...] = ("precopy", "backup", "backup")
        verb = self._random.choice(verbs)
        detail = FAULTS[kind](self, verb)
        self.endured.faults[kind] += 1
        self._assert_unharmed(began)
        self.endured.cycles += 1
        return f"{kind} ({verb}, {detail})"

    def _assert_unharmed(self, began: float) -> None:
        assert self._book is not None
        assert self.vm.qmp("query-status")["status"] == "running", "the VM was left stopped"
        self._book.wait_acknowledged(self._book.acknowledged() + 5)
        assert not self.vm.events("BLOCK_IO_ERROR"), "a guest's request failed"
        self._write()
        report = self.rig.exact_backup().report
        for finished, took in self._book.samples(began):
            self.endured.stall = max(self.endured.stall, min(took, finished - began))
        self.endured.pause = max(self.endured.pause, report.pause_seconds, *self._pauses())
        self.endured.freeze = max(self.endured.freeze, report.freeze_seconds)

    def _pauses(self) -> Iterator[float]:
        yield 0.0
        for stopped, resumed in zip(self.vm.events("STOP"), self.vm.events("RESUME"), strict=False):
            yield qmp.moment_of(resumed) - qmp.moment_of(stopped)

    # -- the faults

    def kill_in_front(self, verb: Verb, place: str) -> str:
        number = self._random.randint(1, self._calls[verb][place])
        status = self._run(verb, "--before", f"{PLACES[place]}:{number}")
        assert status in (-signal.SIGKILL, 0), status
        return f"{number} of {self._calls[verb][place]}"

    def cut_sockets(self, verb: Verb) -> str:
        count = self._calls[verb]["QMP command"]
        number = self._random.randint(1, count)
        self._run(verb, "--cut", f"{PLACES['QMP command']}:{number}")
        return f"{number} of {count}"

    def _run(self, verb: Verb, *faults: str) -> int:
        process = Cli(self.rig.folder).start(verb, NAME, faults=faults)
        said = process.communicate(timeout=RUN_SECONDS)
        assert "Traceback" not in said[1], said
        return process.returncode

    @contextlib.contextmanager
    def _running(self, verb: Verb) -> Iterator[subprocess.Popen[str]]:
        """A run at a random moment of it. What comes of it is its own affair, if it ends, and says why."""
        process = Cli(self.rig.folder).start(verb, NAME)
        try:
            time.sleep(self._random.uniform(0.3, 2.5))
            yield process
            said = process.communicate(timeout=RUN_SECONDS)
            assert "Traceback" not in said[1], said
        finally:
            process.kill()
            process.wait()

    def stop_tool(self, verb: Verb) -> str:
        with self._running(verb) as process:
            process.send_signal(signal.SIGSTOP)
            time.sleep(STOPPED_SECONDS)
            assert self.vm.qmp("query-status")["status"] == "running", "a tool that hangs holds the VM"
            process.send_signal(signal.SIGCONT)
        return f"for {STOPPED_SECONDS:.0f} s"

    def kill_qemu(self, verb: Verb) -> str:
        with self._running(verb):
            self.vm.kill()
        self.vm.restart()
        self.rig.follow(self.vm)
        self._begin_book()
        return "and started again"

    def reset(self, verb: Verb) -> str:
        with self._running(verb):
            self.vm.reset()
        self._begin_book()
        return "by its button"

    def kill_agentd(self, verb: Verb) -> str:
        with self._running(verb):
            told = self.vm.guest.run("ps -o pid,args | grep '[h]eadstart-agentd' | grep -v sh").output
            for number in re.findall(r"^\s*(\d+)", told, re.MULTILINE):
                self.vm.guest.run(f"kill -9 {number} || true")
        return "in the guest"


FAULTS: dict[str, Callable[[Machine, Verb], str]] = {
    "the tool is killed in front of a QMP command": lambda machine, verb: machine.kill_in_front(verb, "QMP command"),
    "the tool is killed in front of a journal commit": lambda machine, verb: machine.kill_in_front(
        verb, "journal commit"
    ),
    "the tool is killed in front of an object put": lambda machine, verb: machine.kill_in_front(verb, "object put"),
    "the tool's sockets are closed": Machine.cut_sockets,
    "the tool is stopped": Machine.stop_tool,
    "QEMU is killed": Machine.kill_qemu,
    "the guest is reset": Machine.reset,
    "agentd is killed": Machine.kill_agentd,
}
