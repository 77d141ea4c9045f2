"""Our end of the guard process (see guard_process)."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart import errors
from headstart.hypervisor import guard_process
from headstart.wire import children

#: The guard answers at once; if not, it is not there, and nothing is stopped or frozen.
ANSWER_SECONDS = 5.0
#: How long it is waited for when it is not needed any longer.
CLOSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Order:
    """What may be written on an inherited connection by somebody else, and is obeyed as if we had."""

    descriptor: int
    message: bytes


class Guard:
    """Stands by while we stop or freeze a VM. A context manager."""

    def __init__(self, qmp: int, thaw: Order | None, note: Path, leave: Callable[[], None] = lambda: None) -> None:
        """``qmp`` is a connected socket, which the guard inherits, as that of ``thaw``. ``note`` is a file,
        made by the guard, that exists while the VM stands still because of us: only then may a later run continue
        it. ``leave`` is called if the guard outlives us: from then on the answers on ``qmp`` are for it alone."""
        self._note = note
        self._leave = leave
        self._control, theirs = socket.socketpair()
        self._control.settimeout(ANSWER_SECONDS)
        inherited = [theirs.fileno(), qmp] + ([thaw.descriptor] if thaw is not None else [])
        program = str(Path(guard_process.__file__))
        freezer = ["-1", ""] if thaw is None else [str(thaw.descriptor), thaw.message.hex()]
        arguments = [str(theirs.fileno()), str(qmp), *freezer, str(note)]
        with children.ours_to_end():
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", program, *arguments],
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        theirs.close()

    @contextlib.contextmanager
    def pausing(self) -> Iterator[None]:
        # No end is told in a finally, here and below: if we leave by an error, the guard is the one to act.
        try:
            self._tell(b"P")
        except errors.PointLost:
            # Nothing was stopped, and a later run must not undo its owner's stop.
            self._note.unlink(missing_ok=True)
            raise
        yield
        self._note.unlink(missing_ok=True)
        self._tell(b"p")

    @contextlib.contextmanager
    def freezing(self) -> Iterator[None]:
        self._tell(b"F")
        yield
        self._tell(b"f")

    def _tell(self, order: bytes) -> None:
        try:
            self._control.sendall(order)
            answer = self._control.recv(1)
        except OSError as error:
            raise errors.PointLost(f"The guard process does not answer: {error}") from error
        if answer == guard_process.REFUSED:
            raise errors.PointLost(f"{self._note} cannot be made, and nothing may be stopped without it: make room.")
        if answer != order:
            raise errors.PointLost("The guard process is gone: nothing may be stopped without it.")

    def close(self) -> None:
        """It may outlive us: QEMU hangs, and has not continued the VM yet."""
        self._control.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._leave()
            threading.Thread(target=self._process.wait, name="guard", daemon=True).start()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
