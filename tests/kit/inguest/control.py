"""The guest's end of the control port: JSON lines in, JSON lines out.

A request is ``{"id", "op", ...}``; its answer ``{"id", "result" | "error", "clock"}``, where the clock is
the guest's ``time.monotonic()`` at the answer. Each request has its own thread, so that one which blocks (a
write to a frozen file system) blocks no other. Beside answers there are events: ``ready`` at the start,
``progress`` of a workload.

Where disks come later (see ``tests/kit/booted.py``), ``ready`` is told once they have.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import WITHOUT_DISKS, content, direct, latency

PORT = "/dev/virtio-ports/org.headstart.test.0"

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
#: Linux, include/uapi/linux/random.h.
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207

HASH_PIECE = 4 << 20


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as boot:
        return boot.read().strip()


def waits_for_disks() -> bool:
    with open("/proc/cmdline") as words:
        return WITHOUT_DISKS in words.read().split()


def resume(now: float, entropy: str) -> None:
    """Be another guest than those that were started from the same state: by its clock, by what is random there, and
    by its disks."""
    time.clock_settime(time.CLOCK_REALTIME, now)
    noise = bytes.fromhex(entropy)
    with open("/dev/urandom", "wb", buffering=0) as random:
        fcntl.ioctl(random, RNDADDENTROPY, struct.pack("ii", 8 * len(noise), len(noise)) + noise)
        fcntl.ioctl(random, RNDRESEEDCRNG)
    subprocess.run("echo 1 >/sys/bus/pci/rescan; sh /modules/disks/load", shell=True, check=True)


def run(command: str, timeout_in_guest: float) -> dict[str, Any]:
    done = subprocess.run(
        command,
        shell=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_in_guest,
        check=False,
    )
    return {"status": done.returncode, "output": done.stdout.decode(errors="replace")}


def write(device: str, offset: int, length: int, seed: int | str | None, byte: int) -> None:
    data = bytes([byte]) * length if seed is None else content.random_bytes(seed, length)
    with direct.Device(device, write=True) as disk:
        disk.write(offset, data)
        disk.flush()


def read(device: str, offset: int, length: int) -> str:
    with direct.Device(device) as disk:
        return base64.b64encode(disk.read(offset, length)).decode()


def hash_range(device: str, offset: int, length: int | None) -> str:
    digest = hashlib.blake2b()
    with direct.Device(device) as disk:
        end = disk.size if length is None else offset + length
        for start in range(offset, end, HASH_PIECE):
            digest.update(disk.read(start, min(HASH_PIECE, end - start)))
    return digest.hexdigest()


def discard(device: str, offset: int, length: int) -> None:
    with direct.Device(device, write=True) as disk:
        disk.discard(offset, length)
        disk.flush()


def write_zeroes(device: str, offset: int, length: int) -> None:
    with direct.Device(device, write=True) as disk:
        disk.write_zeroes(offset, length)
        disk.flush()


def freeze(path: str) -> None:
    _on_file_system(path, FIFREEZE)


def thaw(path: str) -> None:
    _on_file_system(path, FITHAW)


def _on_file_system(path: str, request: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, request, 0)
    finally:
        os.close(fd)


class Workload:
    """A process that tells its progress by lines with a number; the first one says that it has begun."""

    def __init__(self, kind: str, options: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        command = [sys.executable, "-I", "-S", "-m", f"inguest.{kind}", json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = self._process.pid
        self._send = send
        self._begun = threading.Event()
        self._forwarder = threading.Thread(target=self._forward, daemon=True)
        self._forwarder.start()
        self._begun.wait()
        if not self.running:
            raise RuntimeError(f"{kind} ended at once; the VM's log has its message")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> int:
        """Its exit status: 0 if it had no error and ended after a whole write. All it told was sent before."""
        self._process.send_signal(signal.SIGTERM)
        self._forwarder.join()
        return self._process.wait()

    def set_rate(self, rate: float | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(rate).encode() + b"\n")
        self._process.stdin.flush()

    def _forward(self) -> None:
        """Tell the host the newest number, whatever older ones are still in the pipe."""
        assert self._process.stdout is not None
        rest = b""
        while chunk := os.read(self._process.stdout.fileno(), 65536):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                self._send({"event": "progress", "workload": self.number, "number": int(lines[-1])})
                self._begun.set()
        self._process.wait()
        self._begun.set()


class Workloads:
    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._running: dict[int, Workload] = {}

    def start(self, kind: str, options: dict[str, Any]) -> int:
        workload = Workload(kind, options, self._send)
        self._running[workload.number] = workload
        return workload.number

    def stop(self, workload: int) -> int:
        return self._running[workload].stop()

    def set_rate(self, workload: int, rate: float | None) -> None:
        self._running[workload].set_rate(rate)

    def stats(self, workload: int, since: float | None, until: float | None) -> dict[str, Any]:
        answer = latency.summary(latency.path_of(workload), since, until)
        return {**answer, "running": self._running[workload].running}

    def samples(self, workload: int, since: float | None, until: float | None) -> list[list[float]]:
        return [
            [sample.finished, sample.seconds] for sample in latency.samples(latency.path_of(workload), since, until)
        ]


class Control:
    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        workloads = Workloads(self.send)
        self._operations: dict[str, Callable[..., Any]] = {
            "resume": self._resume,
            "clock": time.monotonic,
            "run": run,
            "devices": direct.by_serial,
            "write": write,
            "read": read,
            "hash": hash_range,
            "discard": discard,
            "write_zeroes": write_zeroes,
            "freeze": freeze,
            "thaw": thaw,
            "workload_start": workloads.start,
            "workload_stop": workloads.stop,
            "workload_rate": workloads.set_rate,
            "workload_stats": workloads.stats,
            "workload_samples": workloads.samples,
        }

    def serve(self) -> None:
        self._write(b"\n")  # ends the half line that a guest before a reset may have left
        if not waits_for_disks():
            self._tell_ready()
        rest = b""
        while True:
            chunk = os.read(self._port, 65536)
            if not chunk:
                time.sleep(0.1)  # the host's end is closed
                continue
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _resume(self, now: float, entropy: str) -> None:
        resume(now, entropy)
        self._tell_ready()

    def _tell_ready(self) -> None:
        # The kernel makes up this number when it is read first.
        self.send({"event": "ready", "boot_id": boot_id()})

    def send(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message).encode() + b"\n")

    def _answer(self, line: bytes) -> None:
        request = json.loads(line)
        answer = {"id": request.pop("id")}
        try:
            answer["result"] = self._operations[request.pop("op")](**request)
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
        self.send({**answer, "clock": time.monotonic()})

    def _write(self, data: bytes) -> None:
        with self._lock:
            while data:
                # The port takes at most 32 KiB at a time.
                data = data[os.write(self._port, data) :]


if __name__ == "__main__":
    Control(os.open(PORT, os.O_RDWR)).serve()
