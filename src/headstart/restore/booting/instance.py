"""A VM of plain QEMU that we start: its process, and a monitor that is ours alone.

It is started without its guest running: ``resume`` lets it. As a context manager it is gone at the end, also when this
process is killed, unless ``let_go`` was called; with ``outlives`` it stays when this process is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from headstart import errors, plain, units
from headstart.restore.booting.definition import Derived
from headstart.wire.qmp import CommandFailed, Qmp

#: QEMU opens its images, and reserves its memory, before it listens.
START_SECONDS = 60.0
#: After being told to quit.
END_SECONDS = 30.0
#: Waits for a word of ours, or our end: then it ends the process of which it was told.
_GUARD = 'read -r pid && { read -r over || kill -KILL "$pid"; }'
#: Of what QEMU said, so much is told.
_LAST_WORDS = 2000
_MEMORY = Path("/proc/meminfo")


class Instance:
    """``qmp`` is for one thread."""

    def __init__(self, derived: Derived, *, outlives: bool = False) -> None:
        """Raises ``Unsupported`` without this QEMU, ``Unreachable`` with what QEMU says if it ends at once."""
        self.derived = derived
        self._log = derived.pid_file.with_name("qemu.log")
        self._kept = False
        # Before it, so that hardly any time is left in which nobody ends it.
        self._guard = None if outlives else _guard()
        self._process = self._start([*derived.words, "-S"])
        self._tell_guard(f"{self._process.pid}")
        try:
            self.qmp = self._connect()
        except BaseException:
            self._kill()
            raise

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            try:
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # a terminal's Ctrl-C is for us
                )
            except OSError as error:
                self._tell_guard()
                raise errors.Unsupported(
                    f"{command[0]} cannot be started ({error.strerror}). Install it (Debian: qemu-system), or name"
                    " another command line with --definition."
                ) from error

    def _tell_guard(self, word: str = "") -> None:
        """The process to end if we end; nothing: none any longer."""
        if self._guard is None or self._guard.stdin is None:
            return
        with contextlib.suppress(OSError):
            self._guard.stdin.write(f"{word}\n".encode())
            self._guard.stdin.flush()
        if not word:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _connect(self) -> Qmp:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return Qmp(self.derived.control)
            except errors.Unreachable:
                if self._process.poll() is not None:
                    raise errors.Unreachable(f"QEMU cannot start the VM: {self.last_words}") from None
                if time.monotonic() > deadline:
                    raise errors.Unreachable(
                        f"QEMU does not answer within {START_SECONDS:.0f} s. It says: {self.last_words}"
                    ) from None
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Of QEMU, also where something started it for us."""
        return self.qmp.peer_pid or self._process.pid

    @property
    def last_words(self) -> str:
        with contextlib.suppress(OSError):
            said = self._log.read_text(errors="replace")[-_LAST_WORDS:].strip()
            if said:
                return plain.joined(said)
        return "it does not say why"

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def failure(self) -> str:
        """Why QEMU ended, in its words; empty while it runs, and where the guest was powered off."""
        return self.last_words if self._process.poll() else ""

    @property
    def status(self) -> str:
        """As QEMU's ``query-status`` tells it; empty when it has ended."""
        try:
            return str(self.qmp.execute("query-status")["status"])
        except errors.Unreachable:
            return ""

    @property
    def runs(self) -> bool:
        """As ``hold.Guest``, with the next two."""
        return self.qmp.execute("query-status")["status"] in ("running", "io-error")

    def stop(self) -> None:
        self.qmp.execute("stop")

    def go_on(self) -> None:
        self.qmp.execute("cont")

    def resume(self) -> None:
        """The guest runs, or goes on. It stays stopped where what stopped it is still so."""
        with contextlib.suppress(CommandFailed):
            self.go_on()

    def wait(self, seconds: float) -> bool:
        """Whether QEMU has ended within this time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._tell_guard()  # its number may soon be another's
        return True

    def power_off(self, seconds: float) -> bool:
        """As by the power button. Whether the guest went off within this time."""
        with contextlib.suppress(errors.HeadstartError):
            self.qmp.execute("system_powerdown")
        return self.wait(seconds)

    @property
    def stays(self) -> bool:
        """It was let go."""
        return self._kept

    def let_go(self) -> None:
        """It runs on without us."""
        self._kept = True
        self._tell_guard()

    def close(self) -> None:
        if not self._kept and not self.ended:
            with contextlib.suppress(errors.HeadstartError):
                self.qmp.execute("quit")
            if not self.wait(END_SECONDS):
                self._kill()
        self.qmp.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._tell_guard()

    def __enter__(self) -> Instance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _guard() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def require_memory(wanted: int, *, free: bool = False) -> None:
    """Raises ``NoSpace`` where the host has less, all in all; or has less ``free``."""
    name = "MemAvailable:" if free else "MemTotal:"
    found = next(int(line.split()[1]) for line in _MEMORY.read_text().splitlines() if line.startswith(name))
    there = found * units.KIB
    if wanted > there:
        of_it = f"{units.format_bytes(there)}{' that is free' * free}"
        by_policy = " (in a policy: 'memory' of its rehearsal)" * free
        raise errors.NoSpace(
            f"The VM has {units.format_bytes(wanted)} of memory, and this host {of_it}. Start it with less: --memory"
            f" SIZE{by_policy}.",
            needed=wanted,
            free=there,
        )
