"""The daemon over an installation of a test's, as a process of its own: started, killed, asked, and judged.

Load decides nothing unless a test is about it: the machine that runs the tests has other things to do as well.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from headstart.cli import main as product
from headstart.host import control
from headstart.load import machine, signals
from headstart.load.signals import Signals
from headstart.state.runs import Runs
from headstart.store.contract import Data
from headstart.store.local import LocalStore
from tests.e2e import steps
from tests.e2e.rig import NAME, Rig
from tests.kit import cli, compare
from tests.kit.waiting import wait_until

#: Which sensors count, see ``Sensors``.
_SENSORS = "HEADSTART_TEST_SENSORS"
#: Other numbers for constants, as JSON: ``{"module:NAME": value}``.
_CONSTANTS = "HEADSTART_TEST_CONSTANTS"
#: Holds by how many seconds the clock of the process is ahead.
_CLOCK = "HEADSTART_TEST_CLOCK"
#: While this file is there, no pack comes into the store.
_HANG = "HEADSTART_TEST_HANG"
MAIN = "tests.e2e.hosted:main"
STOP_SECONDS = 50.0
SECONDS = 60.0


class Sensors(Enum):
    """``NONE``: it is quiet everywhere, whatever goes on. ``GUEST``: what is measured of the guest, as it is."""

    NONE = "none"
    GUEST = "guest"


class Hosted:
    """A context manager: a daemon that still runs at its end is killed."""

    def __init__(
        self,
        rig: Rig,
        *,
        sensors: Sensors = Sensors.NONE,
        constants: Mapping[str, float] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.rig = rig
        self.cli = cli.Cli(rig.folder)
        self.file = rig.folder / "headstart.toml"
        self.hang = rig.folder / "hang"
        self._points = rig.folder / "points"
        self._clock = rig.folder / "clock"
        self.environment = {
            **self.cli.environment,
            _SENSORS: sensors.value,
            _CONSTANTS: json.dumps(dict(constants or {})),
            _CLOCK: str(self._clock),
            _HANG: str(self.hang),
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._log = rig.folder / "daemon.log"
        self._checked: set[str] = set()

    # -- its configuration

    def configure(
        self,
        calendar: Sequence[str],
        *,
        interval: str = "5s",
        transports: Sequence[str] = ("agent", "host"),
        rate: str = "unlimited",
        load: str = "",
        host: str = "",
        audit: str = "all",
        more: str = "",
    ) -> None:
        """One policy for all VMs. With ``audit`` "all" every point in time is copied by another reader."""
        ahead = f"interval = {json.dumps(interval)}\n" if transports else ""
        hook = f"[policy.tests.hooks]\nbefore-release = {json.dumps(self.hook)}\n" if audit == "all" else ""
        self.file.write_text(
            f"[host]\n{host}\n"
            f"[policy.tests]\naudit = {json.dumps(audit)}\n{more}\n"
            f'[policy.tests.schedule]\ncalendar = {json.dumps(list(calendar))}\ntimezone = "UTC"\n'
            f"[policy.tests.head_start]\ntransports = {json.dumps(list(transports))}\n{ahead}"
            f'[policy.tests.load]\nlatency = "1h"\n{load}\n'
            f"[[policy.tests.limits]]\nrate = {json.dumps(rate)}\n"
            f'{hook}[default]\npolicy = "tests"\n'
        )

    @property
    def hook(self) -> str:
        """A command for before-release: it copies the point in time, as ``assert_exact`` wants it."""
        copies = [
            f'rm -f {name}.raw && nbdcopy "${steps.NBD}{name}" {name}.raw'
            for name in map(steps.variable, self._disks())
        ]
        folder = f"{self._points}/$HEADSTART_VM-$HEADSTART_SNAPSHOT"
        return " && ".join([f"mkdir -p {folder}", f"cd {folder}", *copies])

    def _disks(self) -> list[str]:
        with self.rig.journal() as journal:
            excluded = journal.vm(NAME).excluded
        return [name for disk in self.rig.vm.disks if (name := self.rig.called(disk.name)) not in excluded]

    def soon(self, seconds: float, vm: str = NAME) -> tuple[list[str], int]:
        """A calendar whose next moment is in so many seconds, and nothing is missed before; and that moment."""
        with self.rig.journal() as journal:
            point = journal.point(vm)
            last = point.created if point is not None else journal.vm(vm).added
        moment = math.ceil(time.time() + seconds)
        return [f"{datetime.fromtimestamp(each, UTC):%H:%M:%S}" for each in (math.floor(last), moment)], moment

    @staticmethod
    def later() -> list[str]:
        """A calendar on which nothing is due for some minutes: longer than a test takes, and so soon that what changed
        is worth being copied now."""
        return [f"{datetime.fromtimestamp(time.time() + 240, UTC):%H:%M:%S}"]

    def set_clock(self, seconds: float, vm: str = NAME) -> None:
        """So much ahead of the real one, from now on; noticed at once."""
        made = self._clock.with_suffix(".new")
        made.write_text(str(seconds))
        made.rename(self._clock)
        self.ask("resume", vm)

    # -- its life

    def start(self, *faults: str) -> None:
        """It answers when this returns, unless ``faults`` (see ``tests.kit.crash``) ended it."""
        assert not self.running, "it runs already"
        program = ["tests.kit.crash", "--main", MAIN, *faults, "--", "run", "--config", str(self.file)]
        with self._log.open("ab") as log:
            process = self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", *program],
                cwd=cli.ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        wait_until(lambda: self._answers() or process.poll() is not None)
        assert faults or process.poll() is None, self.log[-4000:]

    def _answers(self) -> bool:
        with contextlib.suppress(control.Absent):
            control.ask(self.rig.state, {"do": "status"})
            return True
        return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def reload(self) -> None:
        self.signal(signal.SIGHUP)

    def stop(self) -> float:
        """By SIGTERM, and in good order; how long it took. Its children get it as well, but for hooks: so it is in
        units that do not say otherwise."""
        assert self._process is not None
        began = time.monotonic()
        children = [int(pid) for task in self._tasks() for pid in task.read_text().split()]
        self.signal(signal.SIGTERM)
        for pid in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() != "sh\n":
                    os.kill(pid, signal.SIGTERM)
        assert self._process.wait(STOP_SECONDS) == 0, self.log[-4000:]
        return time.monotonic() - began

    def _tasks(self) -> Iterator[Path]:
        return Path(f"/proc/{self.pid}/task").glob("*/children")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait_killed(self, seconds: float = SECONDS) -> None:
        """By a planted fault."""
        assert self._process is not None
        try:
            assert self._process.wait(seconds) == -signal.SIGKILL, self.log[-4000:]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the fault did not come:\n{self.log[-4000:]}") from None

    def __enter__(self) -> Hosted:
        return self

    def __exit__(self, *details: object) -> None:
        self.hang.unlink(missing_ok=True)
        if self.running:
            self.kill()

    # -- what it tells

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def ask(self, do: str, vm: str = NAME, **values: Any) -> Any:
        return control.ask(self.rig.state, {"do": do, "vm": vm, **values})

    def status(self, vm: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("status", vm)["vms"][vm]
        return found

    def copying(self, vm: str = NAME, least: int = 1) -> bool:
        """A round is under way, and has copied something."""
        doing = self.status(vm)["doing"]
        return doing is not None and doing["verb"] == "precopy" and doing["done"] >= least

    def wait(self, reached: Callable[[], object], seconds: float = SECONDS) -> None:
        try:
            wait_until(reached, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; the daemon said:\n{self.log[-6000:]}") from None

    def wait_said(self, text: str, seconds: float = SECONDS, *, count: int = 1) -> None:
        self.wait(lambda: self.log.count(text) >= count, seconds)

    def runs(self, verb: str, vm: str = NAME) -> list[dict[str, Any]]:
        """Reports of those that came to their end, oldest first."""
        with self.rig.journal() as journal:
            found = [
                run for run in reversed(Runs(journal).newest(vm, 1000)) if run.verb == verb and run.ended is not None
            ]
        return [run.report for run in found if "error" not in run.report]

    # -- what it made

    def back_up(self, vm: str = NAME) -> Any:
        """The report of a backup that is ordered by the command line."""
        return self.cli.run("backup", vm, "--audit", "all", "--hook", f"before-release={self.hook}").json

    def backups(self, vm: str = NAME) -> list[Any]:
        """Manifests of what is published, oldest first."""
        return [each for each in self.rig.manifests() if each.vm == vm]

    def wait_backups(self, count: int, seconds: float = SECONDS, vm: str = NAME) -> None:
        self.wait(lambda: len(self.runs("backup", vm)) + len(self.runs("publish", vm)) >= count, seconds)

    def assert_exact(self, vm: str = NAME) -> None:
        """What is published of a VM and was not looked at yet is all as it was at its point in time."""
        for each in self.backups(vm):
            if each.id not in self._checked:
                self.restored_exactly(each.id, vm)

    def restored_exactly(self, snapshot: str, vm: str = NAME) -> Mapping[str, Path]:
        """The restored disks; they equal what another reader saw of the point in time."""
        restored = self.rig.restore(snapshot)
        for name, path in restored.items():
            compare.assert_identical(path, self._points / f"{vm}-{snapshot}" / f"{steps.variable(name)}.raw")
        self._checked.add(snapshot)
        return restored


# -- the process


def main() -> object:
    """The product, with what the environment says put in its way."""
    sensors = Sensors(os.environ[_SENSORS])
    setattr(machine, "signals", lambda before, after, own: Signals(after.moment, {}))  # noqa: B010
    if sensors is Sensors.NONE:
        setattr(signals, "load", lambda found: (0.0, "nothing"))  # noqa: B010
    setattr(time, "time", _ahead(time.time, Path(os.environ[_CLOCK])))  # noqa: B010
    for place, value in json.loads(os.environ[_CONSTANTS]).items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    setattr(LocalStore, "create", _hanging(LocalStore.create, Path(os.environ[_HANG])))  # noqa: B010
    return product.main()


def _ahead(clock: Callable[[], float], file: Path) -> Callable[[], float]:
    def now() -> float:
        return clock() + (float(file.read_text()) if file.exists() else 0.0)

    return now


def _hanging(create: Callable[[LocalStore, str, Data], None], file: Path) -> Callable[[LocalStore, str, Data], None]:
    def created(store: LocalStore, key: str, data: Data) -> None:
        while key.startswith("packs/") and file.exists():
            time.sleep(0.02)
        create(store, key, data)

    return created


@contextlib.contextmanager
def hosted(rig: Rig, **options: Any) -> Iterator[Hosted]:
    """One that is stopped in good order at the end, with nothing left in the VM, and each backup exact."""
    with Hosted(rig, **options) as daemon:
        yield daemon
        if daemon.running:
            daemon.stop()
        daemon.assert_exact()
        rig.assert_tidy()
