"""QEMU's machine protocol for synchronous callers, over the ``qemu.qmp`` library.

The library speaks asyncio; a thread of ours runs its loop, so that every other layer can be plain
code. "Outcome unknown" (``Unreachable`` while a command was under way) is not "failed": the caller
asks QEMU what is, instead of assuming.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from headstart import errors, plain
from headstart.wire import peers

T = TypeVar("T")
Event = Mapping[str, Any]
Command = tuple[str, Mapping[str, Any]]

#: QEMU answers within milliseconds; a monitor that is silent this long is stuck or somebody else's.
GREETING_SECONDS = 5.0
COMMAND_SECONDS = 60.0
# The library logs every broken connection; ours are told as errors, once.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)

#: Events kept for late askers.
EVENTS_KEPT = 4096


class CommandFailed(errors.HeadstartError):
    """QEMU refused a command. ``kind`` is QMP's error class, ``text`` its description."""

    def __init__(self, command: str, kind: str, text: str) -> None:
        super().__init__(f"QEMU refused '{command}': {text}", command=command, kind=kind)
        self.command = command
        self.kind = kind
        self.text = text


class Qmp:
    """One connection to a QMP monitor. Usable from several threads; a context manager."""

    def __init__(self, path: Path, *, greeting_seconds: float = GREETING_SECONDS) -> None:
        """Raises ``Unreachable`` with the reason: no such socket, nobody listens, busy, not QMP."""
        self.path = path
        self._events: deque[tuple[int, Event]] = deque(maxlen=EVENTS_KEPT)
        self._event_count = 0
        self._arrived = threading.Condition()
        self._socket = _connect(path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._client = QMPClient("headstart")
        try:
            self._run(self._open(greeting_seconds), greeting_seconds)
        except BaseException:
            self._stop_loop()
            raise

    async def _open(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._client.connect(self._socket), seconds)
        except TimeoutError as error:
            there = ", ".join(peers.clients(self.path))
            raise errors.Unreachable(
                f"QEMU's monitor at {self.path} does not greet. A QMP socket serves one client at a"
                f" time: somebody else is connected ({there or 'libvirt, another tool, another headstart'})."
                " Give QEMU a monitor of our own: add another -qmp unix:PATH,server=on,wait=off."
            ) from error
        except (QMPError, OSError) as error:
            raise errors.Unreachable(f"{self.path} does not speak QMP: {plain.joined(str(error))}") from error
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        async for event in self._client.events:
            with self._arrived:
                self._event_count += 1
                self._events.append((self._event_count, dict(event)))
                self._arrived.notify_all()

    def _run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        if self._loop.is_closed():
            work.close()
            raise errors.Unreachable(f"The connection to QEMU at {self.path} is closed.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            # The grace covers the library's own clean-up after a time-out inside the coroutine.
            return future.result(seconds + 2.0)
        except TimeoutError as error:
            future.cancel()
            raise errors.Unreachable(
                f"QEMU's monitor at {self.path} did not answer within {seconds:.0f} s;"
                " whether the command took effect is not known."
            ) from error

    def execute(self, command: str, /, **arguments: Any) -> Any:
        """The command's return value. Argument names are given with ``_`` for ``-``."""
        return self.call(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def call(self, command: str, arguments: Mapping[str, Any]) -> Any:
        outcome = self._run(self._execute(command, arguments), COMMAND_SECONDS)
        if isinstance(outcome, errors.HeadstartError):
            raise outcome
        return outcome

    def batch(self, commands: Sequence[Command]) -> list[Any]:
        """Send all commands at once; QEMU runs them in order, also when one of them fails.

        Returns a value or a ``CommandFailed`` for each. Nothing of ours stands between two commands,
        so that the time between them is QEMU's alone.
        """

        async def together() -> list[Any]:
            return await asyncio.gather(*(self._execute(name, values) for name, values in commands))

        outcomes = self._run(together(), COMMAND_SECONDS)
        for outcome in outcomes:
            if isinstance(outcome, errors.Unreachable):
                raise outcome
        return outcomes

    async def _execute(self, command: str, arguments: Mapping[str, Any]) -> Any:
        try:
            return await self._client.execute(command, dict(arguments) or None)
        except ExecuteError as error:
            return CommandFailed(command, error.error_class, plain.joined(str(error)))
        except (QMPError, OSError) as error:
            return errors.Unreachable(
                f"The connection to QEMU at {self.path} ended during '{command}'"
                f" ({plain.joined(str(error)) or type(error).__name__}). If the VM was stopped, start it and try again."
            )

    @property
    def mark(self) -> int:
        """A position in the stream of events, for ``wait_event``."""
        with self._arrived:
            return self._event_count

    def wait_event(self, wanted: Callable[[Event], bool], seconds: float, since: int = 0) -> Event | None:
        """The first event after ``since`` that is wanted; None when the time is over."""

        def found() -> Event | None:
            return next((event for number, event in self._events if number > since and wanted(event)), None)

        with self._arrived:
            self._arrived.wait_for(lambda: found() is not None, seconds)
            return found()

    def events_since(self, mark: int) -> list[Event]:
        with self._arrived:
            return [event for number, event in self._events if number > mark]

    def fileno(self) -> int:
        """The connected socket, for the guard process to inherit."""
        return self._socket.fileno()

    @property
    def peer_pid(self) -> int | None:
        """QEMU's process id as the kernel tells it; None if it lives in another pid namespace."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", raw)[0]
        return pid or None

    def close(self) -> None:
        """Closed already is fine."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(QMPError, OSError, errors.Unreachable, asyncio.CancelledError, EOFError):
            self._run(self._client.disconnect(), GREETING_SECONDS)
        self._stop_loop()

    def _stop_loop(self) -> None:
        with contextlib.suppress(errors.Unreachable, asyncio.CancelledError):
            self._run(_end_tasks(), GREETING_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(GREETING_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _end_tasks() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _connect(path: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(GREETING_SECONDS)
    try:
        _connect_when_free(link, path)
    except FileNotFoundError as error:
        link.close()
        raise errors.Unreachable(
            f"There is no QMP socket at {path}. Start the VM with -qmp unix:{path},server=on,wait=off, or name the"
            " right path: 'headstart vm add', after 'headstart vm remove' where the VM is known."
        ) from error
    except PermissionError as error:
        link.close()
        raise errors.Unreachable(
            f"The QMP socket {path} does not let you in: {error.strerror}. Run as root, or as the user"
            " that QEMU runs as."
        ) from error
    except OSError as error:
        link.close()
        raise errors.Unreachable(
            f"Nobody listens on the QMP socket {path} ({error.strerror or error}): is the VM running?"
        ) from error
    link.setblocking(False)
    return link


def _connect_when_free(link: socket.socket, path: Path) -> None:
    """QEMU takes one client after the other, and its queue is short: those before may have gone, unheard."""
    deadline = time.monotonic() + GREETING_SECONDS
    while True:
        try:
            link.connect(str(path))
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)
