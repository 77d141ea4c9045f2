"""The host's end of the control port: typed calls into the guest."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 60.0


class GuestError(Exception):
    """An operation failed in the guest."""


class NoAnswer(Exception):
    """The guest did not answer in time, or is gone."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A shell command that ended. Its output is stdout and stderr together."""

    status: int
    output: str


class Control:
    """Usable from several threads. Times given and returned are the host's ``time.monotonic()``."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        #: Told when anything below changes.
        self._news = threading.Condition()
        self._answers: dict[int, dict[str, Any] | None] = {}
        self._progress: dict[int, int] = {}
        self._boot = ""
        self._ended = False
        #: Host and guest time of the last answer; has to be fresh, a stopped VM's clock stands still.
        self._clocks = (0.0, 0.0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    # -- the machine

    def wait_ready(self, timeout: float, *, not_boot: str = "") -> str:
        """Wait until the control program says that it is there, in another boot; the boot's id."""
        with self._news:
            self._news.wait_for(lambda: self._boot not in ("", not_boot) or self._ended, timeout)
            if self._boot in ("", not_boot):
                raise NoAnswer(f"no control program answered in {timeout:.0f} s")
            return self._boot

    def resume(self) -> None:
        """To a guest that was started from a state: what is different now. ``booted`` has more."""
        self.call("resume", now=time.time(), entropy=os.urandom(64).hex())

    def run(self, command: str, *, timeout: float = TIMEOUT, check: bool = True) -> Ran:
        """A shell command in the guest."""
        ran = Ran(**self.call("run", command=command, timeout_in_guest=timeout, timeout=timeout + 5))
        if check and ran.status != 0:
            raise GuestError(f"{command!r} ended with {ran.status}: {ran.output}")
        return ran

    def clock(self) -> float:
        """The guest's ``time.monotonic()``."""
        now: float = self.call("clock")
        return now

    def device(self, serial: str) -> str:
        """The whole-disk device, such as ``/dev/vda``, of the disk with this serial number."""
        devices: dict[str, str] = self.call("devices")
        return devices[serial]

    # -- block devices, past the guest's cache; offsets and lengths in bytes, multiples of 512

    def write(self, device: str, offset: int, length: int, *, seed: int | str | None = None, byte: int = 0) -> None:
        """Write and fsync ``content.random_bytes(seed, length)``, or one byte again and again."""
        self.call("write", device=device, offset=offset, length=length, seed=seed, byte=byte)

    def read(self, device: str, offset: int, length: int) -> bytes:
        return base64.b64decode(self.call("read", device=device, offset=offset, length=length))

    def hash(self, device: str, offset: int = 0, length: int | None = None) -> str:
        """BLAKE2b of a range, to the end without a length."""
        digest: str = self.call("hash", device=device, offset=offset, length=length)
        return digest

    def discard(self, device: str, offset: int, length: int) -> None:
        self.call("discard", device=device, offset=offset, length=length)

    def write_zeroes(self, device: str, offset: int, length: int) -> None:
        self.call("write_zeroes", device=device, offset=offset, length=length)

    # -- file systems

    def mount(self, device: str, path: str, *, kind: str = "ext4", options: str = "defaults") -> None:
        self.run(f"mkdir -p {path} && mount -t {kind} -o {options} {device} {path}")

    def unmount(self, path: str) -> None:
        self.run(f"umount {path}")

    def freeze(self, path: str) -> None:
        self.call("freeze", path=path)

    def thaw(self, path: str) -> None:
        self.call("thaw", path=path)

    # -- workloads (see workloads.py for what stands on these)

    def start_workload(self, kind: str, options: dict[str, Any]) -> int:
        workload: int = self.call("workload_start", kind=kind, options=options)
        return workload

    def stop_workload(self, workload: int) -> int:
        """The exit status of a workload that was told to end after its current write."""
        status: int = self.call("workload_stop", workload=workload)
        return status

    def workload_stats(self, workload: int, since: float | None, until: float | None) -> dict[str, Any]:
        since, until = self._window(since, until)
        stats: dict[str, Any] = self.call("workload_stats", workload=workload, since=since, until=until)
        return stats

    def workload_samples(self, workload: int, since: float | None, until: float | None) -> list[tuple[float, float]]:
        """For each write with its fsync: when it was finished, in host time, and how long it took."""
        window = self._window(since, until)
        found = self.call("workload_samples", workload=workload, since=window[0], until=window[1])
        host, guest = self._clocks
        return [(finished - guest + host, seconds) for finished, seconds in found]

    def progress(self, workload: int) -> int | None:
        """The newest number that a workload has told."""
        with self._news:
            return self._progress.get(workload)

    def wait_progress(self, workload: int, number: int, timeout: float = TIMEOUT) -> None:
        """Wait until a workload has told this number, or a later one."""
        with self._news:
            reached = self._news.wait_for(lambda: self._progress.get(workload, -1) >= number, timeout)
        if not reached:
            raise NoAnswer(f"workload {workload} did not come to {number} in {timeout} s")

    # -- the line

    def call(self, operation: str, *, timeout: float = TIMEOUT, **arguments: Any) -> Any:
        number = next(self._numbers)
        message = json.dumps({"id": number, "op": operation, **arguments})
        with self._news:
            self._answers[number] = None
        try:
            with self._sending:
                self._socket.sendall(message.encode() + b"\n")
        except OSError as error:
            raise NoAnswer(f"{operation}: {error}") from error
        with self._news:
            self._news.wait_for(lambda: self._answers[number] is not None or self._ended, timeout)
            answer = self._answers.pop(number)
        if answer is None:
            raise NoAnswer(f"the guest did not answer {operation!r} in {timeout:.0f} s, or is gone")
        if "error" in answer:
            raise GuestError(f"{operation}: {answer['error']}")
        return answer["result"]

    def _window(self, since: float | None, until: float | None) -> tuple[float | None, float | None]:
        """Host times in guest time."""
        self.call("clock")
        host, guest = self._clocks
        return (
            None if since is None else since - host + guest,
            None if until is None else until - host + guest,
        )

    def _read(self) -> None:
        rest = b""
        while chunk := self._receive():
            *lines, rest = (rest + chunk).split(b"\n")
            with self._news:
                for line in filter(None, lines):
                    # Half a line comes from a guest that was reset.
                    with contextlib.suppress(json.JSONDecodeError):
                        self._dispatch(json.loads(line))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except OSError:
            return b""

    def _dispatch(self, message: dict[str, Any]) -> None:
        match message.get("event"):
            case "ready":
                self._boot = message["boot_id"]
                self._progress.clear()  # the next workloads may have the numbers of the old ones
            case "progress":
                self._progress[message["workload"]] = message["number"]
            case _:
                self._clocks = (time.monotonic(), message["clock"])
                if message["id"] in self._answers:  # else nobody waits for it any longer
                    self._answers[message["id"]] = message
