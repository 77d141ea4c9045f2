"""A rehearsal: a snapshot is started apart from everything, and looked at. What it has shown is a proof.

::

    started, without a network  ->  sign of life  ->  checks  ->  picture of its screen  ->  thrown away
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import errors, plain, units
from headstart.hypervisor import space
from headstart.repository.proof import Check, Evidence, Proof
from headstart.restore.booting import boot, runplace
from headstart.restore.booting.attendance import HELD, Attendance
from headstart.restore.booting.boot import Wanted
from headstart.restore.order import file_name
from headstart.restore.rehearsing import checks, signs
from headstart.restore.rehearsing.signs import Awaited, Signs
from headstart.restore.rehearsing.stage import QemuStage, Stage
from headstart.restore.serving.serving import Source

LIBVIRT = "qemu:///system"
#: From the first instruction to the sign of life.
SECONDS = 600.0
#: Services that are asked for may begin after the agent does.
CHECK_SECONDS = 60.0
#: A guest that a failed request holds goes on when the store is back; for so long that is waited for, all in all.
STANDSTILL_SECONDS = 60.0
_POLL_SECONDS = 1.0
#: Bytes that stay free in the scratch directory.
SPARED = units.GIB
#: What names of rehearsed VMs begin with.
_NAME = "rehearsal-"
#: In the scratch directory: a VM may be called like one that is rehearsed.
_FOLDER = "rehearsals"
#: Characters of the console that go with the proof, and bytes of a picture of the screen.
_CONSOLE = 20_000
_SCREEN_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """``awaited`` None: what the VM can give. ``seconds`` until the sign of life. ``checks`` as ``checks.check_name``
    allows; they need qemu-guest-agent. ``memory`` in bytes in place of what the VM had. ``libvirt``: where a domain of
    libvirt's is started. ``definition`` in place of the snapshot's; the user's own."""

    awaited: Awaited | None = None
    pattern: str = ""
    seconds: float = SECONDS
    checks: tuple[str, ...] = ()
    memory: int | None = None
    libvirt: str = LIBVIRT
    definition: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """``notes``: what is different in the rehearsed VM."""

    proof: Proof
    evidence: Evidence
    notes: tuple[str, ...] = ()


def rehearse(source: Source, order: Order, scratch: Path, clock: Callable[[], float]) -> Shown:
    """Start the snapshot, wait, ask, and throw everything away. Hold a lease on it.

    A snapshot that is damaged, or whose guest does not start, has not passed. Where nothing can be said of it, that is
    raised: ``Unsupported`` and ``NotFound`` for a definition that cannot be used here, ``NoSpace``, ``Unreachable``
    where QEMU does not come to the guest's first instruction, or what it needs of this host is gone. ``scratch`` gets
    what the guest writes.
    """
    began, monotonic = clock(), time.monotonic()
    seen = _Seen()
    try:
        with _started(source, order, scratch) as staged:
            seen.notes = staged.notes
            reason = _Look(staged, order, seen, scratch).reason()
    except errors.Damaged as error:
        reason = str(error)
    seconds = time.monotonic() - monotonic
    awaited = seen.awaited or order.awaited or Awaited.AGENT
    proof = Proof(began, socket.gethostname(), not reason, seconds, awaited.value, reason, tuple(seen.checks))
    return Shown(proof, Evidence(seen.screenshot, seen.console[-_CONSOLE:], seen.answers), seen.notes)


def clear(scratch: Path) -> None:
    """Away with what rehearsals have left there whose process was killed."""
    runplace.clear((scratch / _FOLDER).glob("*"))


@contextlib.contextmanager
def _started(source: Source, order: Order, scratch: Path) -> Iterator[Stage]:
    """By a name of the VM's: what a rehearsal that was killed has left is replaced by the next."""
    name = f"{_NAME}{file_name(source.manifest.vm)[:40]}"
    folder = runplace.folder_of(name, os.environ)
    wanted = Wanted(
        name, folder, scratch / _FOLDER / name, memory=order.memory, definition=order.definition, rehearsed=True
    )
    if boot.is_domain(order.definition or boot.definition_of(source.repo, source.manifest)):
        # Of no use to those who have no libvirt.
        from headstart.restore.rehearsing import domainstage

        with domainstage.started(source, wanted, order.libvirt) as staged:
            yield staged
        return
    with boot.booted(source, wanted) as booted:
        yield QemuStage(booted)


class _Seen:
    """What has been seen so far, whatever comes then."""

    def __init__(self) -> None:
        self.awaited: Awaited | None = None
        self.notes: tuple[str, ...] = ()
        self.checks: list[Check] = []
        self.answers: dict[str, str] = {}
        self.screenshot = b""
        self.console = ""


class _Look:
    def __init__(self, staged: Stage, order: Order, seen: _Seen, scratch: Path) -> None:
        self._stage = staged
        self._scratch = scratch
        self._order = order
        self._seen = seen
        #: It stood still for too long, in all.
        self._held = False
        self._signs = Signs(staged, order.awaited, order.pattern)
        seen.awaited = self._signs.awaited
        if order.checks and not staged.has_qga:
            raise errors.Unsupported(
                "The VM has no channel to qemu-guest-agent, which answers checks: leave the checks out."
            )

    def reason(self) -> str:
        """Why it has not passed; empty if it has."""
        attendance = Attendance(self._stage.instance, self._stage.served, self._stage.consoles)
        self._stage.instance.resume()
        try:
            if not self._waited(attendance):
                return self._why_not()
            failed = self._failed_checks(attendance)
            return f"Not so: {', '.join(failed)}." if failed else ""
        finally:
            self._seen.console = signs.console(self._stage.consoles)
            picture = self._stage.screenshot()
            self._seen.screenshot = picture if len(picture) <= _SCREEN_LIMIT else b""

    def _waited(self, attendance: Attendance) -> bool:
        deadline = time.monotonic() + self._order.seconds
        stood = 0.0
        while not self._signs.seen():
            if self._stage.instance.wait(_POLL_SECONDS) or time.monotonic() > deadline:
                return False
            self._attend(attendance)
            stood += _POLL_SECONDS if self._stage.instance.status == HELD else 0.0
            if stood > STANDSTILL_SECONDS:
                self._held = True
                return False
        return True

    def _attend(self, attendance: Attendance) -> None:
        """A guest that writes and writes does not take what backups of others need: ``NoSpace``."""
        attendance.look()
        free = space.free(self._scratch)
        if free < SPARED:
            raise errors.NoSpace(
                f"{self._scratch} has {units.format_bytes(free)} free, and the rehearsed VM writes there: it was ended,"
                f" because backups need {units.format_bytes(SPARED)}. Make room, or name another directory with"
                " --scratch.",
                free=free,
                needed=SPARED,
            )

    def _why_not(self) -> str:
        status = self._stage.instance.status
        if not status:
            return f"QEMU ended before there was a sign of life. It says: {self._stage.last_words()}"
        if self._held or status == HELD:
            return "The guest stands still: a request to a disk failed. The repository is damaged, or away."
        told_status = "" if status == "running" else f" QEMU's status is {status}."
        told = {
            Awaited.AGENT: "No agent answered",
            Awaited.CONSOLE: "The console did not ask for a login",
            Awaited.PATTERN: "The pattern did not come on the console",
        }
        given_up = " To look for it takes too long: take a simpler one." if self._signs.given_up else ""
        return f"{told[self._signs.awaited]} within {self._order.seconds:.0f} s.{told_status}{given_up}"

    def _failed_checks(self, attendance: Attendance) -> list[str]:
        """Each check is asked again until it passes, for some time."""
        deadline = time.monotonic() + CHECK_SECONDS
        for name in self._order.checks:
            while True:
                answer = self._asked(name)
                if answer.passed or time.monotonic() > deadline or self._stage.instance.wait(_POLL_SECONDS):
                    break
                self._attend(attendance)
            self._seen.checks.append(Check(name, answer.passed))
            self._seen.answers[name] = answer.said
        return [check.name for check in self._seen.checks if not check.passed]

    def _asked(self, name: str) -> checks.Answer:
        try:
            with self._stage.qga() as qga:
                return checks.ask(qga, name)
        except errors.HeadstartError as error:
            return checks.Answer(False, plain.line(str(error)))
