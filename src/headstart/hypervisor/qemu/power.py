"""The power of a plain QEMU: it ends when its guest shuts down, and is started again as it was started.

It is not always ours to start it. Where a service manager does, it would take what we start for a stranger; files that
QEMU was handed open, and a terminal, cannot be handed again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from headstart import errors, plain
from headstart.hypervisor import overlays, power
from headstart.hypervisor.qemu import offline
from headstart.wire.qga import Qga
from headstart.wire.qmp import CommandFailed, Qmp

_END_SECONDS = 60.0
_START_SECONDS = 30.0
#: Guests that run; all others do not hear of a power button.
_HEARING = "running"
_HANDED = re.compile(r"(^|[=,:])(fd|fds|vhostfd|vhostfds)=|(^|[=:,])fd:|/dev/fdset/")


@dataclass(frozen=True, slots=True)
class Started:
    """How a process was started. ``unit``: the service that it is of, if it is of one; ``ran``: its guest was
    running."""

    words: tuple[str, ...]
    folder: str
    environment: tuple[tuple[str, str], ...]
    user: int
    unit: str
    ran: bool = False


class QemuPower:
    """``headstart.hypervisor.power.Power``."""

    def __init__(self, monitor: Path, qga: Path | None) -> None:
        self._monitor = monitor
        self._qga = qga
        self._started: Started | None = None

    def runs(self) -> bool:
        return offline.listens(self._monitor)

    def require(self) -> None:
        """Whoever answers can be shut down."""
        if self.runs():
            Qmp(self._monitor).close()

    def memory(self) -> str:
        with Qmp(self._monitor) as qmp:
            self._started = _look(qmp.peer_pid, ran=qmp.execute("query-status")["status"] == _HEARING)
        return json.dumps(dataclasses.asdict(self._started)) if self._started else ""

    def recall(self, memory: str) -> None:
        if memory:
            values = json.loads(memory)
            environment = tuple((name, value) for name, value in values.pop("environment"))
            self._started = Started(**{**values, "words": tuple(values["words"]), "environment": environment})

    def shut_down(self, seconds: float, *, force: bool) -> None:
        with Qmp(self._monitor) as qmp:
            pid = qmp.peer_pid
            if qmp.execute("query-status")["status"] == _HEARING:
                self._ask(qmp)
                if power.wait(lambda: self._is_down(qmp), seconds):
                    force = True  # the guest has shut down, and QEMU was told to stay (-no-shutdown)
            if not self._has_ended(pid):
                if not force:
                    raise power.still_up(seconds)
                with contextlib.suppress(errors.Unreachable):
                    qmp.execute("quit")
        if not power.wait(lambda: self._has_ended(pid), _END_SECONDS):
            raise errors.Busy("QEMU does not end. Nothing was changed.")

    def _has_ended(self, pid: int | None) -> bool:
        return (pid is None or _ended(pid)) and not self.runs()

    def _ask(self, qmp: Qmp) -> None:
        """By the power button, and by the guest's agent, which hears also where nobody minds the button."""
        qmp.execute("system_powerdown")
        if self._qga is not None:
            # It does not answer when it does what it is told.
            with contextlib.suppress(errors.Unreachable), contextlib.closing(Qga(self._qga)) as qga:
                qga.execute("guest-shutdown", 1.0)

    def _is_down(self, qmp: Qmp) -> bool:
        try:
            return bool(qmp.execute("query-status")["status"] == "shutdown")
        except errors.Unreachable:
            return True

    def start(self) -> str:
        if self.runs():
            return ""  # whoever minds it was faster
        reason = why_not(self._started)
        if reason or self._started is None:
            return reason
        with tempfile.TemporaryFile("w+") as said:
            process = _spawn(self._started, said.fileno())
            if power.wait(lambda: self.runs() or bool(process.poll()), _START_SECONDS) and not process.poll():
                return self._let_run() if self._started.ran and "S" in _options(self._started) else ""
            said.seek(0)
            return f"QEMU did not start: {plain.joined(said.read().strip()) or 'it says nothing'}"

    def _let_run(self) -> str:
        """Whoever started it with ``-S`` did that, too. Returns why it stands still."""
        try:
            with Qmp(self._monitor) as qmp:
                qmp.execute("cont")
                status = str(qmp.execute("query-status")["status"])
        except (errors.Unreachable, CommandFailed) as error:
            return f"QEMU waits for 'cont', as it was started with -S: {error}"
        return "" if status == _HEARING else f"QEMU was started, and its guest stands still: {plain.line(status)}"


def _spawn(started: Started, said: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [overlays.as_it_is_now(word) for word in started.words],
            cwd=started.folder,
            env=dict(started.environment),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    except OSError as error:
        raise errors.Unreachable(f"QEMU cannot be started again: {error.strerror}. Start it as you do.") from error


def _look(pid: int | None, *, ran: bool) -> Started | None:
    """None where the kernel does not tell all of it."""
    place = Path(f"/proc/{pid}")
    try:
        words = [os.fsdecode(each) for each in (place / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")]
        settings = [os.fsdecode(each).partition("=") for each in (place / "environ").read_bytes().split(b"\0") if each]
        facts = place.stat()
        folder = str((place / "cwd").readlink())
        program = str((place / "exe").readlink())
        unit = _unit((place / "cgroup").read_text())
    except OSError:
        return None
    if os.sep not in words[0] or not Path(folder, words[0]).exists():
        words[0] = program
    environment = tuple((name, value) for name, _, value in settings)
    return Started(tuple(words), folder, environment, facts.st_uid, unit, ran)


def _unit(cgroup: str) -> str:
    """The service of systemd's that a process is of, by the last part of its control group."""
    for line in cgroup.splitlines():
        last = line.rpartition("/")[2]
        if last.endswith(".service") and not last.startswith("user@"):
            return last
    return ""


def _options(started: Started) -> set[str]:
    return {word.lstrip("-") for word in started.words if word.startswith("-")}


def why_not(started: Started | None) -> str:
    """Why its owner has to start it; empty if it can be done here."""
    if started is None:
        return "how QEMU was started is not known: start the VM as you do"
    if started.unit:
        return f"the VM is started by a service: 'systemctl start {started.unit}'"
    if any(_HANDED.search(word) for word in started.words) or "-add-fd" in started.words:
        return "QEMU was handed open files when it was started: start the VM as you do"
    if any("stdio" in word.split(",")[0] for word in started.words) or "-nographic" in started.words:
        return "QEMU was started on a terminal: start the VM as you do"
    options = _options(started)
    if "incoming" in options:
        return "QEMU was started to receive a migration (-incoming): start the VM as you do"
    if "loadvm" in options:
        return "QEMU was started with -loadvm, which puts the disks back to that moment: start the VM without it"
    if "preconfig" in options:
        return "QEMU was started with -preconfig: start the VM as you do"
    if started.user != os.geteuid():
        return "QEMU runs as another user: start the VM as you do"
    return ""


def _ended(pid: int) -> bool:
    """One that nobody has waited for yet has ended as well."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return told.rpartition(")")[2].split()[0] in "ZX"
