"""Our end of the watch (see watch_process)."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart import errors
from headstart.hypervisor import guard_process
from headstart.hypervisor.guard import Order
from headstart.hypervisor.libvirt import watch_process
from headstart.wire import children

#: It answers at once, except while it waits for a daemon that is away.
ANSWER_SECONDS = 15.0
#: How long it is waited for when all that it has left to do is to thaw the guest.
LEAVE_SECONDS = 10.0


class Watch:
    """Stands by while a job, a freeze or a domain of ours stands. A context manager."""

    def __init__(self, uri: str, uuid: str, thaw: Order | None = None, note: Path | None = None) -> None:
        """``thaw``: how it is thawed where libvirt's ``fsThaw`` is not the way. ``note`` is a file that exists while
        the guest may be frozen: the watch removes it when it has thawed."""
        self._thaw = thaw
        self._note = note
        self._pending = b""
        self._control, theirs = socket.socketpair()
        self._control.settimeout(ANSWER_SECONDS)
        agent = thaw.descriptor if thaw is not None else -1
        program = str(Path(watch_process.__file__))
        with children.ours_to_end():
            self._process = subprocess.Popen(
                [sys.executable, "-I", program, str(theirs.fileno()), uri, uuid, str(agent)],
                pass_fds=[theirs.fileno()] + ([agent] if agent >= 0 else []),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        theirs.close()

    def job(self, job_socket: Path, limits: Mapping[Path, int]) -> None:
        """A job with this socket is about to stand; at these sizes of its files it has to end."""
        self._tell({"job": str(job_socket), "limits": {str(path): limit for path, limit in limits.items()}})

    def job_over(self) -> None:
        self._tell({"job": None})

    def spilled(self) -> str:
        """The file that made the watch end the job; empty if none did."""
        return str(self._tell({})["spilled"])

    def started(self, number: int | None) -> None:
        """The domain of this id runs because of us (None: it is off again)."""
        self._tell({"started": number})

    @contextlib.contextmanager
    def freezing(self) -> Iterator[None]:
        """``headstart.hypervisor.freeze.Guarding``."""
        order = self._thaw.message.hex() if self._thaw is not None else ""
        note = str(self._note) if self._note is not None else ""
        self._tell({"frozen": guard_process.FREEZE_SECONDS, "thaw": order, "note": note})
        yield
        # Not in a finally: if we leave by an error, the watch is the one to act.
        self._tell({"frozen": None})

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        try:
            self._control.sendall(json.dumps(order).encode() + b"\n")
            while b"\n" not in self._pending:
                data = self._control.recv(65536)
                if not data:
                    raise ConnectionResetError("it has ended")
                self._pending += data
        except OSError as error:
            raise errors.PointLost(f"The process that watches the job does not answer: {error}.") from error
        line, self._pending = self._pending.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """What still stands is ended by the watch. It may outlive us for a guest that does not answer."""
        thaws = self._leaves()
        self._control.close()
        if not thaws:
            self._process.kill()
        try:
            self._process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            threading.Thread(target=self._process.wait, name="watch", daemon=True).start()

    def _leaves(self) -> bool:
        """In time it has ended all but a freeze, or itself."""
        try:
            self._control.shutdown(socket.SHUT_WR)
            self._control.settimeout(watch_process.PATIENCE_SECONDS)
            while self._control.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass  # with orders that it has not read
        return True

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()
