"""A small synchronous QMP client for tests, independent of the product's."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT = 30.0


class QmpError(Exception):
    """QEMU refused a command."""

    def __init__(self, command: str, error: dict[str, str]) -> None:
        super().__init__(f"{command}: {error['desc']}")
        self.kind = error["class"]


class Qmp:
    """One monitor. ``events`` holds what was received while a command or ``wait_event`` was waiting."""

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._lock = threading.RLock()
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT)
        self._socket.connect(str(path))
        self._receive(time.monotonic() + TIMEOUT)  # the greeting
        self.execute("qmp_capabilities")

    @property
    def peer_pid(self) -> int:
        """QEMU's process id."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[0])

    def close(self) -> None:
        self._socket.close()

    def execute(self, command: str, timeout: float = TIMEOUT, **arguments: Any) -> Any:
        """The command's return value. QMP's names have dashes, which stand here as underscores."""
        message = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            deadline = time.monotonic() + timeout
            while True:
                answer = self._receive(deadline)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(command, answer["error"])
                self.events.append(answer)

    def wait_event(self, name: str, timeout: float = TIMEOUT, **data: Any) -> dict[str, Any]:
        """The first event of this name with these data, from those that were received already or come now."""
        with self._lock:
            deadline = time.monotonic() + timeout
            while True:
                for event in self.events:
                    if event["event"] == name and data.items() <= event.get("data", {}).items():
                        return event
                self.events.append(self._receive(deadline))

    def drain(self, name: str) -> list[dict[str, Any]]:
        """The events of this name, with all that has come until now."""
        with self._lock:
            self.execute("query-status")
            return [event for event in self.events if event["event"] == name]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._rest:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = self._socket.recv(65536)
            if not chunk:
                raise ConnectionError("QEMU closed its monitor")
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message


def moment_of(event: Mapping[str, Mapping[str, int]]) -> float:
    """In seconds, by QEMU's clock."""
    return event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6
