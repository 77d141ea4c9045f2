"""QEMU's guest agent on its socket: JSON lines, synchronised by ``guest-sync-delimited``.

The guest is not trusted and may be slow: every answer has a deadline, and a line has a limit.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from headstart import errors, plain

#: The agent puts this byte in front of the answer to guest-sync-delimited (QEMU's qga/main.c).
SENTINEL = b"\xff"
SYNC_SECONDS = 3.0
LINE_LIMIT = 1 << 20
#: Who waits for an answer is asked so often whether it still wants to.
ATTEND_SECONDS = 0.25
#: Characters of the guest's that reach a person.
REASON_LIMIT = 200


class Qga:
    """A connection to qga. Raises ``Unreachable`` when the agent does not answer in time."""

    def __init__(self, path: Path, *, sync_seconds: float = SYNC_SECONDS) -> None:
        self._path = path
        self._pending = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(sync_seconds)
            self._socket.connect(str(path))
            self._synchronise(sync_seconds)
        except (OSError, errors.Unreachable) as error:
            self._socket.close()
            raise errors.Unreachable(_silent(path, error)) from error

    def _synchronise(self, seconds: float) -> None:
        number = secrets.randbelow(1 << 31)
        deadline = time.monotonic() + seconds
        # A sentinel ends whatever an earlier client has left half-sent.
        self._socket.sendall(SENTINEL + _line({"execute": "guest-sync-delimited", "arguments": {"id": number}}))
        while True:
            line = self._read_line(deadline)
            _, found, answer = line.rpartition(SENTINEL)
            if found and decoded(answer).get("return") == number:
                return

    def execute(
        self,
        command: str,
        seconds: float,
        arguments: Mapping[str, Any] | None = None,
        attend: Callable[[], None] | None = None,
    ) -> Any:
        """``attend`` is called again and again while it waits. What it raises ends that: then this is of no use any
        longer but to be closed."""
        deadline = time.monotonic() + seconds
        try:
            self._socket.settimeout(seconds)
            self._socket.sendall(_line({"execute": command, **({"arguments": arguments} if arguments else {})}))
            answer = decoded(self._read_line(deadline, attend))
        except OSError as error:
            raise errors.Unreachable(f"The guest agent did not answer '{command}': {error}") from error
        if "error" in answer:
            told = answer["error"]
            reason = told.get("desc", "") if isinstance(told, dict) else told
            raise errors.Unreachable(f"The guest agent refused '{command}': {plain.line(str(reason), REASON_LIMIT)!r}")
        return answer.get("return")

    def _read_line(self, deadline: float, attend: Callable[[], None] | None = None) -> bytes:
        attended = time.monotonic()
        while b"\n" not in self._pending:
            now = time.monotonic()
            if now >= deadline:
                raise errors.Unreachable("no answer in time")
            # Also where something comes all the time.
            if attend is not None and now >= attended + ATTEND_SECONDS:
                attend()
                attended = now
            self._socket.settimeout(min(deadline - now, ATTEND_SECONDS))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            if not data or len(self._pending) > LINE_LIMIT:
                raise errors.Unreachable("the connection ended")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self) -> Qga:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _silent(path: Path, error: OSError | errors.Unreachable) -> str:
    otherwise = "Without it the backup is crash-consistent (--no-freeze)."
    match error:
        case PermissionError():
            return (
                f"The socket of the guest agent (qga), {path}, does not let you in: {error.strerror}. Run as root, or"
                " as the user that QEMU runs as."
            )
        case FileNotFoundError() | ConnectionRefusedError():
            return (
                f"Nobody listens at {path} for the guest agent (qga): {error.strerror}. Is the VM running, with this"
                f" socket on a port named org.qemu.guest_agent.0? {otherwise}"
            )
        case OSError():
            why = error.strerror or str(error)
        case _:
            why = str(error)
    return (
        f"The guest agent (qga) at {path} does not answer: {why}. Is qemu-guest-agent installed and running in the"
        f" guest? {otherwise}"
    )


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def decoded(line: str | bytes) -> dict[str, Any]:
    """An answer; empty for what is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
